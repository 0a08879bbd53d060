"""Memory that dry runs forecast beside memory that the same steps take: one process, and two that share the model.

Two real steps of small models, every token with loss; their peak is the largest sum of what PyTorch's allocator has
given out at one time: on a CPU from the events it tells the profiler, on a GPU from `torch.cuda.max_memory_allocated`.

    python benchmarks/dryrun.py             (on a GPU where there is one; two processes need two)
    python benchmarks/dryrun.py --quick     (three cases)
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harness import Claim, cpu_name, parser, peak_megabytes, write_claims

from noiselaw.model.transformer import Transformer
from noiselaw.optim.groups import build_optimizer
from noiselaw.specs import RunSpec
from noiselaw.train.distributed import joined_ranks
from noiselaw.train.dryrun import PlannedStep, fullest_batch, passed_sequences, placeless_objective, step_cost
from noiselaw.train.parallel import parallelise
from noiselaw.train.step import HeadSettings, Precision, accumulate_gradients, clip_gradients

MAX_ERROR = {"float32": 0.01, "bfloat16": 0.05}
"""Of a forecast, relative. On a CPU adding a bfloat16 product to the head's float32 gradient takes scratch that a dry
run does not see: what `noiselaw.head.chunked` adds at a time, once more in float32. At these sizes it is 1.6 MB."""
SHAPES = {
    "cpu": {"num_layers": 6, "width": 192, "num_heads": 4},
    "cuda": {"num_layers": 12, "width": 1024, "num_heads": 8},
}
LENGTHS, VOCAB_SIZES = {"cpu": 256, "cuda": 2048}, {"cpu": 2048, "cuda": 32768}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "masked, bfloat16": (1, {"precision": "bfloat16"}),
    "balanced, float32, full recomputation, 2 passes": (
        1,
        {"objective": "balanced", "micro_batch_sequences": 4, "recompute": "full"},
    ),
    "uniform, float32, selective recomputation": (1, {"objective": "uniform", "recompute": "selective"}),
    "autoregressive, float32": (1, {"objective": "autoregressive"}),
    "masked, float32, 2 ranks": (2, {}),
    "masked, bfloat16, full recomputation, 2 ranks, 2 passes": (
        2,
        {"precision": "bfloat16", "micro_batch_sequences": 2, "recompute": "full"},
    ),
    "balanced, bfloat16, 2 replicas": (2, {"precision": "bfloat16", "objective": "balanced", "replicas": 2}),
    "masked, float32, 2 replicas, 4 passes": (2, {"micro_batch_sequences": 2, "replicas": 2}),
    "balanced, float32, matrices shared by 2": (2, {"objective": "balanced", "tensor": 2}),
}
"""Ranks, and what is special."""
QUICK = ("balanced, float32, full recomputation, 2 passes", "masked, bfloat16", "masked, float32, 2 ranks")


def case_spec(device_type: str, special: dict[str, Any]) -> RunSpec:
    """The run of a case."""
    objective = special.get("objective", "masked")
    is_diffusion = objective != "autoregressive"
    return RunSpec.model_validate(
        {
            "data": {"path": "none", "sequence_length": LENGTHS[device_type]},
            "model": SHAPES[device_type],
            "objective": {"kind": "diffusion", "noise": objective} if is_diffusion else {"kind": objective},
            "batch_sequences": 16,
            "schedule": {"num_steps": 2},
            "precision": special.get("precision", "float32"),
            "runtime": {
                "device": device_type,
                "micro_batch_sequences": special.get("micro_batch_sequences"),
                "parallel": {key: special[key] for key in ("recompute", "replicas", "tensor") if key in special},
            },
        }
    )


def take_two_steps(spec: RunSpec, vocab_size: int, device: torch.device) -> None:
    """As training does, with weights of zero."""
    precision, objective = Precision(spec.precision), placeless_objective(spec, vocab_size)
    with joined_ranks(spec) as ranks:
        with torch.device("meta"):
            model = Transformer(spec.model, vocab_size)
        parallelise(model, ranks.mesh, spec.runtime, precision.dtype)
        model.to_empty(device=device)
        for parameter in model.parameters():
            parameter.detach().zero_()
        optimizer = build_optimizer(model, spec.optimizer, spec.model)
        batch = fullest_batch(objective, spec.batch_sequences, spec.data.sequence_length)
        head = HeadSettings.of(spec.runtime, vocab_size, precision, device)
        rows = passed_sequences(spec, ranks.size)
        for _ in range(2):
            accumulate_gradients(model, objective, batch, precision, micro_batch_sequences=rows, head=head, ranks=ranks)
            clip_gradients(model, spec.optimizer.clip_norm, ranks)
            optimizer.step()
            optimizer.zero_grad()


def peak_bytes(spec: RunSpec, vocab_size: int, device: torch.device) -> float:
    """Of two real steps in this process."""
    if device.type == "cpu":
        return peak_megabytes(partial(take_two_steps, spec, vocab_size, device)) * 2**20
    torch.cuda.reset_peak_memory_stats(device)
    take_two_steps(spec, vocab_size, device)
    return torch.cuda.max_memory_allocated(device)


def one_rank(rank: int, size: int, store: str, run: tuple[RunSpec, int], answers: "Queue[float]") -> None:
    """A process that shares `run`, spec and size of the vocabulary; the first one answers with its peak."""
    spec, vocab_size = run
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    device = torch.device("cpu")
    backend = "gloo"
    if spec.runtime.device == "cuda":
        device, backend = torch.device("cuda", rank), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    meeting = f"file://{store}"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
    peak = peak_bytes(spec, vocab_size, device)
    if rank == 0:
        answers.put(peak)
    dist.destroy_process_group()


def measured_bytes(spec: RunSpec, vocab_size: int, num_ranks: int) -> float:
    """Peak of the first of so many real processes; of this one where it is alone."""
    if num_ranks == 1:
        return peak_bytes(spec, vocab_size, torch.device(spec.runtime.device))
    context = get_context("spawn")
    answers: Queue[float] = context.Queue()
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "store")
        processes = [
            context.Process(target=one_rank, args=(rank, num_ranks, store, (spec, vocab_size), answers))
            for rank in range(num_ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"a process of {num_ranks} failed; its error stands above")
        return answers.get()


def main(words: Sequence[str] | None = None) -> int:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--quick", action="store_true", help="three cases only")
    arguments = options.parse_args(words)
    torch.set_num_threads(1)
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device_type == "cuda" else cpu_name()
    claims, vocab_size = [], VOCAB_SIZES[device_type]
    print(f"{name}, torch {torch.__version__}, {SHAPES[device_type]}, vocabulary {vocab_size}\n")
    print("| case | forecast, MB | measured, MB | error |\n|---|---|---|---|")
    for what in QUICK if arguments.quick else CASES:
        num_ranks, special = CASES[what]
        if device_type == "cuda" and num_ranks > torch.cuda.device_count():
            print(f"| {what} | | | needs {num_ranks} GPUs |")
            continue
        spec = case_spec(device_type, special)
        forecast = step_cost(PlannedStep(spec, vocab_size, num_ranks, device_type)).peak_bytes
        measured = measured_bytes(spec, vocab_size, num_ranks)
        error = forecast / measured - 1
        print(f"| {what} | {forecast / 1e6:.2f} | {measured / 1e6:.2f} | {error:+.2%} |", flush=True)
        claims.append(Claim(f"error of the memory forecast: {what}", abs(error), MAX_ERROR[spec.precision]))
    write_claims(claims, arguments.claims)
    return 0


if __name__ == "__main__":
    sys.exit(main())
