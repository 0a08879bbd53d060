"""Exact answers for tiny vocabularies: the referee of the tests.

With a handful of symbols and positions every sequence can be enumerated. The oracle knows the data distribution, hence
the best possible prediction, and evaluates the bound of *any* prediction without sampling: sums over all noisy
sequences, Gauss-Legendre quadrature over the log-SNR. With the leave-one-out posterior the bound is the true negative
log-likelihood, and every other prediction gives a larger one on average (docs/theory.md eq. 14).

Shapes: B batch, T positions, V vocabulary, S clean sequences the data can produce, N = V**T noisy sequences, K noise
levels. float64 throughout; nats per token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from noiselaw.noise.elbo import BoundTerms, bound_weight, divergences, prior_divergence, reconstruction_loss
from noiselaw.noise.process import NoiseProcess

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(noisy ids [B, T], log-SNR [B]) -> probabilities [B, T, V] of the clean tokens, zero at the mask."""

MAX_NOISY_SEQUENCES = 5**3
"""Beyond this, enumeration is no longer instant."""
NODES_PER_PANEL = 8
"""Gauss-Legendre nodes per unit of log-SNR: the integrand's poles lie π off the real axis, so the error is ~1e-13."""


@dataclass(frozen=True, slots=True, eq=False)
class Oracle:
    """Everything exact about one noise process and one data distribution.

    Raises ValueError where `data` is no distribution over mask-free sequences or is too large to enumerate.
    """

    process: NoiseProcess
    data: Tensor
    """Joint probabilities, float64 [V, ..., V] with one axis per position; zero where any token is the mask."""

    def __post_init__(self) -> None:
        vocab_size, mask_id, data = self.process.mixing.vocab_size, self.process.mixing.mask_id, self.data
        if set(data.shape) != {vocab_size} or data.numel() > MAX_NOISY_SEQUENCES:
            raise ValueError(
                f"data has shape {tuple(data.shape)}; give one axis of {vocab_size} per position and at most "
                f"{MAX_NOISY_SEQUENCES} entries"
            )
        if any(data.select(axis, mask_id).any() for axis in range(data.ndim)):
            raise ValueError(f"data gives sequences with the mask (id {mask_id}) a probability; make it zero")
        if bool((data < 0).any()) or not math.isclose(float(data.sum()), 1.0, abs_tol=1e-12):
            raise ValueError(f"data sums to {float(data.sum()):g} or has negative entries; give probabilities")

    @property
    def clean(self) -> Tensor:
        """The sequences the data can produce, ids [S, T]."""
        return self.data.nonzero()

    @property
    def probabilities(self) -> Tensor:
        """Their probabilities, [S]."""
        return self.data[self.data > 0]

    @property
    def noisy(self) -> Tensor:
        """All sequences, mask included, ids [N, T]."""
        return torch.ones_like(self.data).nonzero()

    def negative_log_likelihood(self) -> Tensor:
        """-log p(x) / T of every clean sequence, [S]."""
        return -self.probabilities.log() / self.data.ndim

    def entropy(self) -> Tensor:
        """Entropy of the data per token: the lowest average bound any model can reach."""
        return (self.probabilities * self.negative_log_likelihood()).sum()

    def leave_one_out(self, noisy: Tensor, log_snr: Tensor) -> Tensor:
        """p(x_t | z at the other positions), [B, T, V]: the prediction that makes the bound tight.

        `log_snr` is [B], or [B, T] where tokens of one sequence stand at different levels (a prompt is clean).
        """
        return self._normalised(self._leave_one_out_joint(self._likelihood(noisy, log_snr)))

    def posterior(self, noisy: Tensor, log_snr: Tensor) -> Tensor:
        """p(x_t | all of z), [B, T, V]: the belief about a token, its own noisy value included."""
        likelihood = self._likelihood(noisy, log_snr)
        return self._normalised(self._leave_one_out_joint(likelihood) * likelihood)

    def bound(self, denoiser: Denoiser) -> BoundTerms:
        """The bound of `denoiser` for every clean sequence, terms [S]."""
        log_snr, weight = _gauss_legendre(self.process.min_log_snr, self.process.max_log_snr)
        diffusion = weight @ self.integrand(denoiser, log_snr)
        prior = prior_divergence(self.process, self.clean).mean(-1)
        return BoundTerms(self._reconstruction(denoiser), diffusion, prior)

    def expected_bound(self, denoiser: Denoiser) -> Tensor:
        """The total bound averaged over the data."""
        return (self.probabilities * self.bound(denoiser).total).sum()

    def integrand(self, denoiser: Denoiser, log_snr: Tensor) -> Tensor:
        """The diffusion term's integrand E_z[w (KL + IS)] for noise levels [K]: [K, S]."""
        noisy, levels, candidates = self._all_pairs(log_snr)
        probs = self._predict(denoiser, log_snr)[..., None, :].expand(*noisy.shape, -1)
        mixing = self.process.mixing
        distance = divergences(mixing, levels, noisy, candidates, probs).total
        return self._expectation(bound_weight(mixing, levels, noisy, candidates) * distance, log_snr)

    def _reconstruction(self, denoiser: Denoiser) -> Tensor:
        highest = torch.tensor([self.process.max_log_snr], dtype=torch.float64)
        noisy, _, candidates = self._all_pairs(highest)
        logits = self._predict(denoiser, highest).log()[..., None, :].expand(*noisy.shape, -1)
        return self._expectation(reconstruction_loss(self.process, logits, noisy, candidates), highest)[0]

    def _all_pairs(self, log_snr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy ids, log-SNR and candidate clean ids, each [K, N, T, V]: every value a clean token could have."""
        shape = (len(log_snr), *self.noisy.shape, self.process.mixing.vocab_size)
        candidates = torch.arange(shape[-1]).expand(shape)
        return self.noisy[..., None].expand(shape), log_snr[:, None, None, None].expand(shape), candidates

    def _predict(self, denoiser: Denoiser, log_snr: Tensor) -> Tensor:
        """The denoiser's probabilities for every noise level and noisy sequence, [K, N, T, V]."""
        num_noisy = len(self.noisy)
        probs = denoiser(self.noisy.repeat(len(log_snr), 1), log_snr.repeat_interleave(num_noisy))
        return probs.unflatten(0, (len(log_snr), num_noisy))

    def _expectation(self, values: Tensor, log_snr: Tensor) -> Tensor:
        """Mean over tokens and over z ~ q_λ(·|x) of `values` [K, N, T, V] (last axis: the clean token): [K, S]."""
        clean, positions = self.clean, torch.arange(self.data.ndim)
        per_token = values[:, :, positions, clean[:, None]].transpose(1, 2).squeeze(-2)
        probability = self.process.marginal_at(self.noisy, clean[:, None], log_snr[:, None, None, None]).prod(-1)
        # Pairs that never occur may carry an infinite divergence.
        weighted = torch.where(probability > 0, probability * per_token.mean(-1), 0.0)
        return weighted.sum(-1)

    def _likelihood(self, noisy: Tensor, log_snr: Tensor) -> Tensor:
        """q_λ(z_t | x_t = v) for every value v, [B, T, V]."""
        values = torch.arange(self.process.mixing.vocab_size)
        levels = log_snr if log_snr.ndim == 2 else log_snr[:, None]
        return self.process.marginal_at(noisy[..., None], values, levels[..., None])

    def _leave_one_out_joint(self, likelihood: Tensor) -> Tensor:
        """p(x_t = v, z at the other positions), [B, T, V], from likelihoods of the same shape."""
        joint = self.data.expand(len(likelihood), *self.data.shape)
        axes = range(1, joint.ndim)
        columns = []
        for position in axes:
            factors = [(likelihood[:, other - 1], [0, other]) for other in axes if other != position]
            columns.append(torch.einsum(joint, [0, *axes], *chain(*factors), [0, position]))
        return torch.stack(columns, dim=1)

    def _normalised(self, weights: Tensor) -> Tensor:
        """`weights` divided by their sum; the reference where that is zero because the noisy sequence cannot occur."""
        total = weights.sum(-1, keepdim=True)
        return torch.where(total > 0, weights / total, self.process.mixing.reference_probs())


def _gauss_legendre(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights [K] that integrate over [low, high], in panels at most one wide."""
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(NODES_PER_PANEL))
    edges = torch.linspace(low, high, math.ceil(high - low) + 1, dtype=torch.float64)
    half, middle = edges.diff()[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * nodes).flatten(), (half * weights).flatten()
