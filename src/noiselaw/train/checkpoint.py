"""Checkpoints: one safetensors file per step, written whole or not at all, verified when read.

A file holds the model (`model.*`), the optimiser state (`optimizer.<parameter index>.<name>`) and, in its header, the
step, the run's fingerprint and a checksum. Nothing is pickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from noiselaw.files import write_atomically


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: names the file, the fault and the remedy."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    step: int
    fingerprint: str
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, fingerprint: str, keep: int
) -> Path:
    """Write `step-<step>.safetensors` into `folder`, then drop all but the `keep` newest.

    Raises OSError when the disk is full; older checkpoints stay untouched then.
    """
    tensors, scalars = _flatten(model, optimizer)
    metadata = {
        "step": str(step),
        "fingerprint": fingerprint,
        "scalars": json.dumps(scalars),
        "checksum": checksum(tensors),
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    content = save(tensors, metadata)
    write_atomically(path, lambda stream: stream.write(content))
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one file. Raises CheckpointError when it is truncated, altered or not a checkpoint."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}); delete it to use the one before") from error
    if "fingerprint" not in metadata:
        raise CheckpointError(
            f"{path}: not a training checkpoint (no fingerprint); point at a run's checkpoints folder"
        )
    if metadata["checksum"] != checksum(tensors):
        raise CheckpointError(f"{path}: damaged checkpoint (checksum differs); delete it to use the one before")
    scalars = json.loads(metadata["scalars"])
    return Checkpoint(int(metadata["step"]), metadata["fingerprint"], tensors, scalars)


def newest_valid(folder: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a line for each damaged one passed over.

    Raises CheckpointError when a sound checkpoint belongs to another spec.
    """
    faults = []
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if checkpoint.fingerprint != fingerprint:
            raise CheckpointError(
                f"{path}: checkpoint of another spec (fingerprint {checkpoint.fingerprint}, this run's is "
                f"{fingerprint}); choose another output folder or restore the spec it was made with"
            )
        return checkpoint, faults
    return None, faults


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the checkpoint's state into `model` and `optimizer`, in place."""
    model_state = {
        name.removeprefix("model."): tensor for name, tensor in checkpoint.tensors.items() if name.startswith("model.")
    }
    model.load_state_dict(model_state)
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    for name, value in checkpoint.scalars.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _flatten(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, scalars


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of `tensors`, whatever their order and file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
