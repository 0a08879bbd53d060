"""The checkpoints of a run in progress, written while it goes on: the same calls on one process and on many ranks."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from noiselaw.files import remove_leftovers
from noiselaw.train.checkpoint import Facts, drop_older, newest_valid, restore, training_state, write_file
from noiselaw.train.peers import Peers


class Checkpoints:
    """The folder of a run's checkpoints. All ranks make the same calls in the same order.

    A save copies the state and writes the copy in the background. A checkpoint is complete or absent; the `keep` newest
    stay. Leaving the block waits for a save under way.
    """

    def __init__(self, folder: Path, fingerprint: str, *, keep: int) -> None:
        """Removes what a killed process left half-written in `folder`."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._keep = keep
        self._peers = Peers.of_this_run()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[int] | None = None
        self._newest: int | None = None
        """Step of the checkpoint that this process last restored or wrote."""
        self._peers.first(self._prepare)

    def restore_newest(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[str]]:
        """Put the newest checkpoint that verifies into `model` and `optimizer`, whatever number of ranks wrote it.

        Returns its step, 0 where there is none, and a line for each damaged one passed over: the same on all ranks.
        Raises CheckpointError when it belongs to another spec.
        """
        checkpoint, faults = newest_valid(self._folder, self._fingerprint, self._peers)
        if checkpoint is None:
            return 0, faults
        restore(checkpoint, model, optimizer, self._peers)
        self._newest = checkpoint.step
        return checkpoint.step, faults

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, wait: bool) -> None:
        """Begin to write a checkpoint of this moment, after the one under way; with `wait`, return when it is on disk.

        Does nothing where the state of `step` is on disk already: it was just saved or restored.
        Raises OSError when the disk is full, here or for the save before; older checkpoints stay untouched then.
        """
        self.finish()
        if step == self._newest:
            return
        tensors, scalars = training_state(model, optimizer)
        facts = Facts(step, self._fingerprint, scalars)
        if self._peers.group is None:
            copies = {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
        else:
            from noiselaw.train.sharded import stage  # noqa: PLC0415 (slow to import)

            copies = stage(tensors)
        self._saving = self._thread.submit(self._write, copies, facts)
        if wait:
            self.finish()

    @property
    def failed(self) -> bool:
        """Whether a save in the background has failed by now; then `finish` raises its error.

        Ranks see it at different steps: they have to agree on it before all of them call `finish`.
        """
        saving = self._saving
        return saving is not None and saving.done() and saving.exception() is not None

    def finish(self) -> None:
        """Wait for the save under way. Raises its error."""
        saving, self._saving = self._saving, None
        if saving is not None:
            self._newest = saving.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the save under way; its error is raised unless another one ends the block."""
        self._thread.shutdown()
        if error is None:
            self.finish()

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)

    def _write(self, tensors: dict[str, Tensor], facts: Facts) -> int:
        path = self._folder / f"step-{facts.step:08d}"
        if self._peers.group is None:
            path = path.with_name(f"{path.name}.safetensors")
            write_file(path, tensors, facts)
        else:
            from noiselaw.train.sharded import write_folder  # noqa: PLC0415 (slow to import)

            write_folder(path, tensors, facts, self._peers)
        self._peers.first(partial(drop_older, path, self._keep))
        return facts.step
