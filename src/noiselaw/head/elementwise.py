"""The two passes over a chunk's logits as PyTorch operators: on any device, and what faster kernels must equal.

Shapes: C tokens of one chunk, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.head.closedform import LogitGradient, SwapSums, TokenLevels, VocabularySums
from noiselaw.head.rarity import MIN_EXPONENT, Rarity
from noiselaw.head.targets import TokenTargets, statistics_dtype
from noiselaw.noise.mixing import Mixing


@dataclass(frozen=True, slots=True, eq=False)
class _Scales:
    """What turns the memory of one chunk into probabilities and gaps: float64 [C]."""

    probs: Tensor
    """s_k over the exponentials."""
    gaps: Tensor | None
    """s_k (G - g_k) over the ratios; None without swaps."""


class TorchPasses:
    """Sums, then gradient, of one chunk at a time; between the two the chunk's memory holds their common parts."""

    def __init__(self, mixing: Mixing | None, logits: Tensor) -> None:
        """For chunks like `logits` [C, V] or shorter; takes the memory they need beside it."""
        dtype = statistics_dtype(logits)
        # e^(logit - highest logit); the same memory as the logits where their dtypes agree.
        self._exps = None if logits.dtype == dtype else torch.empty_like(logits, dtype=dtype)
        swaps = mixing is not None and not mixing.is_masked
        # Scratch for t and the gaps.
        self._ratios = torch.empty_like(logits, dtype=dtype) if swaps else None
        self._rarity = Rarity.of(mixing, logits.device, dtype)
        # r, which is the exponential where the reference is uniform.
        is_uniform = self._rarity.rarity is None
        self._relative = None if is_uniform or not swaps else torch.empty_like(logits, dtype=dtype)
        self._scales: _Scales | None = None

    def sums(self, logits: Tensor, targets: TokenTargets, levels: TokenLevels) -> VocabularySums:
        """The four sums of each token of `logits` [C, V], which it consumes."""
        logits[:, targets.mask_id] = -math.inf
        highest = logits.amax(-1, keepdim=True)
        # In float64 before the difference: bfloat16 would round it again.
        at_clean = (logits.gather(1, targets.clean[:, None]).double() - highest).squeeze(1)
        swaps = levels.swaps
        at_noisy = None if swaps is None else logits.gather(1, targets.noisy[:, None]).double() - highest
        # Nothing is copied where both are one memory. Results below the smallest normal number, over which some vector
        # libraries spend 50 times as long, are kept out of exp; they are 0, and so is the mask's.
        exps = logits if self._exps is None else self._exps[: len(logits)]
        lowest = MIN_EXPONENT[exps.dtype]
        exps.copy_(logits).sub_(highest).clamp_(min=lowest - 0.1).exp_()
        torch.threshold_(exps, math.exp(lowest), 0.0)
        total = exps.sum(-1).double()
        log_clean = at_clean - total.log()
        if swaps is None or at_noisy is None:
            self._scales = _Scales(1.0 / total, None)
            return VocabularySums(log_clean, None)
        mean_log_ratio, mean_gap, gap_scale = self._swap_sums(exps, total, swaps.log_odds)
        self._scales = _Scales(1.0 / total, gap_scale)
        return VocabularySums(log_clean, SwapSums(at_noisy.squeeze(1) - total.log(), mean_log_ratio, mean_gap))

    def gradient(self, logits: Tensor, targets: TokenTargets, rates: LogitGradient) -> None:
        """Write the gradient by the logits over `logits` [C, V], those of the last call of `sums`."""
        assert self._scales is not None
        gradient = logits if self._exps is None else self._exps[: len(logits)]
        gradient.mul_((rates.centre * self._scales.probs).to(gradient.dtype)[:, None])
        if rates.swaps is not None:
            assert self._ratios is not None
            assert self._scales.gaps is not None
            spread = (rates.swaps.spread * self._scales.gaps).to(gradient.dtype)
            gradient.addcmul_(self._ratios[: len(logits)], spread[:, None], value=-1.0)
            gradient.scatter_add_(1, targets.noisy[:, None], rates.swaps.at_noisy.to(gradient.dtype)[:, None])
        gradient.scatter_add_(1, targets.clean[:, None], rates.at_clean.to(gradient.dtype)[:, None])
        logits.copy_(gradient)

    def _swap_sums(self, exps: Tensor, total: Tensor, log_odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Σ ρ L, Σ s (G - g) and the scale that makes gaps of what it leaves in the ratios: float64 [C]."""
        assert self._ratios is not None
        ratios, table = self._ratios[: len(exps)], self._rarity
        log_ratio = log_odds - table.log_highest - total.log()
        top_ratio = log_ratio.clamp(max=table.max_log_ratio).exp()
        relative = exps
        if self._relative is not None and table.rarity is not None:
            rarity_at_top = table.rarity[exps.argmax(-1)]
            relative = torch.mul(exps, table.rarity, out=self._relative[: len(exps)]).div_(rarity_at_top[:, None])
            top_ratio = top_ratio * rarity_at_top.double()
        factor = top_ratio.to(exps.dtype)[:, None]
        mean_log_ratio = _mean_log1p(torch.mul(relative, factor, out=ratios), table)
        # Forming t twice is cheaper than memory for another [C, V]. Then e^(logit - highest) (1 - r) / (1 + t):
        torch.mul(relative, factor, out=ratios).add_(1.0)
        torch.div(exps, ratios, out=ratios)
        ratios.addcmul_(ratios, relative, value=-1.0)
        gap_scale = top_ratio / (1.0 + top_ratio) / total
        return mean_log_ratio, ratios.sum(-1).double() * gap_scale, gap_scale


def _mean_log1p(ratios: Tensor, table: Rarity) -> Tensor:
    """Σ_j ρ_j log(1 + t_j) of `ratios` [C, V], which it consumes: float64 [C].

    Where all ρ_j are equal, pairs share a logarithm: (1 + a)(1 + b) = 1 + (a + b + ab), and no digit is lost
    because nothing is negative.
    """
    if table.probs is not None:
        return torch.mv(ratios.log1p_(), table.probs).double()
    half = ratios.shape[1] // 2
    left, right = ratios[:, :half], ratios[:, half:]
    right[:, :half].addcmul_(left, right[:, :half]).add_(left)
    return right.log1p_().sum(-1).double() * math.exp(table.log_highest)
