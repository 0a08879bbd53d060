"""The loss of one token and its gradient from four numbers of its softmax (spec section 11).

Token: clean x, noisy z, log-SNR λ; s = softmax(logits) with the mask m at probability 0; α = sigmoid(λ), u the share of
uniform noise, ρ the reference distribution, c_j = (1 - α) u ρ_j the noise that looks like j, κ_j = log(α / c_j). With

    t_j = e^{κ_j} s_j,   L_j = log(1 + t_j) = log(p_j / c_j),   g_j = t_j / (1 + t_j),   d = log(q_x / p_x)

the divergences and the derivative by logit k of w (KL + IS) are

    KL = α d + (1 - α) u (ρ_x softplus(κ_x) - Σ_j ρ_j L_j)
    IS = 0 (z = m) | e^d - 1 - d (z = x) | L_z - g_z (otherwise)
    ∂_k = w α s_k (g_k - Σ_j s_j g_j) - (P_x + P_z) s_k + P_x 1[k = x] + P_z 1[k = z]
    P_x = -g_x (w α + 1[z = x] (w e^d - w)),   P_z = 1[z ≠ x, z ≠ m] w g_z²

(spec section 11 for any ρ; its c g_j is α (s_j - s_j g_j)). All g may be near 0, where noise drowns the signal, or near
1, where there is hardly any. Their differences are therefore formed from G = R / (1 + R), R the t of the token with the
largest logit:

    G - g_j = G (1 - r_j) / (1 + t_j),   r_j = t_j / R,   g_k - Σ s g = Σ_j s_j (G - g_j) - (G - g_k)

The vocabulary enters through log s_x, log s_z, Σ ρ L and Σ s (G - g) only. Pure masking and plain cross-entropy are the
limit c = 0, κ = +inf, where g = 1, d = -log s_x and neither sum is needed. All of this is n numbers in float64:
nothing beside the n * V logits.

Shapes: n tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from noiselaw.head.targets import TokenTargets
from noiselaw.noise.elbo import log_bound_weight
from noiselaw.noise.rate import alpha, one_minus_alpha


@dataclass(frozen=True, slots=True, eq=False)
class SwapLevels:
    """What noise that can swap adds to `TokenLevels`: float64 [n]."""

    mass: Tensor
    """(1 - α) u, the probability to be noise other than the mask."""
    log_odds: Tensor
    """κ_j + log ρ_j = log(α / ((1 - α) u)), the same for all j."""
    log_odds_clean: Tensor
    """κ_x."""
    log_odds_noisy: Tensor
    """κ_z; meaningless at the mask."""
    kept: Tensor
    """Whether z = x, bool."""
    swapped: Tensor
    """Whether z is neither x nor the mask, bool."""

    def rows(self, rows: slice) -> "SwapLevels":
        return SwapLevels(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class TokenLevels:
    """What is known of each token before the model speaks: float64 [n]."""

    signal: Tensor
    """α."""
    log_weight: Tensor
    """log w."""
    swaps: SwapLevels | None
    """None under pure masking and plain cross-entropy."""

    def rows(self, rows: slice) -> "TokenLevels":
        swaps = None if self.swaps is None else self.swaps.rows(rows)
        return TokenLevels(self.signal[rows], self.log_weight[rows], swaps)


@dataclass(frozen=True, slots=True, eq=False)
class SwapSums:
    """What noise that can swap needs beside log s_x: float64 [n]."""

    log_noisy: Tensor
    """log s_z; used only where z is swapped."""
    mean_log_ratio: Tensor
    """Σ_j ρ_j L_j."""
    mean_gap: Tensor
    """Σ_j s_j (G - g_j)."""


@dataclass(frozen=True, slots=True, eq=False)
class VocabularySums:
    """All that the loss needs from a token's softmax: float64 [n]."""

    log_clean: Tensor
    """log s_x."""
    swaps: SwapSums | None
    """None where `TokenLevels.swaps` is."""

    @staticmethod
    def concatenate(parts: Sequence["VocabularySums"]) -> "VocabularySums":
        swaps = [part.swaps for part in parts if part.swaps is not None]
        names = [field.name for field in fields(SwapSums)]
        joined = SwapSums(*(torch.cat([getattr(part, name) for part in swaps]) for name in names)) if swaps else None
        return VocabularySums(torch.cat([part.log_clean for part in parts]), joined)


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """Divergences of each token in nats, float64 [n]."""

    kl: Tensor
    itakura_saito: Tensor
    integrand: Tensor
    """w (KL + IS)."""


@dataclass(frozen=True, slots=True, eq=False)
class SwapGradient:
    """The part of `LogitGradient` that noise with swaps adds: float64 [n] each."""

    spread: Tensor
    at_noisy: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LogitGradient:
    """By logit k: centre s_k + at_clean 1[k = x], and with swaps - spread s_k (G - g_k) + at_noisy 1[k = z].

    float64 [n] each.
    """

    centre: Tensor
    at_clean: Tensor
    swaps: SwapGradient | None


def token_levels(targets: TokenTargets) -> TokenLevels:
    """The constants of each token's closed forms.

    Without swaps every token reads as masked: by the noise (α = sigmoid(λ)), or by being the next one (α = 1, w = 1).
    """
    mixing, log_snr = targets.mixing, targets.log_snr.double()
    if mixing is None:
        return TokenLevels(torch.ones_like(log_snr), torch.zeros_like(log_snr), None)
    signal, log_weight = alpha(log_snr), log_bound_weight(mixing, log_snr, targets.noisy, targets.clean)
    if not targets.has_swaps:
        return TokenLevels(signal, log_weight, None)
    log_share = mixing.log_uniform_share(log_snr)
    log_odds = log_snr - log_share
    kept = targets.noisy == targets.clean
    swaps = SwapLevels(
        mass=one_minus_alpha(log_snr) * log_share.exp(),
        log_odds=log_odds,
        log_odds_clean=log_odds - mixing.log_reference(targets.clean, torch.float64),
        log_odds_noisy=log_odds - mixing.log_reference(targets.noisy, torch.float64),
        kept=kept,
        swapped=~kept & (targets.noisy != targets.mask_id),
    )
    return TokenLevels(signal, log_weight, swaps)


def token_losses(levels: TokenLevels, sums: VocabularySums) -> TokenLosses:
    """KL, Itakura-Saito and the weighted sum of each token."""
    weight, swaps = levels.log_weight.exp(), levels.swaps
    if swaps is None or sums.swaps is None:
        kl = -levels.signal * sums.log_clean
        return TokenLosses(kl, torch.zeros_like(kl), weight * kl)
    log_ratio = _log_ratio_at_clean(swaps, sums)
    # c_x softplus(κ_x) - (1 - α) u Σ ρ L, where c_x = α e^-κ_x; without any noise it would read 0 * inf.
    noise = levels.signal * (-swaps.log_odds_clean).exp() * _softplus(swaps.log_odds_clean)
    noise = torch.where(swaps.mass > 0, noise - swaps.mass * sums.swaps.mean_log_ratio, 0.0)
    kl = levels.signal * log_ratio + noise
    log_odds = swaps.log_odds_noisy + sums.swaps.log_noisy
    at_swapped = torch.where(swaps.swapped, _softplus(log_odds) - torch.sigmoid(log_odds), 0.0)
    at_kept = torch.where(swaps.kept, log_ratio.expm1() - log_ratio, 0.0)
    weighted_kept = torch.where(swaps.kept, _weighted_excess(levels, log_ratio) - weight * log_ratio, 0.0)
    integrand = weight * (kl + at_swapped) + weighted_kept
    return TokenLosses(kl, at_kept + at_swapped, integrand)


def logit_gradient(levels: TokenLevels, sums: VocabularySums, weight: Tensor) -> LogitGradient:
    """Gradient of weight * integrand by the logits, `weight` [n]."""
    bound_weight, swaps = levels.log_weight.exp(), levels.swaps
    spread = bound_weight * levels.signal
    if swaps is None or sums.swaps is None:
        centre = weight * spread
        return LogitGradient(centre, -centre, None)
    excess = torch.where(swaps.kept, _weighted_excess(levels, _log_ratio_at_clean(swaps, sums)), 0.0)
    posterior = torch.sigmoid(swaps.log_odds_clean + sums.log_clean)
    at_clean = -posterior * (spread + excess)
    posterior = torch.sigmoid(swaps.log_odds_noisy + sums.swaps.log_noisy)
    at_noisy = torch.where(swaps.swapped, bound_weight * posterior.square(), 0.0)
    centre = spread * sums.swaps.mean_gap - at_clean - at_noisy
    return LogitGradient(weight * centre, weight * at_clean, SwapGradient(weight * spread, weight * at_noisy))


def _softplus(value: Tensor) -> Tensor:
    """log(1 + e^v) to the last digit; torch's own drops e^-v beyond v = 20."""
    return -logsigmoid(-value)


def _log_ratio_at_clean(swaps: SwapLevels, sums: VocabularySums) -> Tensor:
    """The d of the module's formulas, log(q_x / p_x) = log(1 + (1 - s_x) / (s_x + e^{-κ_x})), never negative."""
    log_rest = (-sums.log_clean.expm1()).log()
    return _softplus(log_rest - torch.logaddexp(-swaps.log_odds_clean, sums.log_clean))


def _weighted_excess(levels: TokenLevels, log_ratio: Tensor) -> Tensor:
    """Weight times q_x / p_x - 1, w (e^d - 1). Where z = x, w e^d is at most u although e^d alone may overflow."""
    excess = (levels.log_weight + log_ratio).exp() - levels.log_weight.exp()
    return torch.where(log_ratio < 1.0, levels.log_weight.exp() * log_ratio.expm1(), excess)
