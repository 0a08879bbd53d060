"""What a checkpoint is: how it is written, verified, found and put back into a model and its optimiser.

A run of one process writes one file a step, `step-<step>.safetensors`; a run of many ranks writes a folder,
`step-<step>/`, one file per rank (`noiselaw.train.sharded`). Either is read by any number of ranks, or whole on one
machine.

A checkpoint holds the model (`model.*`), the optimiser state (`optimizer.<parameter index>.<name>`), the step, the
fingerprint of the run's spec and checksums. The position in the data and every random draw are functions of
(seed, step), so the step stands for them too. Nothing is pickled.
"""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from noiselaw.files import write_atomically
from noiselaw.train.peers import Peers

NAME = re.compile(r"step-(\d+)(\.safetensors)?")
"""Of a file or a folder that holds a checkpoint."""

MODEL, OPTIMIZER = "model.", "optimizer."
"""What the names of their tensors start with."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: names the file, the fault and the remedy."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint says beside its tensors."""

    step: int
    fingerprint: str
    """Of the run's spec and data."""
    scalars: dict[str, Any]
    """Optimiser state that is not a tensor, by `<parameter index>.<name>`."""

    def as_strings(self) -> dict[str, str]:
        return {"step": str(self.step), "fingerprint": self.fingerprint, "scalars": json.dumps(self.scalars)}

    @staticmethod
    def from_strings(strings: dict[str, str]) -> "Facts":
        """Raises KeyError or ValueError where they are not what `as_strings` gave."""
        scalars = json.loads(strings["scalars"])
        if not isinstance(scalars, dict):
            raise ValueError(f"scalars are a {type(scalars).__name__}")  # noqa: TRY004 (the file is at fault)
        return Facts(int(strings["step"]), strings["fingerprint"], scalars)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    facts: Facts
    files: tuple[Path, ...]
    """Its safetensors files."""

    @property
    def step(self) -> int:
        return self.facts.step


def damaged(path: Path, fault: object) -> CheckpointError:
    """The error of a checkpoint that does not hold what was written."""
    return CheckpointError(f"{path}: damaged checkpoint ({fault}); delete it to use the one before")


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that make up the state of training, not copied, and its scalars."""
    tensors = {MODEL + name: tensor.detach() for name, tensor in model.state_dict().items()}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}.{key}"] = value.detach()
            else:
                scalars[f"{index}.{key}"] = value
    return tensors, scalars


def write_file(path: Path, tensors: dict[str, Tensor], facts: Facts) -> None:
    """Write a checkpoint as one file. `tensors` are on the CPU.

    Raises OSError when the disk is full; nothing is left then.
    """
    strings = facts.as_strings()
    metadata = strings | {"checksum": checksum(tensors), "facts_checksum": checksum_of_facts(strings)}
    content = save(tensors, metadata)
    write_atomically(path, lambda stream: stream.write(content))


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first; not verified."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_step_in_name(path), path.name))


def drop_older(newest: Path, keep: int) -> None:
    """Delete all but the `keep` newest of the checkpoints up to `newest`, and any other of its step.

    Later ones stay: damaged ones that the run passed over, until it gets there itself.
    """
    step = _step_in_name(newest)
    others = [path for path in list_checkpoints(newest.parent) if path != newest and _step_in_name(path) <= step]
    older = [path for path in others if _step_in_name(path) < step]
    kept = older[max(0, len(older) + 1 - keep) :]
    for path in others:
        if path not in kept:
            drop(path)


def drop(path: Path) -> None:
    """Delete a checkpoint: gone at once, also for a reader that comes while its files are being deleted."""
    hidden = path.with_name(f".{path.name}.old.tmp")
    path.replace(hidden)
    if hidden.is_dir():
        shutil.rmtree(hidden)
    else:
        hidden.unlink()


def read_checkpoint(path: Path, peers: Peers | None = None) -> Checkpoint:
    """Read what a checkpoint says and verify it; each of several `peers` verifies its share of the files.

    Raises CheckpointError when it is truncated, altered, incomplete or no checkpoint.
    """
    peers = peers or Peers()
    if path.is_dir():
        from noiselaw.train.sharded import read_folder  # noqa: PLC0415 (slow to import)

        checkpoint = read_folder(path, peers)
    else:
        checkpoint = _read_file(path, verify=peers.rank == 0)
    named = _step_in_name(path)
    if checkpoint.step != named:
        raise damaged(path, f"holds step {checkpoint.step}")
    return checkpoint


def read_tensors(checkpoint: Checkpoint, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, whole, on the CPU."""
    if checkpoint.path.is_dir():
        from noiselaw.train.sharded import read_whole  # noqa: PLC0415 (slow to import)

        return read_whole(checkpoint, prefix)
    (path,) = checkpoint.files
    with safe_open(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys() if name.startswith(prefix)}  # noqa: SIM118 (not a mapping)


def newest_valid(folder: Path, fingerprint: str, peers: Peers | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a line for each damaged one passed over: the same on all `peers`.

    Raises CheckpointError when a sound checkpoint belongs to another spec.
    """
    peers = peers or Peers()
    faults = []
    for path in reversed(peers.first(lambda: list_checkpoints(folder))):
        try:
            checkpoint = peers.together(partial(read_checkpoint, path, peers))[0]
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if checkpoint.facts.fingerprint != fingerprint:
            raise CheckpointError(
                f"{path}: checkpoint of another spec (fingerprint {checkpoint.facts.fingerprint}, this run's is "
                f"{fingerprint}); choose another output folder or restore the spec it was made with"
            )
        return checkpoint, faults
    return None, faults


def restore(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, peers: Peers | None = None
) -> None:
    """Put the checkpoint's state into `model` and `optimizer`, in place; each of `peers` reads its own shards."""
    peers = peers or Peers()
    if peers.group is None:
        tensors = read_tensors(checkpoint)
        model.load_state_dict(tensors_under(MODEL, tensors))
    else:
        from noiselaw.train.sharded import read_shards  # noqa: PLC0415 (slow to import)

        tensors = read_shards(checkpoint, model, optimizer, peers)
    state: dict[int, dict[str, Any]] = {}
    for name, value in (checkpoint.facts.scalars | tensors_under(OPTIMIZER, tensors)).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def tensors_under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of `tensors` whose names start with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of `tensors`, whatever their order and file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def checksum_of_facts(facts: dict[str, Any]) -> str:
    """SHA-256 over what a checkpoint says beside its tensors, whatever the order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _step_in_name(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: no checkpoint's name; point at a run's checkpoints folder")
    return int(match[1])


def _read_file(path: Path, *, verify: bool) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()} if verify else {}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    if "fingerprint" not in metadata:
        raise CheckpointError(
            f"{path}: not a training checkpoint (no fingerprint); point at a run's checkpoints folder"
        )
    if verify and metadata.get("checksum") != checksum(tensors):
        raise damaged(path, "checksum differs")
    try:
        facts = Facts.from_strings(metadata)
    except (KeyError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    # Checkpoints from before this checksum existed lack it.
    expected = checksum_of_facts(facts.as_strings())
    if metadata.get("facts_checksum", expected) != expected:
        raise damaged(path, "checksum of its facts differs")
    return Checkpoint(path, facts, (path,))
