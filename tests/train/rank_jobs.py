"""What the ranks of the checkpoint tests do: a small Transformer in any layout, updated by gradients that are given.

The gradients are functions of the step, so every layout must reach the very same bits.
"""

import errno
import hashlib
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from noiselaw.hub.loading import load_run
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.optim.groups import build_optimizer
from noiselaw.specs import InitSpec, ModelSpec, OptimizerSpec
from noiselaw.train.checkpoint import read_checkpoint, read_tensors, training_state
from noiselaw.train.saving import Checkpoints

MODEL = ModelSpec(num_layers=1, width=12, num_heads=2)
VOCAB = 37
"""Neither it nor the width is a multiple of every number of ranks; some ranks hold nothing of the smallest vectors."""
FINGERPRINT = "a run's fingerprint"


def build(layout: str, kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Transformer(MODEL, VOCAB)
    initialise(model, InitSpec(), torch.Generator().manual_seed(0))
    cut(model, layout)
    return model, build_optimizer(model, OptimizerSpec(kind=kind, weight_decay=0.1, learning_rate=0.1), MODEL)


def cut(model: Transformer, layout: str) -> None:
    """Shard `model`: over all ranks, over pairs of replicas, or beside tensor parallelism over two ranks."""
    if layout == "plain":
        return
    size = dist.get_world_size()
    if layout == "fsdp":
        mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("shard",))
    elif layout == "hsdp":
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("replicate", "shard"))
    else:
        both = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("shard", "tensor"))
        for layer in model.model.layers:
            plan = {"self_attn.q_proj": ColwiseParallel(), "self_attn.o_proj": RowwiseParallel()}
            parallelize_module(layer, both["tensor"], plan)
        mesh = both["shard"]
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One update by gradients that depend on `step` only. The head has none at first: its state comes later."""
    draws = torch.Generator().manual_seed(step)
    for name, parameter in model.named_parameters():
        grad = torch.randn(parameter.shape, generator=draws)
        if name == "lm_head.weight" and step < 2:
            continue
        if isinstance(parameter, DTensor):
            grad = distribute_tensor(grad, parameter.device_mesh, parameter.placements)
        parameter.grad = grad
    optimizer.step()


def digests(tensors: dict[str, Tensor], scalars: dict) -> dict[str, str]:
    """What the state is, tensor by tensor, gathered from all ranks."""
    whole = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
    return {
        name: f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()}"
        for name, tensor in whole.items()
    } | {name: repr(value) for name, value in scalars.items()}


def stored(path: Path) -> dict[str, str]:
    """The digests of a checkpoint on disk, read whole on one machine."""
    checkpoint = read_checkpoint(path)
    return digests(read_tensors(checkpoint), checkpoint.facts.scalars)


def uninterrupted(kind: str, last: int) -> list[dict[str, str]]:
    """The digests after every step of a plain model."""
    model, optimizer = build("plain", kind)
    states = [digests(*training_state(model, optimizer))]
    for step in range(1, last + 1):
        update(model, optimizer, step)
        states.append(digests(*training_state(model, optimizer)))
    return states


def continue_run(folder: Path, layout: str, kind: str, last: int) -> dict:
    """Restore the newest checkpoint and train to `last`, with a save in the background after every step."""
    model, optimizer = build(layout, kind)
    with Checkpoints(folder, FINGERPRINT, keep=3) as checkpoints:
        start, faults = checkpoints.restore_newest(model, optimizer)
        restored = digests(*training_state(model, optimizer))
        for step in range(start + 1, last + 1):
            update(model, optimizer, step)
            checkpoints.save(model, optimizer, step=step, wait=False)
    return {"start": start, "faults": faults, "restored": restored, "end": digests(*training_state(model, optimizer))}


def fill_the_disk(folder: Path, last: int, failing_rank: int | None) -> str:
    """Train until a save in the background fails. Without a rank to fail the disk really fills."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    write = HuggingFaceStorageWriter.write_data

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    model, optimizer = build("fsdp", "laprop")
    try:
        with Checkpoints(folder, FINGERPRINT, keep=3) as checkpoints:
            start, _ = checkpoints.restore_newest(model, optimizer)
            for step in range(start + 1, last + 1):
                update(model, optimizer, step)
                if step == last and failing_rank is not None:
                    checkpoints.finish()  # the save before is not to fail
                    if dist.get_rank() == failing_rank:
                        HuggingFaceStorageWriter.write_data = full
                checkpoints.save(model, optimizer, step=step, wait=False)
    except OSError as error:
        return str(error)
    finally:
        HuggingFaceStorageWriter.write_data = write
    return "no error"


def die_while_saving(folder: Path, last: int) -> str:
    """Train to `last`; rank 1 is killed while it writes that checkpoint."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    model, optimizer = build("fsdp", "laprop")
    with Checkpoints(folder, FINGERPRINT, keep=3) as checkpoints:
        start, _ = checkpoints.restore_newest(model, optimizer)
        for step in range(start + 1, last + 1):
            update(model, optimizer, step)
            checkpoints.finish()
            if step == last and dist.get_rank() == 1:
                HuggingFaceStorageWriter.write_data = die
            checkpoints.save(model, optimizer, step=step, wait=False)
        try:
            checkpoints.finish()
        except RuntimeError as error:
            return str(error)
    return "no error"


def shard_run(run: Path, fingerprint: str) -> int:
    """Replace a run's checkpoint by one of many ranks."""
    loaded = load_run(run, None)
    model = loaded.model
    spec = OptimizerSpec()
    cut(model, "fsdp")
    optimizer = build_optimizer(model, spec, model.spec)
    with Checkpoints(run / "checkpoints", fingerprint, keep=1) as checkpoints:
        step, _ = checkpoints.restore_newest(model, optimizer)
    with Checkpoints(run / "checkpoints", fingerprint, keep=1) as checkpoints:
        checkpoints.save(model, optimizer, step=step, wait=True)
    return step
