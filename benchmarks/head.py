"""What the vocabulary head costs beside its own matrix products.

Interleaved in one process: the three bare products (logits, gradient by the hidden states, gradient by the head), the
full-logit loss under autograd, and the chunked loss; for each the best of several rounds, forward and backward. Prints
seconds, the ratio to the bare products and the peak of extra memory, with the machine named.

    python benchmarks/head.py --vocab-size 131072 --width 512 --tokens 2048 --full balanced
"""

import argparse
import math

import torch
from harness import Claim, Job, best_seconds, fastest_products, machine, parser, peak_megabytes, write_claims
from torch import Tensor

from noiselaw.head import TokenTargets, reference_loss, vocabulary_loss
from noiselaw.head.chunked import default_chunk_tokens
from noiselaw.noise import HybridMixing, NoiseProcess, sample_log_snr
from noiselaw.train.machine import slow_bfloat16

MASK_ID = 0


def mixings(vocab_size: int) -> dict[str, HybridMixing | None]:
    reference = torch.arange(vocab_size, dtype=torch.float64)
    reference[1:] = 1 / reference[1:]
    return {
        "autoregressive": None,
        "masked": HybridMixing(vocab_size, MASK_ID, -math.inf),
        "balanced": HybridMixing(vocab_size, MASK_ID, 0.0),
        "balanced, unigram": HybridMixing(vocab_size, MASK_ID, 0.0, 1.0, reference / reference.sum()),
        "uniform": HybridMixing(vocab_size, MASK_ID, math.inf),
    }


def make_targets(mixing: HybridMixing | None, vocab_size: int, num_tokens: int) -> TokenTargets:
    """Random tokens, corrupted at the noise levels of training: half of them are masked under masked noise."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(1, vocab_size, (num_tokens,), generator=generator)
    log_snr = sample_log_snr(num_tokens, -9.0, 9.0, generator=generator)
    noisy = clean if mixing is None else NoiseProcess(mixing).corrupt(clean, log_snr, generator)
    return TokenTargets(clean, noisy, log_snr, torch.ones(num_tokens), mixing, MASK_ID)


def jobs(arguments: argparse.Namespace) -> dict[str, Job]:
    """Everything that is timed, by name."""
    vocab_size, width, num_tokens = arguments.vocab_size, arguments.width, arguments.tokens
    dtype = getattr(torch, arguments.dtype)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(num_tokens, width, generator=generator).to(dtype).requires_grad_()
    weight = (0.1 * torch.randn(vocab_size, width, generator=generator)).to(dtype).requires_grad_()

    def products() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = hidden @ weight.T
            return logits @ weight, logits.T @ hidden

    def full(targets: TokenTargets) -> tuple[Tensor, ...]:
        return torch.autograd.grad(reference_loss(hidden, weight, 1.0, targets).loss, (hidden, weight))

    def chunked(targets: TokenTargets) -> tuple[Tensor, ...]:
        result = vocabulary_loss(hidden, weight, 1.0, targets, arguments.chunk_tokens)
        return torch.autograd.grad(result.loss, (hidden, weight))

    timed: dict[str, Job] = {"three bare products": products}
    for name, mixing in mixings(vocab_size).items():
        targets = make_targets(mixing, vocab_size, num_tokens)
        if name in arguments.full:
            timed[f"{name}: full logits"] = lambda targets=targets: full(targets)
        timed[f"{name}: chunked"] = lambda targets=targets: chunked(targets)
    return timed


MOST_OF_PRODUCTS = {"float32": 1.2, "bfloat16": 1.5}
"""Targets: time in units of the three bare products."""
LEAST_MEMORY_RATIO = 20.0


def claims_of(seconds: dict[str, float], megabytes: dict[str, float], dtype: str) -> list[Claim]:
    """Time beside the products where every token has loss, and memory beside full logits."""
    floor = seconds["three bare products"]
    every_token = [name for name in seconds if name.endswith("chunked") and not name.startswith("masked")]
    claims = [
        Claim(
            f"head, {dtype}, {name.removesuffix(': chunked')}: x bare products",
            seconds[name] / floor,
            MOST_OF_PRODUCTS[dtype],
        )
        for name in every_token
    ]
    claims.append(Claim(f"head, {dtype}, masked: x bare products", seconds["masked: chunked"] / floor))
    for name, full in megabytes.items():
        if name.endswith("full logits"):
            noise = name.removesuffix(": full logits")
            ratio = full / megabytes[f"{noise}: chunked"]
            what = f"head, {dtype}, {noise}: memory of full logits / ours"
            claims.append(Claim(what, ratio, LEAST_MEMORY_RATIO, at_most=False))
    return claims


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--vocab-size", type=int, default=131072)
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--tokens", type=int, default=2048)
    options.add_argument("--chunk-tokens", type=int, help="by default what training takes")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--dtype", choices=list(MOST_OF_PRODUCTS), default="float32")
    options.add_argument("--full", nargs="*", default=[], help="noises whose full-logit loss is timed too")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    doubt = slow_bfloat16(torch.device("cpu"))
    if arguments.dtype == "bfloat16" and doubt is not None:
        print(f"{machine()}\nnot timed: {doubt}")
        write_claims([], arguments.claims)
        return
    dtype = getattr(torch, arguments.dtype)
    arguments.chunk_tokens = arguments.chunk_tokens or default_chunk_tokens(
        arguments.vocab_size, dtype, torch.device("cpu")
    )
    timed = jobs(arguments)
    with fastest_products() as library:
        best = best_seconds(timed, arguments.rounds)
        megabytes = {name: peak_megabytes(job) for name, job in timed.items()}
    floor = best["three bare products"]
    print(f"{machine()}, {arguments.dtype}, float32 products by {library}")
    print(
        f"V {arguments.vocab_size}, d {arguments.width}, N {arguments.tokens}, chunks of {arguments.chunk_tokens}, "
        f"best of {arguments.rounds}"
    )
    print(f"{'':36s}{'ms':>10s}{'ratio':>8s}{'peak MB':>10s}")
    for name, seconds in best.items():
        print(f"{name:36s}{1e3 * seconds:10.2f}{seconds / floor:8.2f}{megabytes[name]:10.1f}")
    write_claims(claims_of(best, megabytes, arguments.dtype), arguments.claims)


if __name__ == "__main__":
    main()
