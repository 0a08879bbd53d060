"""Cases for the tests of the head: every noise, every kind of token, and how far two answers are apart."""

import math
from dataclasses import dataclass, replace

import torch
from own_noise import BoundedMixing
from torch import Tensor

from noiselaw.head.targets import HeadLoss, TokenTargets
from noiselaw.noise.mixing import HybridMixing, Mixing

MASK_ID = 3
LOG_SNRS = (-9.0, -5.0, -1.0, 0.0, 2.0, 6.0, 9.0)
FIELDS = ("loss", "kl", "itakura_saito", "integrand")


def unigram_reference(vocab_size: int) -> Tensor:
    """Token frequencies that span six decades."""
    rank = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(5))
    reference = torch.logspace(0, -6, vocab_size, dtype=torch.float64)[rank]
    reference[MASK_ID] = 0.0
    return reference / reference.sum()


def mixing_named(name: str, vocab_size: int) -> Mixing | None:
    """The noise `name` over `vocab_size` tokens; None for the autoregressive model."""
    if name == "own":
        return BoundedMixing(vocab_size, MASK_ID, limit=2.0)
    parameters = {
        "masked": {"shift": -math.inf},
        "low": {"shift": -2.0},
        "balanced": {"shift": 0.0},
        "high": {"shift": 2.0},
        "uniform": {"shift": math.inf},
        "half_scale": {"shift": 1.0, "scale": 0.5},
        "negative_scale": {"shift": 0.5, "scale": -1.0},
        "unigram": {"shift": 0.0, "reference": unigram_reference(vocab_size)},
        "uniform_unigram": {"shift": math.inf, "reference": unigram_reference(vocab_size)},
    }
    return None if name == "autoregressive" else HybridMixing(vocab_size, MASK_ID, **parameters[name])


NOISES = (
    "masked",
    "low",
    "balanced",
    "high",
    "uniform",
    "half_scale",
    "negative_scale",
    "unigram",
    "uniform_unigram",
    "own",
    "autoregressive",
)
SWAPPING = tuple(name for name in NOISES if name not in ("masked", "autoregressive"))


@dataclass(frozen=True)
class HeadCase:
    hidden: Tensor
    weight: Tensor
    multiplier: float
    targets: TokenTargets

    def to(self, dtype: torch.dtype) -> "HeadCase":
        """The same numbers in another dtype, as fresh leaves that want gradients."""
        hidden = self.hidden.detach().to(dtype, copy=True).requires_grad_()
        weight = self.weight.detach().to(dtype, copy=True).requires_grad_()
        return replace(self, hidden=hidden, weight=weight)


def make_targets(noise: str, vocab_size: int, log_snr: Tensor) -> TokenTargets:
    """Tokens at noise levels [N]: masked, kept and swapped in turn where the noise can; every fifth weighs nothing."""
    generator = torch.Generator().manual_seed(11)
    mixing, num = mixing_named(noise, vocab_size), len(log_snr)
    others = torch.randperm(vocab_size - 1, generator=generator)
    others = others + (others >= MASK_ID)
    clean, swapped = others[torch.arange(num) % len(others)], others[torch.arange(1, num + 1) % len(others)]
    kinds = [clean]
    if mixing is not None and not mixing.is_uniform:
        kinds.append(torch.full_like(clean, MASK_ID))
    if mixing is not None and not mixing.is_masked:
        kinds.append(swapped)
    noisy = torch.stack(kinds)[torch.arange(num) % len(kinds), torch.arange(num)]
    weight = 0.5 + torch.rand(num, generator=generator)
    weight[4::5] = 0.0
    return TokenTargets(clean, noisy, log_snr, weight, mixing, MASK_ID)


def product_case(noise: str, log_snr: Tensor, *, vocab_size: int = 64, width: int = 16, std: float = 3.0) -> HeadCase:
    """Random hidden states and head whose logits have about the given standard deviation; exact in float32."""
    generator = torch.Generator().manual_seed(23)
    hidden = torch.randn(len(log_snr), width, generator=generator).double()
    weight = (torch.randn(vocab_size, width, generator=generator) * std / width**0.5).double()
    return HeadCase(hidden, weight, 0.75, make_targets(noise, vocab_size, log_snr))


def logits_case(noise: str, log_snr: Tensor, *, vocab_size: int = 64, std: float = 3.0) -> HeadCase:
    """A head that is the identity: hidden states are the logits, exactly in every dtype that holds them."""
    generator = torch.Generator().manual_seed(29)
    logits = (torch.randn(len(log_snr), vocab_size, generator=generator) * std).double()
    return HeadCase(logits, torch.eye(vocab_size).double(), 1.0, make_targets(noise, vocab_size, log_snr))


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest elementwise relative error, where elements below 1e-3 of the largest count as that large."""
    want, got = want.detach().double(), got.detach().double()
    scale = want.abs().max()
    if scale == 0:
        return float(got.abs().max())
    return float(((got - want).abs() / (want.abs() + 1e-3 * scale)).max())


def norm_error(got: Tensor, want: Tensor) -> float:
    """Norm of the difference over the norm."""
    want, got = want.detach().double(), got.detach().double()
    return float((got - want).norm() / want.norm()) if want.norm() > 0 else float(got.norm())


def largest_value_error(got: HeadLoss, want: HeadLoss) -> float:
    return max(relative_error(getattr(got, name), getattr(want, name)) for name in FIELDS)
