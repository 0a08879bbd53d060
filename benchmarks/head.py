"""What the vocabulary head costs beside its own matrix products.

Interleaved in one process: the three bare products (logits, gradient by the hidden states, gradient by the head), the
full-logit loss under autograd, and the chunked loss; for each the best of several rounds, forward and backward. Prints
milliseconds, the ratio to the bare products and the peak of extra memory, with the machine named.

    python benchmarks/head.py --vocab-size 8192 --width 256 --tokens 4096 --threads 2
"""

import argparse
import math

import torch
from harness import Job, best_seconds, machine, peak_megabytes
from torch import Tensor

from noiselaw.head import TokenTargets, reference_loss, vocabulary_loss
from noiselaw.noise import HybridMixing, NoiseProcess, sample_log_snr

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
        if not arguments.skip_full:
            timed[f"{name}: full logits"] = lambda targets=targets: full(targets)
        timed[f"{name}: chunked"] = lambda targets=targets: chunked(targets)
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--skip-full", action="store_true", help="leave out full logits, for shapes that do not fit")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    timed = jobs(arguments)
    best = best_seconds(timed, arguments.rounds)
    floor = best["three bare products"]
    print(f"{machine()}, {arguments.dtype}")
    print(
        f"V {arguments.vocab_size}, d {arguments.width}, N {arguments.tokens}, chunks of {arguments.chunk_tokens}, "
        f"best of {arguments.rounds}"
    )
    print(f"{'':36s}{'ms':>10s}{'ratio':>8s}{'peak MB':>10s}")
    for name, seconds in best.items():
        print(f"{name:36s}{1e3 * seconds:10.2f}{seconds / floor:8.2f}{peak_megabytes(timed[name]):10.1f}")


if __name__ == "__main__":
    main()
