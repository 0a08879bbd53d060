"""Checkpoints of many ranks: a folder of the safetensors files that torch's distributed checkpoint writes, one a rank.

    step-00000123/
        shard-00001-model-00001-of-00001.safetensors    what rank 0 holds, with the offsets of its pieces
        shard-00002-model-00001-of-00001.safetensors    ...
        manifest.json                                   facts, and size and SHA-256 of every file

torch's planner cuts and joins the pieces, so a run continues on any number of ranks. Its own metadata, a pickle, is
neither written nor read: everything is in the headers of the safetensors files and in the manifest. The folder is
written under a hidden name and renamed by rank 0 once all ranks are done and the manifest stands.

Importing this takes a second or two, which runs of one process do without.
"""

import hashlib
import math
import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from noiselaw.files import read_json, sync_folder, unwritable, write_json
from noiselaw.train.checkpoint import (
    MODEL,
    OPTIMIZER,
    Checkpoint,
    Facts,
    checksum_of_facts,
    damaged,
    drop,
)
from noiselaw.train.peers import Peers

MANIFEST_NAME = "manifest.json"


def stage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of `tensors` on the CPU, sharded as they are: training may go on while it is written."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    staged = stager.stage(tensors)
    stager.close()
    assert isinstance(staged, dict)
    return staged


def write_folder(path: Path, tensors: dict[str, Tensor], facts: Facts, peers: Peers) -> None:
    """Write a checkpoint as the folder `path`; all ranks call it with what `stage` gave them.

    Raises OSError on all ranks when one finds the disk full; nothing is left then.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        peers.first(partial(_new_folder, unfinished))
        _write_shards(unfinished, tensors, peers)
        own = f"shard-{peers.rank + 1:05d}-*.safetensors"
        shards = peers.together(lambda: {file.name: _facts_of_file(file) for file in unfinished.glob(own)})
        peers.first(partial(_commit, unfinished, path, facts, shards))
    except BaseException:
        if peers.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read_folder(path: Path, peers: Peers) -> Checkpoint:
    """Read the manifest and verify this rank's share of the files. Raises CheckpointError where one differs."""
    facts, files = _read_manifest(path)
    names = sorted(files)
    for name in names[peers.rank :: peers.size]:
        _verify(path, path / name, files[name])
    return Checkpoint(path, facts, tuple(path / name for name in names))


def read_whole(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, whole, on the CPU: on one machine, without other ranks."""
    reader = _Reader(checkpoint)
    entries = {name: entry for name, entry in reader.entries().items() if name.startswith(prefix)}
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        reader.load(tensors, no_dist=True)
    return tensors


def read_shards(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, peers: Peers
) -> dict[str, Tensor]:
    """Read this rank's shards into `model`; return all tensors, those of the optimiser cut like its parameters."""
    reader = _Reader(checkpoint)
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, entry in reader.entries().items():
        if name.startswith(OPTIMIZER):
            parameter = parameters[int(name.split(".")[1])]
            dtype = entry.properties.dtype
            like = parameter.shape == entry.size
            tensors[name] = (
                torch.empty_like(parameter, dtype=dtype, requires_grad=False)
                if like
                else torch.empty(entry.size, dtype=dtype)
            )
    reader.load(tensors, process_group=peers.group)
    return tensors


class _OnlyTheseFiles(FileSystem):
    """A file system in which a checkpoint's folder holds the files it names and nothing else."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def ls(self, path: Any) -> list[str]:
        del path
        return [str(file) for file in self.files]


class _Reader(HuggingFaceStorageReader):
    """torch's reader of safetensors files, for the files of one checkpoint, be they one or many."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(str(checkpoint.path))
        self.fs = _OnlyTheseFiles(checkpoint.files)
        self.of = checkpoint

    def entries(self) -> dict[str, TensorStorageMetadata]:
        """{name: size, dtype and pieces}. Raises CheckpointError where pieces do not make up their tensor."""
        try:
            entries = self.read_metadata().state_dict_metadata
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise damaged(self.of.path, error) from error
        for name, entry in entries.items():
            assert isinstance(entry, TensorStorageMetadata)
            if sum(math.prod(piece.sizes) for piece in entry.chunks) != math.prod(entry.size):
                raise damaged(self.of.path, f"the pieces of {name!r} do not make up a tensor of {list(entry.size)}")
        return entries  # pyright: ignore[reportReturnType] (asserted)

    def load(self, tensors: dict[str, Tensor], **how: Any) -> None:
        """Fill `tensors`, whole or sharded."""
        try:
            load(tensors, storage_reader=self, **how)
        except CheckpointException as failure:
            raise damaged(self.of.path, _cause(failure)) from failure


def _write_shards(folder: Path, tensors: dict[str, Tensor], peers: Peers) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    # Nothing is left to copy from a GPU, and this thread's current GPU may be another rank's.
    writer.per_thread_copy_ahead = 0
    try:
        save(tensors, storage_writer=writer, process_group=peers.group)
    except CheckpointException as failure:
        cause = _cause(failure)
        raise (unwritable(folder, cause) if isinstance(cause, OSError) else cause) from failure


def _cause(failure: CheckpointException) -> BaseException:
    """What went wrong on the lowest of the ranks where something did."""
    return failure.failures[min(failure.failures)][0]


def _new_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _facts_of_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _commit(unfinished: Path, path: Path, facts: Facts, shards: list[dict[str, Any]]) -> None:
    """The last step, by rank 0 alone: the manifest, then the name that makes the folder a checkpoint."""
    files = {}
    for rank, found in enumerate(shards):
        for name in found:
            if not (unfinished / name).is_file():
                raise OSError(
                    f"{unfinished / name}: written by rank {rank}, but not to be seen by rank 0; "
                    "choose an --out on a file system that all nodes share"
                )
        files |= found
    manifest = {**facts.as_strings(), "files": files}
    write_json(unfinished / MANIFEST_NAME, manifest | {"checksum": checksum_of_facts(manifest)})
    if path.exists():
        drop(path)
    unfinished.replace(path)
    sync_folder(path.parent)


def _read_manifest(path: Path) -> tuple[Facts, dict[str, dict[str, Any]]]:
    """The facts and {file: size and checksum} of a checkpoint. Raises CheckpointError unless they are as written."""
    place = path / MANIFEST_NAME
    if not place.is_file():
        raise damaged(path, f"no {MANIFEST_NAME}; pickled checkpoints of torch are not read")
    try:
        manifest = read_json(place)
        expected = manifest.pop("checksum")
        files = manifest["files"]
        facts = Facts.from_strings(manifest)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    if checksum_of_facts(manifest) != expected:
        raise damaged(path, f"checksum of {MANIFEST_NAME} differs")
    entries = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(entry, dict) and {"bytes": int, "sha256": str} == _types(entry) for entry in entries):
        raise damaged(path, f"{MANIFEST_NAME} does not give size and checksum of each file")
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise damaged(path, f"{MANIFEST_NAME} names {name!r}; only .safetensors files beside it are read")
    return facts, files


def _types(entry: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in entry.items()}


def _verify(path: Path, file: Path, expected: dict[str, Any]) -> None:
    try:
        found = _facts_of_file(file)
    except OSError as error:
        raise damaged(path, f"{file.name}: {error.strerror or error}") from error
    if found != expected:
        what = "is truncated" if found["bytes"] < expected["bytes"] else "has another checksum"
        raise damaged(path, f"{file.name} {what}")
