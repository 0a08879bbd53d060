"""Training steps on one GPU: tokens/s, utilisation, peak memory and the head's share, for the shapes of the paper.

Shapes are the five sizes of the paper's grid, its 3B model, and its 10B model's width with fewer layers; sequences of
2048 tokens, vocabulary 131072, bfloat16, blocks compiled. Utilisation is the step's FLOPs (blocks, and the head for
the tokens that carry loss; nothing for what is computed again) over its time, beside the data sheet's dense bfloat16
rate and beside the rate of large products measured in the same call. The head alone is timed on the same number of
tokens, beside its three bare products.

    python benchmarks/gpu.py                                  # all shapes, balanced noise
    python benchmarks/gpu.py --shapes 3b --noises masked balanced uniform autoregressive
    python benchmarks/gpu.py --device cpu --shapes smoke      # whether it runs at all
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Claim, parser, write_claims
from randomdata import make_training
from torch import Tensor

from noiselaw.accounting import flops_per_token, head_flops_per_token
from noiselaw.data.order import step_generator
from noiselaw.head import vocabulary_loss
from noiselaw.specs import Recompute
from noiselaw.train.machine import matmul_flops_per_second
from noiselaw.train.step import Training, head_targets, train_step

DENSE_BFLOAT16 = 989e12
"""FLOPs per second of an H100 or H200, by its data sheet."""
WARM_UP, STEPS = 4, 8


@dataclass(frozen=True)
class Case:
    """One model and how it is run."""

    layers: int
    width: int
    heads: int
    batch: int
    """Sequences of a step."""
    micro_batch: int
    recompute: Recompute = "none"
    length: int = 2048
    vocab_size: int = 131072
    least_utilisation: float | None = None


CASES = {
    "25m": Case(8, 512, 8, 32, 32, least_utilisation=0.45),
    "50m": Case(10, 640, 10, 32, 32),
    "85m": Case(12, 768, 12, 32, 32),
    "201m": Case(16, 1024, 16, 32, 16, least_utilisation=0.50),
    "567m": Case(20, 1536, 12, 32, 8, least_utilisation=0.50),
    "3b": Case(18, 3072, 24, 16, 8, recompute="full", least_utilisation=0.50),
    "10b, 8 of 34 layers": Case(8, 4608, 36, 16, 8, recompute="full"),
    "smoke": Case(2, 64, 1, 2, 1, recompute="full", length=64, vocab_size=512),
}
GPU_CASES = [name for name in CASES if name != "smoke"]
MOST_OF_PRODUCTS = 1.3
"""Target: the head's time in units of its three bare products."""


def seconds_of(job: Callable[[], object], times: int, device: torch.device) -> float:
    """Mean seconds of a job, the device waited for at both ends."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(times):
        job()
    _wait(device)
    return (time.perf_counter() - started) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Found:
    """What one case gave."""

    tokens_per_second: float
    flops_per_second: float
    peak_gigabytes: float
    """0 on a CPU."""
    head_share: float
    """Of the step's time."""
    head_ratio: float
    """Time of the head over that of its three bare products."""


def measure(case: Case, objective: str, device: torch.device) -> Found:
    training = make_training(
        layers=case.layers,
        width=case.width,
        heads=case.heads,
        length=case.length,
        batch=case.batch,
        vocab_size=case.vocab_size,
        objective=objective,
        precision="bfloat16",
        device=device.type,
        compile=device.type == "cuda",
        micro_batch_sequences=case.micro_batch,
        parallel={"recompute": case.recompute},
    )
    step = 0
    live = []

    def one() -> None:
        nonlocal step
        record = train_step(training, step)
        step = record.step
        live.append(record.num_live_tokens)

    for _ in range(WARM_UP):
        one()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    live.clear()
    seconds = seconds_of(one, STEPS, device)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    shape = training.spec.model.shape(case.vocab_size)
    num_tokens, num_live = case.batch * case.length, sum(live) / len(live)
    flops = num_tokens * flops_per_token(shape, case.length) + num_live * head_flops_per_token(shape)
    head, products = head_seconds(training, case)
    parts = case.batch / case.micro_batch
    return Found(num_tokens / seconds, flops / seconds, peak, parts * head / seconds, head / products)


def head_seconds(training: Training, case: Case) -> tuple[float, float]:
    """The head with its loss, forward and backward, on one micro-batch; and the three products of its live tokens."""
    device = training.device
    tokens = training.loader.batch(0)[: case.micro_batch]
    batch = training.objective.training_batch(tokens, step_generator(0, 0, "noise"))
    targets = head_targets(training.objective, batch.to(device))
    index = targets.live_tokens()
    targets = targets.at(index)
    weight = training.model.lm_head.weight
    hidden = torch.randn(len(index), case.width, device=device, dtype=torch.bfloat16, requires_grad=True)
    low = weight.detach().to(torch.bfloat16)
    multiplier, settings = training.model.head_multiplier, training.head

    def head() -> None:
        loss = vocabulary_loss(hidden, weight, multiplier, targets, settings.chunk_tokens, kernel=settings.kernel).loss
        torch.autograd.grad(loss, (hidden, weight))

    def products() -> None:
        with torch.no_grad():
            for chunk in hidden.split(settings.chunk_tokens):
                three_products(chunk, low)

    for job in (head, products):
        seconds_of(job, 2, device)
    return seconds_of(head, STEPS, device), seconds_of(products, STEPS, device)


def three_products(chunk: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    logits = chunk @ weight.T
    return logits @ weight, logits.T @ chunk


def options() -> argparse.Namespace:
    found = parser(__doc__ or "", threads=False)
    found.add_argument("--device", default="cuda")
    found.add_argument("--shapes", nargs="+", choices=list(CASES), default=GPU_CASES)
    found.add_argument("--noises", nargs="+", default=["balanced"], help="noises, or autoregressive")
    return found.parse_args()


def main() -> None:
    arguments = options()
    device = torch.device(arguments.device)
    rate = matmul_flops_per_second(device, torch.bfloat16)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}; large bfloat16 products: {rate / 1e12:.1f} TFLOP/s")
    columns = ("tokens/s", "of data sheet", "of measured", "peak GB", "head share", "head/products")
    print(f"{'':40s}" + "".join(f"{column:>15s}" for column in columns))
    claims = []
    for shape in arguments.shapes:
        for noise in arguments.noises:
            case, label = CASES[shape], f"{shape}, {noise}"
            try:
                found = measure(case, noise, device)
            except torch.cuda.OutOfMemoryError as error:
                print(f"{label:40s}  out of memory: {str(error).splitlines()[0]}")
                what = f"{label}: utilisation (out of memory)"
                claims.append(Claim(what, 0.0, case.least_utilisation, at_most=False))
                continue
            finally:
                torch.compiler.reset()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            utilisation = found.flops_per_second / DENSE_BFLOAT16
            print(
                f"{label:40s}{found.tokens_per_second:15,.0f}{utilisation:15.1%}{found.flops_per_second / rate:15.1%}"
                f"{found.peak_gigabytes:15.1f}{found.head_share:15.1%}{found.head_ratio:15.2f}",
                flush=True,
            )
            claims.append(Claim(f"{label}: utilisation", utilisation, case.least_utilisation, at_most=False))
            claims.append(Claim(f"{label}: head / bare products", found.head_ratio, MOST_OF_PRODUCTS))
    write_claims(claims, arguments.claims)


if __name__ == "__main__":
    main()
