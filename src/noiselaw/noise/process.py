"""The noise process: how a clean token becomes a noisy one, and back.

q_λ(z | x) = α 1[z = x] + (1 - α) π_λ(z) at log-SNR λ (docs/theory.md eq. 4). Of two levels, t is the noisier and s the
cleaner: log_snr_t < log_snr_s.

Shapes: [...] any batch shape, V vocabulary. Results follow the dtype and device of the log-SNR; no input is modified.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from noiselaw.noise.mixing import HybridMixing, Mixing
from noiselaw.noise.rate import alpha, one_minus_alpha
from noiselaw.specs import NoiseSpec


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMixture:
    """p(z_s | z_t) as three events whose probabilities sum to one: float64 or as the log-SNR, [...]."""

    clean: Tensor
    """z_s is a clean token drawn from the prediction."""
    noise: Tensor
    """z_s is drawn from the noise π at level s."""
    stay: Tensor
    """z_s = z_t: it stood there already."""


@dataclass(frozen=True, slots=True)
class NoiseProcess:
    """A mixing distribution over a finite range of log-SNR. Raises ValueError where the range is none."""

    mixing: Mixing
    min_log_snr: float = -9.0
    """Noisiest level: where generation starts."""
    max_log_snr: float = 9.0
    """Cleanest level: where the clean token is read off."""

    def __post_init__(self) -> None:
        low, high = self.min_log_snr, self.max_log_snr
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"log-SNR range [{low}, {high}] is no finite interval; give min_log_snr < max_log_snr")

    def marginal(self, clean: Tensor, log_snr: Tensor) -> Tensor:
        """q_λ(·|x) for clean ids [...]: [..., V]."""
        return self.marginal_of(one_hot(clean, self.mixing.vocab_size), log_snr)

    def marginal_of(self, probs: Tensor, log_snr: Tensor) -> Tensor:
        """q_λ(·|x) averaged over x ~ `probs` [..., V], α probs + (1 - α) π_λ: [..., V]."""
        noise = one_minus_alpha(log_snr)[..., None] * self.mixing.pi(log_snr)
        return alpha(log_snr)[..., None] * probs + noise

    def marginal_at(self, noisy: Tensor, clean: Tensor, log_snr: Tensor) -> Tensor:
        """q_λ(z | x) at pairs of ids, [...], without a [V] axis."""
        noise = one_minus_alpha(log_snr) * self.mixing.pi_at(log_snr, noisy)
        return alpha(log_snr) * (noisy == clean) + noise

    def corrupt(
        self, clean: Tensor, log_snr: Tensor, generator: torch.Generator, uniform: Tensor | None = None
    ) -> Tensor:
        """Draw z ~ q_λ(·|x) for clean ids [...]; `log_snr` broadcasts to their shape. Constant work per token.

        A token turns into noise where its `uniform` in [0, 1) is below 1 - α; give it to tie draws together. Drawn in
        float64: a float32 uniform has steps of 6e-8, one part in two thousand of 1 - α at λ = 9.
        """
        log_snr = log_snr.expand(clean.shape)
        uniform = _uniform(log_snr.shape, generator) if uniform is None else uniform
        noised = uniform < one_minus_alpha(log_snr)
        return torch.where(noised, self.sample_noise(log_snr, generator), clean)

    def sample_noise(self, log_snr: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an id from π_λ for every entry of `log_snr`: exactly that density, so no swap ever gives the mask."""
        # u in float64, so that 1 - u, the chance of a mask, keeps its digits where u is close to one.
        swapped = _uniform(log_snr.shape, generator) < self.mixing.uniform_share(log_snr.double())
        return torch.where(swapped, self._sample_reference(log_snr.shape, generator), self.mixing.mask_id)

    def transition(self, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
        """The matrix q_{t|s}(z_t | z_s), [..., V (z_s), V (z_t)] (docs/theory.md eq. 6); rows sum to one."""
        stay, swapped, masked = self._arrivals(log_snr_t, log_snr_s)
        identity = torch.eye(self.mixing.vocab_size, dtype=stay.dtype, device=stay.device)
        return stay[..., None, None] * identity + self.mixing.spread(swapped, masked)[..., None, :]

    def transition_at(self, noisy_t: Tensor, noisy_s: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
        """q_{t|s}(z_t | z_s) at pairs of ids, [...], without a [V] axis."""
        stay, swapped, masked = self._arrivals(log_snr_t, log_snr_s)
        return stay * (noisy_t == noisy_s) + self.mixing.spread_at(noisy_t, swapped, masked)

    def posterior(self, noisy_t: Tensor, probs: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
        """p(z_s | z_t) given a prediction `probs` [..., V] of the clean token: [..., V].

        q_{t|s}(z_t | z_s) q_s(z_s | probs) / q_t(z_t | probs) (docs/theory.md eq. 7), a mixture of two events: z_t
        stood there at s already, or it arrived since and z_s ~ q_s(·|probs). A z_t that the prediction rules out is
        kept.
        """
        stay, swapped, masked = self._arrivals(log_snr_t, log_snr_s)
        marginal_s = self.marginal_of(probs, log_snr_s)
        stood = stay * marginal_s.gather(-1, noisy_t[..., None]).squeeze(-1)
        arrived = self.mixing.spread_at(noisy_t, swapped, masked)
        evidence = stood + arrived
        stood_share = torch.where(evidence > 0, stood / evidence, 1.0)
        arrived_share = torch.where(evidence > 0, arrived / evidence, 0.0)
        before_arrival = arrived_share[..., None] * marginal_s
        return before_arrival.scatter_add(-1, noisy_t[..., None], stood_share[..., None])

    def posterior_mixture(
        self, noisy_t: Tensor, prob_at_noisy: Tensor, log_snr_t: Tensor, log_snr_s: Tensor
    ) -> PosteriorMixture:
        """The law of `posterior` without a [V] axis (docs/theory.md eq. 31): what happens to each token [...].

        Of the prediction only its probability of the present token, `prob_at_noisy` [...], is needed; at the mask not
        even that. `log_snr_s` may be +inf, the clean text: the mixture is then the belief of eq. 15.
        """
        stay, swapped, masked = self._arrivals(log_snr_t, log_snr_s)
        signal_s, noise_s = alpha(log_snr_s), one_minus_alpha(log_snr_s)
        prob_at_noisy = torch.where(noisy_t == self.mixing.mask_id, 0.0, prob_at_noisy)
        stood = stay * (signal_s * prob_at_noisy + noise_s * self.mixing.pi_at(log_snr_s, noisy_t))
        arrived = self.mixing.spread_at(noisy_t, swapped, masked)
        evidence = stood + arrived
        # A token that the prediction rules out and noise cannot have made is kept, as in `posterior`.
        arrived_share = torch.where(evidence > 0, arrived / evidence, 0.0)
        return PosteriorMixture(signal_s * arrived_share, noise_s * arrived_share, 1.0 - arrived_share)

    def belief_at(self, noisy: Tensor, prob_at_noisy: Tensor, log_snr: Tensor) -> Tensor:
        """Probability that the clean token is the one seen, given all of z, [...]: the belief of eq. 15 at x = z."""
        clean = torch.full_like(log_snr, math.inf)
        mixture = self.posterior_mixture(noisy, prob_at_noisy, log_snr, clean)
        return torch.where(noisy == self.mixing.mask_id, 0.0, mixture.stay + mixture.clean * prob_at_noisy)

    def prior(self) -> Tensor:
        """The noise that generation starts from, π at the lowest log-SNR: float64 [V]."""
        return self.mixing.pi(torch.tensor(self.min_log_snr, dtype=torch.float64))

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ids of the given shape from the prior."""
        lowest = torch.full(shape, self.min_log_snr, dtype=torch.float64, device=generator.device)
        return self.sample_noise(lowest, generator)

    def _arrivals(self, log_snr_t: Tensor, log_snr_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From s to t: probability to stay, mass of swaps that arrived, mass of masks that arrived. They sum to one."""
        swapped, masked = self.mixing.arrived_shares(log_snr_t, log_snr_s)
        noise_t = one_minus_alpha(log_snr_t)
        return alpha(log_snr_t) / alpha(log_snr_s), noise_t * swapped, noise_t * masked

    def _sample_reference(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Ids from ρ: an index among the V - 1 tokens that are not the mask, moved up by one from the mask on."""
        mixing, device = self.mixing, generator.device
        if mixing.reference is None:
            index = torch.randint(mixing.vocab_size - 1, shape, generator=generator, device=device)
        else:
            is_mask = torch.arange(mixing.vocab_size, device=device) == mixing.mask_id
            cumulative = mixing.reference.to(device)[~is_mask].cumsum(0)
            index = torch.searchsorted(cumulative, _uniform(shape, generator), right=True)
            # Rounding can leave the last sum just below a uniform draw.
            index = index.clamp(max=mixing.vocab_size - 2)
        return index + (index >= mixing.mask_id)


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)


def build_process(
    noise: NoiseSpec,
    vocab_size: int,
    mask_id: int,
    min_log_snr: float,
    max_log_snr: float,
    *,
    token_frequencies: Tensor | None = None,
) -> NoiseProcess:
    """The process that `noise` describes; `token_frequencies` [V] is its reference where that is "unigram"."""
    reference = None
    if noise.reference == "unigram":
        if token_frequencies is None:
            raise ValueError("noise.reference is 'unigram' without token frequencies; give them or use 'uniform'")
        reference = token_frequencies
    mixing = HybridMixing(vocab_size, mask_id, noise.shift, noise.scale, reference)
    return NoiseProcess(mixing, min_log_snr, max_log_snr)


def noise_spec(mixing: Mixing) -> NoiseSpec:
    """The settings that describe `mixing`, any reference taken for the data's. Raises ValueError where none do."""
    if not isinstance(mixing, HybridMixing):
        kind = type(mixing).__name__
        raise ValueError(f"{kind} has no settings in a spec; use a HybridMixing or Python functions")  # noqa: TRY004
    reference = "uniform" if mixing.reference is None else "unigram"
    return NoiseSpec(shift=mixing.shift, scale=mixing.scale, reference=reference)
