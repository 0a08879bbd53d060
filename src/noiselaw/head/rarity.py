"""The reference distribution ρ as the sums over the vocabulary use it, and the range of numbers they stay in.

Shapes: V vocabulary.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from noiselaw.noise.mixing import Mixing

MAX_LOG_RATIO = {torch.float32: 80.0, torch.float64: 700.0}
"""Largest logarithm of a product of ratios t that is formed; float32 ends at e^88, float64 at e^709."""

MIN_EXPONENT = {torch.float32: -87.0, torch.float64: -708.0}
"""Where e^x is still a normal number."""


@dataclass(frozen=True, slots=True, eq=False)
class Rarity:
    """How rare each token is in the reference: t_j = (t at the largest ρ) e^(logit - highest) rarity_j."""

    log_highest: float
    """Logarithm of the largest ρ_j; 0 without a mixing."""
    max_log_ratio: float
    """Largest log t, at the largest logit and the largest ρ, for which no t overflows."""
    probs: Tensor | None = None
    """ρ [V], None for the uniform one."""
    rarity: Tensor | None = None
    """Largest ρ over ρ_j, [V], 0 at the mask; None for the uniform one."""

    @staticmethod
    @lru_cache(maxsize=8)
    def of(mixing: Mixing | None, device: torch.device, dtype: torch.dtype) -> "Rarity":
        """For sums in `dtype` on `device`; remembered, because making it waits for a device."""
        limit = MAX_LOG_RATIO[dtype]
        if mixing is None or mixing.reference is None:
            # Halved because pairs of 1 + t are multiplied.
            return Rarity(0.0 if mixing is None else -math.log(mixing.vocab_size - 1), limit / 2)
        exact = mixing.reference
        rarity = torch.where(exact > 0, exact.max() / exact, 0.0)
        max_log_ratio = limit - math.log(float(rarity.max()))
        parts = (part.to(device, dtype) for part in (exact, rarity))
        return Rarity(math.log(float(exact.max())), max_log_ratio, *parts)
