"""The bound on the negative log-likelihood, its weight and its named terms (docs/theory.md eq. 9 to 16).

For a clean token x, its noisy value z and a prediction x_θ, write q = q_λ(·|x) and p = α x_θ + (1 - α) π_λ. Then,
summed over the tokens of a sequence and with L, H the lowest and highest log-SNR,

    -log p(x)  <=  E_{z ~ q_H} [ -log p(x | z) ]                                  reconstruction
                 + ∫_L^H dλ E_{z ~ q_λ} [ w_λ(z, x) ( KL(q ‖ p) + IS(q(z)/p(z)) ) ]   diffusion
                 + KL( q_L(·|x) ‖ q_L(·|ρ) )                                      prior

with IS(r) = r - log r - 1 (Itakura-Saito). The bound is tight when x_θ is the *leave-one-out* posterior
p(x_t | z at the other positions): the token's own noisy value enters through q, not through x_θ.

Shapes: [...] any batch shape, V vocabulary. All losses in nats per token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from noiselaw.noise.mixing import Mixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import alpha, log_snr_density, one_minus_alpha


@dataclass(frozen=True, slots=True)
class BoundTerms:
    """The three terms of the bound: nats per token, all of one shape."""

    reconstruction: Tensor
    """Naming the clean token from its value at the highest log-SNR."""
    diffusion: Tensor
    """The integral over the log-SNR."""
    prior: Tensor
    """What is left of the token at the lowest log-SNR."""

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.diffusion + self.prior


@dataclass(frozen=True, slots=True)
class Divergences:
    """How far a prediction is from the truth at one noise level: nats, [...]."""

    kl: Tensor
    """KL(q ‖ p) over the vocabulary."""
    itakura_saito: Tensor
    """r - log r - 1 at the observed token, r = q(z)/p(z)."""

    @property
    def total(self) -> Tensor:
        return self.kl + self.itakura_saito


def bound_weight(mixing: Mixing, log_snr: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """The weight of the divergences in the bound (docs/theory.md eq. 10), [...].

    w_λ(z, x) = (π - π')(z) / (π(z) + e^λ 1[z = x])

    A product of two factors in which nothing cancels: the arrival (π - π')/π and, where z = x, the probability
    π/(π + e^λ) that the value is noise which happens to equal the token. Finite at every pair; at pairs that never
    occur (a swapped token under masked noise) it is the limit of the closed form.
    """
    arrival = mixing.arrival_at(log_snr, noisy)
    pi = mixing.pi_at(log_snr, noisy)
    return torch.where(noisy == clean, arrival * (pi / (pi + log_snr.exp())), arrival)


def log_bound_weight(mixing: Mixing, log_snr: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """Logarithm of `bound_weight`, formed so that it stays finite where e^-λ u ρ underflows; -inf where w is zero."""
    log_arrival = mixing.arrival_at(log_snr, noisy).log()
    log_noise_share = logsigmoid(mixing.log_pi_at(log_snr, noisy) - log_snr)
    return torch.where(noisy == clean, log_arrival + log_noise_share, log_arrival)


def divergences(mixing: Mixing, log_snr: Tensor, noisy: Tensor, clean: Tensor, probs: Tensor) -> Divergences:
    """KL and Itakura-Saito divergence of a prediction `probs` [..., V] (zero at the mask), by their definitions.

    The reference that fast losses are tested against (docs/theory.md eq. 9, 11): it holds q and p over the whole
    vocabulary. Where noise of the value z cannot occur (masked noise, z neither the mask nor x) the Itakura-Saito
    divergence is infinite.
    """
    signal = alpha(log_snr)[..., None]
    noise = one_minus_alpha(log_snr)[..., None] * mixing.pi(log_snr)
    truth = signal * one_hot(clean, mixing.vocab_size) + noise
    model = signal * probs + noise
    kl = (torch.xlogy(truth, truth) - torch.xlogy(truth, model)).sum(-1)
    ratio = (truth.gather(-1, noisy[..., None]) / model.gather(-1, noisy[..., None])).squeeze(-1)
    # Truth and prediction agree on the mask by construction, also where both give it probability zero.
    itakura_saito = torch.where(noisy == mixing.mask_id, 0.0, ratio - ratio.log() - 1.0)
    return Divergences(kl, itakura_saito)


def snr_density_weighting(log_snr: Tensor) -> Tensor:
    """One: terms drawn with density p(λ) average to a p(λ)-weighted bound, the paper's training loss."""
    return torch.ones_like(log_snr)


def elbo_weighting(log_snr: Tensor) -> Tensor:
    """1 / p(λ) with p(λ) = α (1 - α): terms drawn with density p(λ) average to the bound itself."""
    return 1.0 / log_snr_density(log_snr)


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "snr_density": snr_density_weighting,
    "elbo": elbo_weighting,
}
"""Training weightings (docs/theory.md eq. 16): log_snr [...] -> the factor on w (KL + IS) of a token."""


def reconstruction_loss(process: NoiseProcess, logits: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """-log p(x | z) at the highest log-SNR H, from `logits` [..., V] of the prediction x_θ: nats, [...].

    p(x | z) is x_θ(x) q_H(z | x), normalised (docs/theory.md eq. 12, 15): x_θ is a leave-one-out belief, so the token's
    own noisy value joins through q_H. That only tells x = z from x ≠ z, by the factor 1 + e^H / π(z); the mask tells
    nothing, and under masked noise every other value is certain. The mask's own logit is ignored.
    """
    mixing = process.mixing
    log_snr = torch.full(noisy.shape, process.max_log_snr, dtype=logits.dtype, device=logits.device)
    is_mask = torch.arange(mixing.vocab_size, device=logits.device) == mixing.mask_id
    log_probs = logits.masked_fill(is_mask, -math.inf).log_softmax(-1)
    log_clean = log_probs.gather(-1, clean[..., None]).squeeze(-1)
    log_same = log_probs.gather(-1, noisy[..., None]).squeeze(-1)
    log_other = (-log_same.expm1()).log()
    log_same = log_same - logsigmoid(mixing.log_pi_at(log_snr, noisy) - log_snr)
    kept = -logsigmoid(log_same - log_other)
    swapped = torch.logaddexp(log_other, log_same) - log_clean
    return torch.where(noisy == mixing.mask_id, -log_clean, torch.where(noisy == clean, kept, swapped))


def prior_divergence(process: NoiseProcess, clean: Tensor) -> Tensor:
    """KL(q_L(·|x) ‖ q_L(·|ρ)) at the lowest log-SNR L (docs/theory.md eq. 13): float64 nats, [...].

    The model starts from what tokens drawn from the reference ρ look like at L. Against π_L alone the divergence would
    be infinite under masked noise, where a share α(L) of the tokens still stands unmasked; this costs α(L) log(1/ρ(x))
    nats there. For every noise it is exactly the diffusion term from -inf to L of a model that predicts ρ, so nothing
    of the bound is lost below L. Closed form, with c = (1 - α) u and the mask cancelling:

        (α + c ρ_x) log((α/ρ_x + c) / (α + c)) - c (1 - ρ_x) log((α + c) / c)
    """
    lowest = torch.tensor(process.min_log_snr, dtype=torch.float64, device=clean.device)
    kept = alpha(lowest)
    swapped = one_minus_alpha(lowest) * process.mixing.uniform_share(lowest)
    rho = process.mixing.log_reference(clean, torch.float64).exp()
    at_clean = (kept + swapped * rho) * torch.log1p(kept * (1.0 - rho) / (rho * (kept + swapped)))
    elsewhere = torch.xlogy(swapped * (1.0 - rho), (kept + swapped) / swapped)
    return at_clean - elsewhere
