"""A whole training step on a CPU: this project's against the published computation, and against bare matrix products.

"published" is the published computation of this very loss, written anew: corruption by drawing from the [V] marginal of
every token, all logits, divergences over the vocabulary by their definitions, autograd through all of it, torch's own
matrix products. It runs on this project's transformer and optimiser, so what those save is not counted.
"products" are the step's matrix products alone, of the same shapes, forward and backward, by the faster library: the
floor of any implementation. All variants run interleaved in one process.

    python benchmarks/step.py --noise balanced
"""

import argparse
import copy
import time
from dataclasses import replace

import torch
from harness import Claim, Job, best_seconds, machine, parser, peak_megabytes, write_claims
from randomdata import make_training
from torch import Tensor

from noiselaw.accounting import flops_per_token, head_flops_per_token
from noiselaw.data.order import step_generator
from noiselaw.head import reference_loss
from noiselaw.model.attention import Attention
from noiselaw.train.machine import choose_float32_products, float32_products, slow_bfloat16
from noiselaw.train.objective import DiffusionObjective, NoisyBatch
from noiselaw.train.step import Training, head_targets, train_step

WARM_UP = 4
"""Steps before any is timed: batches with and without prompts are compiled apart."""


def training_of(arguments: argparse.Namespace, precision: str, *, compiled: bool) -> Training:
    """A training of the benchmark's shape."""
    return make_training(
        layers=arguments.layers,
        width=arguments.width,
        heads=arguments.width // 64,
        length=arguments.length,
        batch=arguments.batch,
        vocab_size=arguments.vocab_size,
        objective=arguments.noise,
        precision=precision,
        compile=compiled,
    )


def step_job(training: Training, library: str) -> Job:
    """One step after another, with float32 products by `library`."""
    step = 0

    def job() -> None:
        nonlocal step
        with float32_products(library):
            step = train_step(training, step).step

    return job


def published_job(training: Training, *, compiled: bool) -> Job:
    """The published computation of the same loss, step after step."""
    model, objective = training.model, training.objective
    assert isinstance(objective, DiffusionObjective)

    def loss_of(batch: NoisyBatch, attention: Attention) -> Tensor:
        hidden = model(batch.inputs, attention).flatten(0, 1)
        return reference_loss(hidden, model.lm_head.weight, model.head_multiplier, head_targets(objective, batch)).loss

    forward = torch.compile(loss_of) if compiled else loss_of

    def job() -> None:
        tokens = training.loader.batch(0)
        batch = objective.training_batch(tokens, step_generator(0, 0, "noise"))
        marginal = objective.process.marginal(tokens, batch.log_snr)
        noisy = torch.multinomial(marginal.flatten(0, 1), 1).view_as(tokens)
        # Where the [V]-wide draw gives the same token that ours would, the rest of the step is the same work.
        batch = replace(batch, inputs=torch.where(batch.weight > 0, noisy, batch.inputs))
        (forward(batch, batch.attention()) / tokens.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        training.optimizer.step()
        training.optimizer.zero_grad()

    return job


def products_job(arguments: argparse.Namespace, dtype: torch.dtype, library: str) -> Job:
    """All matrix products of a step, forward and both backward: blocks, attention, and the head for live tokens."""
    width, num_tokens, heads = arguments.width, arguments.batch * arguments.length, arguments.width // 64
    live = training_of(arguments, "float32", compiled=False)
    batch = live.objective.training_batch(live.loader.batch(0), step_generator(0, 0, "noise"))
    num_live = int(batch.weight.count_nonzero())
    linear = [(num_tokens, width, width)] * 4 + [(num_tokens, width, 4 * width), (num_tokens, 4 * width, width)]
    pairs = [(torch.randn(n, k).to(dtype), torch.randn(m, k).to(dtype)) for n, k, m in linear]
    head = torch.randn(num_live, width).to(dtype), torch.randn(arguments.vocab_size, width).to(dtype)
    query = torch.randn(arguments.batch * heads, arguments.length, 64).to(dtype)

    def both_ways(x: Tensor, weight: Tensor) -> None:
        out = x @ weight.mT
        out @ weight
        out.mT @ x

    def job() -> None:
        with torch.no_grad(), float32_products(library):
            for _ in range(arguments.layers):
                for x, weight in pairs:
                    both_ways(x, weight)
                both_ways(query, query)
                both_ways(query, query)
            chunk = 1024
            for start in range(0, num_live, chunk):
                both_ways(head[0][start : start + chunk], head[1])

    return job


def claims_of(best: dict[str, float]) -> list[Claim]:
    """Speed beside the published computation, and the share of a step that its bare products would take."""
    eager, compiled = best["published, eager float32"], best.get("published, compiled float32")
    claims = [
        Claim(f"step, {precision}: x published eager", eager / best[precision], least, at_most=False)
        for precision, least in (("float32", 2.5), ("bfloat16", 3.5))
        if precision in best
    ]
    for name in ("float32", "bfloat16", "bfloat16, compiled blocks"):
        if name in best:
            share = best[f"products alone, {name.partition(',')[0]}"] / best[name]
            claims.append(Claim(f"step, {name}: bare products / step", share, 0.6, at_most=False))
    if compiled is not None:
        claims += [
            Claim(f"step, {name}: x published compiled", compiled / best[name], 2.0, at_most=False)
            for name in ("float32", "float32, compiled blocks")
        ]
    return claims


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--noise", default="balanced")
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--width", type=int, default=256)
    options.add_argument("--vocab-size", type=int, default=8192)
    options.add_argument("--length", type=int, default=256)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--skip-compile", action="store_true", help="leave out the compiled steps")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)

    plain = training_of(arguments, "float32", compiled=False)
    library = choose_float32_products("auto", torch.device("cpu"))
    doubt = slow_bfloat16(torch.device("cpu"))
    precisions = ("float32", "bfloat16") if doubt is None else ("float32",)
    if doubt is not None:
        print(f"bfloat16 is not timed: {doubt}", flush=True)
    jobs: dict[str, Job] = {
        "published, eager float32": published_job(copy.deepcopy(plain), compiled=False),
        "float32, torch's products": step_job(copy.deepcopy(plain), "torch"),
    }
    for name in precisions:
        jobs[name] = step_job(training_of(arguments, name, compiled=False), library)
    if not arguments.skip_compile:
        jobs["published, compiled float32"] = published_job(plain, compiled=True)
        for name in precisions:
            jobs[f"{name}, compiled blocks"] = step_job(training_of(arguments, name, compiled=True), library)
    for name in precisions:
        jobs[f"products alone, {name}"] = products_job(arguments, getattr(torch, name), library)
    for name, job in jobs.items():
        started = time.perf_counter()
        for _ in range(WARM_UP):
            job()
        if "compiled" in name:
            print(f"first {WARM_UP} steps, {name}: {time.perf_counter() - started:.1f} s", flush=True)
    best = best_seconds(jobs, arguments.rounds)
    num_tokens = arguments.batch * arguments.length
    baseline = best["published, eager float32"]
    shape = plain.spec.model.shape(arguments.vocab_size)
    gflop = num_tokens * (flops_per_token(shape, arguments.length) + head_flops_per_token(shape)) / 1e9
    print(f"{machine()}, float32 products by {library}")
    print(
        f"{arguments.noise} noise, {arguments.layers} layers x {arguments.width}, V {arguments.vocab_size}, "
        f"{arguments.batch} x {arguments.length} tokens, AdamW, best of {arguments.rounds}; "
        f"{gflop:.0f} GFLOP a step with the head on every token"
    )
    print(f"{'':28s}{'ms':>9s}{'tokens/s':>10s}{'x published':>13s}{'products/step':>15s}{'peak MB':>9s}")
    for name, seconds in best.items():
        floor = best["products alone, bfloat16" if name.startswith("bfloat16") else "products alone, float32"]
        print(
            f"{name:28s}{1e3 * seconds:9.1f}{num_tokens / seconds:10,.0f}{baseline / seconds:13.2f}"
            f"{floor / seconds:15.2f}{peak_megabytes(jobs[name]):9.0f}"
        )
    write_claims(claims_of(best), arguments.claims)


if __name__ == "__main__":
    main()
