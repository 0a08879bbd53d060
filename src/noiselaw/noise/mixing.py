"""The mixing distribution: what noise looks like at each noise level.

Noise turns a token into the mask m or into a random other one, and the share of the latter, u(λ), moves with the
log-SNR λ (docs/theory.md eq. 2):

    π_λ(m) = 1 - u(λ),    π_λ(j) = u(λ) ρ(j)  for j ≠ m,

where ρ is uniform over the V - 1 other tokens, or any fixed reference distribution over them. `Mixing` is the seam for
a noise of your own: it needs ℓ(λ), the logit of that share, and its slope, and derives everything else from them.
`HybridMixing` is the paper's family, ℓ = a λ + b with scale a and shift b, whose shifts -inf and +inf are pure masking
and pure uniform noise, exactly.

Shapes: [...] any batch shape, V vocabulary. Results follow the dtype and device of `log_snr`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

REFERENCE_TOLERANCE = 1e-6
"""How far the probabilities of a reference may be from summing to one before they are refused."""

CHECKED_LOG_SNRS = torch.linspace(-30.0, 30.0, 241, dtype=torch.float64)
"""Where a noise is checked for arriving only."""


class Mixing(ABC):
    """The distribution π_λ of noise, its derivative in λ, and the parts they are made of, from ℓ(λ) and ℓ'(λ).

    Implementations are frozen dataclasses with the three fields below, their own parameters, and the two methods
    (examples/own_noise.py). Raises ValueError for what describes no process: a mask id outside the vocabulary, a
    reference that is no distribution over the other tokens, a slope for which π - π' turns negative somewhere (noise
    that un-happens).
    """

    __slots__ = ()
    vocab_size: int
    """V, the mask included."""
    mask_id: int
    reference: Tensor | None
    """ρ, float64 [V]: zero at the mask, positive elsewhere. None is uniform over the others and stores nothing."""

    @abstractmethod
    def share_logit(self, log_snr: Tensor) -> Tensor:
        """ℓ(λ) = log(u / (1 - u)), the logit of the share of swaps in the noise: [...] -> [...]."""

    @abstractmethod
    def share_logit_slope(self, log_snr: Tensor) -> Tensor:
        """Its derivative ℓ'(λ); noise only arrives where -1/u <= ℓ' <= 1/(1 - u), so any ℓ' in [-1, 1] will do."""

    def share_logit_change(self, log_snr: Tensor, step: Tensor) -> Tensor:
        """ℓ(λ + Δ) - ℓ(λ) for finite steps Δ >= 0: in float64, so that near levels keep their digits."""
        start = log_snr.double()
        return (self.share_logit(start + step.double()) - self.share_logit(start)).to(log_snr.dtype)

    def __post_init__(self) -> None:
        self._check_vocabulary()
        ids = torch.tensor([[self.mask_id], [int(self.mask_id == 0)]])
        arrival = self.arrival_at(CHECKED_LOG_SNRS, ids)
        bad = (~(arrival >= -1e-9)).any(0).nonzero()
        if len(bad):
            level = CHECKED_LOG_SNRS[bad[0]]
            slope = float(self.share_logit_slope(level))
            raise ValueError(
                f"share_logit_slope is {slope:g} at log-SNR {float(level):g}: such noise is no Markov chain; keep it "
                "inside [-1, 1]"
            )

    def _check_vocabulary(self) -> None:
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size {self.vocab_size} leaves no token beside the mask; give at least 2")
        if not 0 <= self.mask_id < self.vocab_size:
            last = self.vocab_size - 1
            raise ValueError(f"mask_id {self.mask_id} is outside the vocabulary; give one of 0..{last}")
        if self.reference is not None:
            checked = _checked_reference(self.reference, self.vocab_size, self.mask_id)
            object.__setattr__(self, "reference", checked)

    @property
    def is_masked(self) -> bool:
        """Pure masking: no token ever turns into another."""
        return False

    @property
    def is_uniform(self) -> bool:
        """Pure uniform (or reference) noise: the mask never appears."""
        return False

    def uniform_share(self, log_snr: Tensor) -> Tensor:
        """u(λ) = sigmoid(ℓ(λ)), the probability that noise is a swapped token."""
        return torch.sigmoid(self.share_logit(log_snr))

    def mask_share(self, log_snr: Tensor) -> Tensor:
        """1 - u(λ), the probability that noise is the mask: accurate where u rounds to one."""
        return torch.sigmoid(-self.share_logit(log_snr))

    def log_uniform_share(self, log_snr: Tensor) -> Tensor:
        """Logarithm of u(λ); -inf for masked noise."""
        return logsigmoid(self.share_logit(log_snr))

    def log_mask_share(self, log_snr: Tensor) -> Tensor:
        """Logarithm of 1 - u(λ); -inf for uniform noise."""
        return logsigmoid(-self.share_logit(log_snr))

    def reference_probs(self, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
        """The reference ρ as a vector [V], zero at the mask."""
        if self.reference is not None:
            return _copy(self.reference, device, dtype)
        uniform = torch.full((self.vocab_size,), 1.0 / (self.vocab_size - 1), dtype=dtype, device=device)
        uniform[self.mask_id] = 0.0
        return uniform

    def log_reference(self, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Logarithm of ρ at `ids` in `dtype` (torch's default where None); -inf at the mask."""
        dtype = dtype or torch.get_default_dtype()
        if self.reference is not None:
            return _copy(self.reference, ids.device)[ids].log().to(dtype)
        uniform = torch.full(ids.shape, -math.log(self.vocab_size - 1), dtype=dtype, device=ids.device)
        return uniform.masked_fill(ids == self.mask_id, -math.inf)

    def pi(self, log_snr: Tensor) -> Tensor:
        """The distribution of noise π_λ: [...] -> [..., V]."""
        return self.spread(self.uniform_share(log_snr), self.mask_share(log_snr))

    def pi_prime(self, log_snr: Tensor) -> Tensor:
        """Its derivative dπ_λ/dλ (docs/theory.md eq. 3), which sums to zero: [...] -> [..., V]."""
        slope = self._uniform_slope(log_snr)
        return self.spread(slope, -slope)

    def pi_at(self, log_snr: Tensor, ids: Tensor) -> Tensor:
        """π_λ(ids) without a [V] axis; `log_snr` and `ids` broadcast."""
        return self.spread_at(ids, self.uniform_share(log_snr), self.mask_share(log_snr))

    def pi_prime_at(self, log_snr: Tensor, ids: Tensor) -> Tensor:
        """dπ_λ(ids)/dλ without a [V] axis."""
        slope = self._uniform_slope(log_snr)
        return self.spread_at(ids, slope, -slope)

    def log_pi_at(self, log_snr: Tensor, ids: Tensor) -> Tensor:
        """Logarithm of π_λ(ids), finite wherever π_λ(ids) is positive in exact arithmetic."""
        swapped = self.log_uniform_share(log_snr) + self.log_reference(ids, log_snr.dtype)
        return torch.where(ids == self.mask_id, self.log_mask_share(log_snr), swapped)

    def arrival_at(self, log_snr: Tensor, ids: Tensor) -> Tensor:
        """How fast noise of value z = ids arrives: (π - π')(z) / π(z) = 1 - d log π_λ(z)/dλ.

        As λ falls, tokens turn into z at the rate (1 - α)(π - π')(z) per unit of λ; this is that rate relative to the
        noise (1 - α) π(z) already there. It is 1 + ℓ' u at the mask and 1 - ℓ' (1 - u) elsewhere, both non-negative
        for |ℓ'| <= 1 (docs/theory.md eq. 5) and formed so that nothing cancels.
        """
        slope = self.share_logit_slope(log_snr)
        swapped = (1.0 - slope) + slope * self.uniform_share(log_snr)
        masked = (1.0 + slope) - slope * self.mask_share(log_snr)
        return torch.where(ids == self.mask_id, masked, swapped)

    def arrived_shares(self, log_snr_t: Tensor, log_snr_s: Tensor) -> tuple[Tensor, Tensor]:
        """What of the noise at t arrived since the cleaner level s, π_t - e^-Δ π_s: mass of swaps, mass of masks.

        With Δ = λ_s - λ_t and δ = ℓ_s - ℓ_t, either is its share at t times 1 - e^-E (docs/theory.md eq. 6), where

            E = Δ - δ + log(1 - u_t + u_t e^δ) for swaps, Δ + δ + log(u_t + (1 - u_t) e^-δ) for masks.

        Nothing cancels, so all digits are kept, for near levels and for the noisiest, where hardly a swap arrives. The
        clean text, s = +inf, is a level like others.
        """
        # Beyond 1000 nothing of π_s is left; an infinite step would make a = 0 or a = 1 read 0 * inf.
        step, logit = (log_snr_s - log_snr_t).clamp(max=1000.0), self.share_logit(log_snr_t)
        change = self.share_logit_change(log_snr_t, step)
        swap_exponent = (step - change) + _log_mean_exp(logit, change)
        mask_exponent = (step + change) + _log_mean_exp(-logit, -change)
        return torch.sigmoid(logit) * -torch.expm1(-swap_exponent), torch.sigmoid(-logit) * -torch.expm1(-mask_exponent)

    def spread(self, swapped: Tensor, masked: Tensor) -> Tensor:
        """The measure with mass `swapped` over the other tokens, shared by ρ, and `masked` at the mask: [..., V]."""
        is_mask = torch.arange(self.vocab_size, device=swapped.device) == self.mask_id
        over_others = swapped[..., None] * self.reference_probs(swapped.dtype, swapped.device)
        return torch.where(is_mask, masked[..., None], over_others)

    def spread_at(self, ids: Tensor, swapped: Tensor, masked: Tensor) -> Tensor:
        """`spread` at `ids` only, without a [V] axis."""
        rho = 1.0 / (self.vocab_size - 1) if self.reference is None else _copy(self.reference, ids.device)[ids]
        return torch.where(ids == self.mask_id, masked, (swapped * rho).to(swapped.dtype))

    def _uniform_slope(self, log_snr: Tensor) -> Tensor:
        """du/dλ = ℓ' u (1 - u)."""
        return self.share_logit_slope(log_snr) * self.uniform_share(log_snr) * self.mask_share(log_snr)


@dataclass(frozen=True, slots=True, eq=False)
class HybridMixing(Mixing):
    """The paper's family from masked to uniform noise, u(λ) = sigmoid(a λ + b).

    Raises ValueError for parameters that describe no process: a NaN shift, a scale outside [-1, 1], and what every
    `Mixing` refuses.
    """

    vocab_size: int
    """V, the mask included."""
    mask_id: int
    shift: float
    """b: -inf is masked noise, +inf uniform noise."""
    scale: float = 1.0
    """a, in [-1, 1]."""
    reference: Tensor | None = None
    """ρ, float64 [V]: zero at the mask, positive elsewhere. None is uniform over the others and stores nothing."""

    def __post_init__(self) -> None:
        if math.isnan(self.shift):
            raise ValueError("shift is NaN; give a number, -inf (masked noise) or +inf (uniform noise)")
        if not -1.0 <= self.scale <= 1.0:
            raise ValueError(f"scale {self.scale} is outside [-1, 1]: such noise is no Markov chain; move it inside")
        self._check_vocabulary()

    @property
    def is_masked(self) -> bool:
        """Pure masking: no token ever turns into another."""
        return self.shift == -math.inf

    @property
    def is_uniform(self) -> bool:
        """Pure uniform (or reference) noise: the mask never appears."""
        return self.shift == math.inf

    def share_logit(self, log_snr: Tensor) -> Tensor:
        """ℓ(λ) = a λ + b."""
        if math.isinf(self.shift) or self.scale == 0.0:  # also where log_snr is infinite: the clean text
            return torch.full_like(log_snr, self.shift)
        return self.scale * log_snr + self.shift

    def share_logit_slope(self, log_snr: Tensor) -> Tensor:
        """ℓ'(λ) = a."""
        return torch.full_like(log_snr, self.scale)

    def share_logit_change(self, log_snr: Tensor, step: Tensor) -> Tensor:
        """The change a Δ, exactly, whatever the level; nothing changes at infinite shift."""
        del log_snr
        return torch.zeros_like(step) if math.isinf(self.shift) else self.scale * step


def _log_mean_exp(logit: Tensor, exponent: Tensor) -> Tensor:
    """log(1 - p + p e^exponent), p = sigmoid(logit): accurate for small p, small 1 - p and small exponents alike."""
    small = (torch.sigmoid(logit) * exponent.expm1()).log1p()
    return torch.where(exponent.abs() < 1.0, small, torch.logaddexp(logsigmoid(-logit), logsigmoid(logit) + exponent))


@lru_cache(maxsize=8)
def _copy(reference: Tensor, device: torch.device | None, dtype: torch.dtype | None = None) -> Tensor:
    """A reference elsewhere, copied once: a GPU would be waited for at every step."""
    return reference.to(device, dtype)


def _checked_reference(reference: Tensor, vocab_size: int, mask_id: int) -> Tensor:
    """A float64 copy that sums to one to the last digit, or ValueError where it is no distribution over the others."""
    if tuple(reference.shape) != (vocab_size,):
        shape = tuple(reference.shape)
        raise ValueError(f"reference has shape {shape}; give one probability per token, shape ({vocab_size},)")
    probs = reference.detach().to(torch.float64)
    if probs[mask_id] != 0:
        raise ValueError(f"reference gives the mask (id {mask_id}) probability {float(probs[mask_id]):g}; make it 0")
    is_mask = torch.arange(vocab_size, device=probs.device) == mask_id
    unusable = (~(probs > 0) & ~is_mask).nonzero()
    if len(unusable):
        worst = int(unusable[0])
        raise ValueError(
            f"reference gives token {worst} probability {float(probs[worst]):g}; every token but the mask needs a "
            "positive one (add one to all counts)"
        )
    total = float(probs.sum())
    if not abs(total - 1.0) <= REFERENCE_TOLERANCE:
        raise ValueError(f"reference sums to {total:g}; divide it by its sum")
    return probs / total
