"""What sampling costs: whole texts against the plain full-sequence sampler, and one step at a large vocabulary.

Table 1, same weights, same random numbers, same texts: the plain sampler runs the whole sequence through model and
head at every call and keeps nothing; against it the samplers of this package. The texts are compared, so a fast path
that changes one would be seen. Table 2: head and draw of one step by the published formulas ([V] posterior, full
logits) and by the mixture. Interleaved in one process, best of several rounds.

    python benchmarks/sampling.py --threads 2
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

import torch
from harness import Claim, best_seconds, fastest_products, machine, parser, peak_megabytes, write_claims
from torch import Tensor

from noiselaw.model.attention import Attention
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.noise import HybridMixing, NoiseProcess
from noiselaw.sampling import (
    GREEDY,
    NO_FILTERS,
    Canvas,
    Denoiser,
    LogitsDenoiser,
    TransformerDenoiser,
    adaptive,
    ancestral,
    autoregressive,
    blockwise,
    cosine_grid,
    linear_grid,
)
from noiselaw.sampling.adaptive import improvability
from noiselaw.sampling.filters import draw
from noiselaw.sampling.predictions import Predictions
from noiselaw.specs import InitSpec, ModelSpec

MASK_ID = 3
LEAST_STEP_RATIO = {"ancestral": 13.8, "adaptive": 4.1}
"""Targets: what a prototype of the mixture reached beside the published formulas (1219 / 88 and 354 / 86 ms)."""
NOISES = {"masked": -math.inf, "balanced": 0.0, "uniform": math.inf}


def plain_denoiser(model: Transformer) -> LogitsDenoiser:
    """The whole sequence through model and head at every call, nothing kept: no prediction is used twice."""
    return LogitsDenoiser(lambda ids, attention: model.logits(model(ids, attention)), sees_noise_level=True)


def make_model(arguments: argparse.Namespace) -> Transformer:
    """A random model: costs do not depend on what it knows, but its predictions must not be all alike."""
    spec = ModelSpec(num_layers=arguments.layers, width=arguments.width, num_heads=arguments.width // 64)
    model = Transformer(spec, arguments.vocab_size).eval()
    initialise(model, InitSpec(head_std=0.05), torch.Generator().manual_seed(0))
    return model


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def text_jobs(canvas: Canvas, arguments: argparse.Namespace) -> dict[str, Callable[[Denoiser], Tensor]]:
    """Whole generations by name: denoiser -> texts."""
    jobs: dict[str, Callable[[Denoiser], Tensor]] = {}
    block = arguments.block
    for name, shift in NOISES.items():
        noise = NoiseProcess(HybridMixing(arguments.vocab_size, MASK_ID, shift))
        for steps in arguments.steps:
            jobs[f"{name}, ancestral, {steps} steps"] = lambda denoiser, noise=noise, steps=steps: ancestral(
                denoiser, noise, canvas, cosine_grid(noise, steps), generator=seeded()
            )
        jobs[f"{name}, adaptive, {arguments.steps[0]} steps"] = lambda denoiser, noise=noise: adaptive(
            denoiser, noise, canvas, linear_grid(noise, arguments.steps[0]), generator=seeded()
        )
        jobs[f"{name}, blocks of {block}, {block} steps each"] = lambda denoiser, noise=noise: blockwise(
            denoiser, noise, canvas, cosine_grid(noise, block), block_length=block, generator=seeded()
        )
    return jobs


def published_ancestral(
    logits: Tensor, ids: Tensor, pair: tuple[float, float], shift: float, uniform: Tensor
) -> Tensor:
    """The ancestral draw as published: posterior over V for every position, then its distribution function."""
    t, s = torch.tensor(pair)
    probs = logits.softmax(-1)
    alpha_t, alpha_s = t.sigmoid(), s.sigmoid()
    pi_t, pi_s = (_pi(level, shift, logits.shape[-1]) for level in (t, s))
    arrived = (1 - alpha_t) * pi_t - alpha_t / alpha_s * (1 - alpha_s) * pi_s
    q_t = (alpha_t * probs + (1 - alpha_t) * pi_t).gather(-1, ids[..., None])
    q_s = alpha_s * probs + (1 - alpha_s) * pi_s
    forward = alpha_t / alpha_s * torch.nn.functional.one_hot(ids, logits.shape[-1]).to(probs) + arrived[ids][..., None]
    cumulative = (q_s / q_t * forward).cumsum(-1)
    return (cumulative < uniform[..., None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def published_adaptive(logits: Tensor, ids: Tensor, shift: float) -> Tensor:
    """The adaptive step as published, at temperature 0."""
    probs = logits.softmax(-1)
    prior = _pi(torch.tensor(-9.0), shift, logits.shape[-1])[ids]
    score = (probs.amax(-1) - probs.gather(-1, ids[..., None]).squeeze(-1)) * prior
    return torch.where(score == score.amax(-1, keepdim=True), probs.argmax(-1), ids)


def _pi(log_snr: Tensor, shift: float, vocab_size: int) -> Tensor:
    share = torch.sigmoid(log_snr + max(-1000.0, min(1000.0, shift)))
    pi = (share / (vocab_size - 1)).repeat(vocab_size)
    pi[MASK_ID] = 1 - share
    return pi


class FixedHidden:
    """A denoiser whose hidden states stand still: what remains is head and draw."""

    sees_noise_level = False

    def __init__(self, states: Tensor, weight: Tensor) -> None:
        self.states, self.weight = states, weight

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        del ids, attention, log_snr
        return self.states

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.weight.T

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        raise NotImplementedError

    def select(self, rows: Tensor) -> Denoiser:
        del rows
        return self


def step_jobs(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Head and draw of one step with `live` of `positions` positions to be written, by the formulas' origin."""
    vocab_size, width, live = arguments.step_vocab_size, arguments.step_width, arguments.live
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(1, arguments.positions, width, generator=generator)
    weight = 0.02 * torch.randn(vocab_size, width, generator=generator)
    where = torch.zeros(1, arguments.positions, dtype=torch.bool)
    where[:, :live] = True
    uniform = torch.rand(2, 1, arguments.positions, generator=generator, dtype=torch.float64)
    pair, jobs = (-0.5, 0.5), {}
    denoiser = FixedHidden(states, weight)

    def fresh(ids: Tensor, noise: NoiseProcess) -> Predictions:
        return Predictions(denoiser, Attention.full(), noise.mixing, ids)

    def lean_ancestral(ids: Tensor, noise: NoiseProcess) -> Tensor:
        now, following = torch.tensor(pair, dtype=torch.float64)
        predictions = fresh(ids, noise)
        is_mask = ids == MASK_ID
        present = predictions.statistics(where & ~is_mask, NO_FILTERS).present
        events = noise.posterior_mixture(ids, present, now, following)
        return predictions.draw(where & (uniform[0] < events.clean), NO_FILTERS, uniform[1])

    def lean_adaptive(ids: Tensor, noise: NoiseProcess) -> Tensor:
        predictions = fresh(ids, noise)
        score = improvability(noise, ids, predictions.statistics(where, NO_FILTERS))
        chosen = torch.zeros_like(where).scatter(1, score.topk(1).indices, value=True)
        return predictions.draw(chosen, GREEDY, uniform[1])

    def all_drawn() -> Tensor:
        logits = states[0, :live] @ weight.T
        return draw(logits, uniform[1, 0, :live])

    def bare_product() -> Tensor:
        return states[0, :live] @ weight.T

    def published_logits() -> Tensor:
        logits = states @ weight.T
        logits[..., MASK_ID] = -1e6
        return logits

    jobs["bare product of the live positions"] = bare_product
    for name, shift in NOISES.items():
        noise = NoiseProcess(HybridMixing(vocab_size, MASK_ID, shift))
        clean = torch.randint(4, vocab_size, (1, arguments.positions), generator=generator)
        ids = noise.corrupt(clean, torch.tensor(pair[0]), generator)
        if name == "masked":
            ids[where] = MASK_ID
        jobs[f"{name}, ancestral: published"] = lambda ids=ids, shift=shift: published_ancestral(
            published_logits(), ids, pair, shift, uniform[1].float()
        )
        jobs[f"{name}, ancestral: here"] = lambda ids=ids, noise=noise: lean_ancestral(ids, noise)
        jobs[f"{name}, adaptive: published"] = lambda ids=ids, shift=shift: published_adaptive(
            published_logits(), ids, shift
        )
        jobs[f"{name}, adaptive: here"] = lambda ids=ids, noise=noise: lean_adaptive(ids, noise)
    jobs["every live position drawn"] = all_drawn
    return jobs


def show_texts(arguments: argparse.Namespace) -> list[Claim]:
    """Table 1."""
    model = make_model(arguments)
    plain, fast = plain_denoiser(model), TransformerDenoiser(model)
    canvas = Canvas.from_prompts([list(range(10, 10 + arguments.prompt))] * arguments.batch, arguments.length)
    num_tokens = int(canvas.blank.sum())
    print(
        f"\n{arguments.batch} texts of {arguments.length} tokens behind a prompt of {arguments.prompt}, "
        f"{arguments.layers} layers of {arguments.width}, V {arguments.vocab_size}: tokens/s, "
        f"best of {arguments.rounds}"
    )
    print(f"{'':44s}{'plain':>9s}{'here':>9s}{'ratio':>8s}  same texts")
    claims = []
    for name, job in text_jobs(canvas, arguments).items():
        best = best_seconds({"plain": partial(job, plain), "here": partial(job, fast)}, arguments.rounds)
        same = float((job(plain) == job(fast)).double().mean())
        rates = [num_tokens / best[kind] for kind in ("plain", "here")]
        print(f"{name:44s}{rates[0]:9.0f}{rates[1]:9.0f}{rates[1] / rates[0]:8.2f}  {same:.2%}")
        claims.append(Claim(f"sampling, {name}: x plain", rates[1] / rates[0]))
    cached = best_seconds(
        {"here": lambda: autoregressive(model, canvas, start_id=0, mask_id=MASK_ID, generator=seeded())},
        arguments.rounds,
    )
    print(f"{'autoregressive, keys and values kept':44s}{'':9s}{num_tokens / cached['here']:9.0f}")
    return claims


def show_steps(arguments: argparse.Namespace) -> list[Claim]:
    """Table 2."""
    jobs = step_jobs(arguments)
    best = best_seconds(jobs, arguments.rounds)
    print(
        f"\none step, head and draw: V {arguments.step_vocab_size}, width {arguments.step_width}, "
        f"{arguments.live} live of {arguments.positions} positions, best of {arguments.rounds}"
    )
    print(f"{'':44s}{'ms':>9s}{'peak MB':>9s}")
    for name, seconds in best.items():
        print(f"{name:44s}{1e3 * seconds:9.1f}{peak_megabytes(jobs[name]):9.0f}")
    return [
        Claim(
            f"one step, {noise}, {sampler}: x published formulas",
            best[f"{noise}, {sampler}: published"] / best[f"{noise}, {sampler}: here"],
            target if noise == "balanced" else None,
            at_most=False,
        )
        for noise in NOISES
        for sampler, target in LEAST_STEP_RATIO.items()
    ]


@torch.no_grad()
def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--vocab-size", type=int, default=8192)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--length", type=int, default=256)
    options.add_argument("--prompt", type=int, default=64)
    options.add_argument("--steps", type=int, nargs="+", default=[64, 256])
    options.add_argument("--block", type=int, default=32)
    options.add_argument("--step-vocab-size", type=int, default=131072)
    options.add_argument("--step-width", type=int, default=512)
    options.add_argument("--positions", type=int, default=512)
    options.add_argument("--live", type=int, default=128)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    with fastest_products() as library:
        print(f"{machine()}, float32 products by {library}")
        claims = [*show_texts(arguments), *show_steps(arguments)]
    write_claims(claims, arguments.claims)


if __name__ == "__main__":
    main()
