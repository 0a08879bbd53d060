"""The held-out bound, estimated with low variance: fixed tokens, fixed stratified noise levels, fixed draws.

Every validation of every run with the same noise and data sees the same corrupted sequences, so the differences between
runs and steps carry far less noise than the standard error of the level, which is reported beside it. Shapes: B
sequences, T positions, K draws per sequence, N = B*T.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from noiselaw.data.order import step_generator
from noiselaw.data.shards import Split
from noiselaw.model.transformer import Transformer
from noiselaw.noise.elbo import prior_divergence, reconstruction_loss
from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import log_snr_from_time, time_from_log_snr
from noiselaw.specs import ValidationSpec
from noiselaw.train.objective import AutoregressiveObjective, DiffusionObjective, NoisyBatch, Objective
from noiselaw.train.step import HeadSettings, Precision, batch_loss

VALIDATION_SEED = 1729
"""Seed of the fixed draws: the same for every run, whatever its own seed."""


@dataclass(frozen=True, slots=True)
class BoundEstimate:
    """Nats per token. `loss` is the sum of the three terms; for the autoregressive model it is the exact loss."""

    loss: float
    standard_error: float
    diffusion: float
    reconstruction: float
    prior: float

    def as_row(self) -> dict[str, float]:
        return asdict(self)


class Validator:
    """Estimates the bound of a model on the same held-out sequences each time it is asked."""

    def __init__(
        self, objective: Objective, split: Split, sequence_length: int, spec: ValidationSpec, batch_sequences: int
    ) -> None:
        available = split.num_sequences(sequence_length)
        if available < spec.num_sequences:
            raise ValueError(
                f"validation.num_sequences is {spec.num_sequences} but the validation split holds only {available} "
                f"sequences of {sequence_length} tokens; lower it or prepare more validation text"
            )
        indices = torch.linspace(0, available - 1, spec.num_sequences).long().numpy()
        self._tokens = torch.from_numpy(split.sequences(indices, sequence_length))
        self._objective = objective
        self._rows = batch_sequences
        self._generator = step_generator(VALIDATION_SEED, 0, "validation")
        self._batches, self._order = self._fixed_draws(spec.draws)

    def _fixed_draws(self, draws: int) -> tuple[list[NoisyBatch], Tensor]:
        """The corrupted sequences, and the sequences sorted by noise level."""
        objective, tokens = self._objective, self._tokens
        if not isinstance(objective, DiffusionObjective):
            return [objective.training_batch(tokens, self._generator)], torch.arange(len(tokens))
        low, high = _square_root_times(objective)
        num = len(tokens)
        stratum = torch.randperm(num, generator=self._generator)
        within = torch.rand(num, generator=self._generator, dtype=torch.float64)
        offset = (stratum + within) / num
        batches = []
        for draw in range(draws):
            # One level per sequence and draw; a sequence's levels are 1/draws apart, all of them evenly spread.
            root = low + (high - low) * (offset + draw) / draws
            time = root.square()
            log_snr = log_snr_from_time(time).float()[:, None].expand_as(tokens)
            noisy = objective.process.corrupt(tokens, log_snr, self._generator)
            # d(log-SNR) = 2 (high - low) sqrt(t) / (t (1 - t)) d(offset), up to sign.
            jacobian = (2 * (high - low) / (root * (1 - time))).float()[:, None].expand_as(tokens)
            weight = objective.loss_weight(noisy, jacobian)
            batches.append(NoisyBatch(noisy, tokens, log_snr, weight, prompt_lengths=None, causal=False))
        return batches, torch.argsort(offset)

    @torch.no_grad()
    def estimate(self, model: Transformer, precision: Precision, head: HeadSettings) -> BoundEstimate:
        """The bound of `model` on the held-out sequences, in nats per token, with its standard error."""
        model.eval()
        per_sequence = torch.stack(
            [self._sequence_losses(model, batch, precision, head) for batch in self._batches]
        ).mean(0)
        reconstruction, prior = self._end_terms(model, precision, head)
        model.train()
        diffusion = float(per_sequence.mean())
        return BoundEstimate(
            loss=diffusion + reconstruction + prior,
            standard_error=_stratified_standard_error(per_sequence[self._order]),
            diffusion=diffusion,
            reconstruction=reconstruction,
            prior=prior,
        )

    def _sequence_losses(
        self, model: Transformer, batch: NoisyBatch, precision: Precision, head: HeadSettings
    ) -> Tensor:
        """Mean weighted loss of each sequence, float64 [B]."""
        means = []
        for start in range(0, len(batch.inputs), self._rows):
            part = batch.rows(start, start + self._rows)
            integrand = batch_loss(model, self._objective, part, precision, head).integrand
            weighted = integrand.double().cpu() * part.weight.flatten()
            means.append(weighted.view_as(part.inputs).mean(1))
        return torch.cat(means)

    def _end_terms(self, model: Transformer, precision: Precision, head: HeadSettings) -> tuple[float, float]:
        """Reconstruction at the highest log-SNR and prior at the lowest, nats per token (0 for the autoregressive)."""
        objective = self._objective
        if isinstance(objective, AutoregressiveObjective):
            return 0.0, 0.0
        assert isinstance(objective, DiffusionObjective)
        return self._reconstruction(model, objective, precision, head), float(
            prior_divergence(objective.process, self._tokens).double().mean()
        )

    def _reconstruction(
        self, model: Transformer, objective: DiffusionObjective, precision: Precision, head: HeadSettings
    ) -> float:
        """E[-log p(x|z)] at the highest log-SNR, on a quarter of the sequences.

        Hardly any token is noised there (1e-4), so plain draws would be nearly all alike. Each position is instead
        conditioned on: its expectation is P(kept) * E[. | kept] + P(noised) * E[. | noised], the first measured on
        every kept token of one draw, the second at one position per sequence that is noised for certain.
        """
        process = objective.process
        tokens = self._tokens[: max(1, len(self._tokens) // 4)]
        generator = step_generator(VALIDATION_SEED, 0, "reconstruction")
        log_snr = torch.full(tokens.shape, process.max_log_snr)
        noised_share = float(torch.sigmoid(torch.tensor(-process.max_log_snr, dtype=torch.float64)))
        kept = process.corrupt(tokens, log_snr, generator)
        position = torch.randint(tokens.shape[1], (len(tokens), 1), generator=generator)
        replacement = process.sample_noise(log_snr.gather(1, position), generator)
        one_noised = kept.scatter(1, position, replacement)
        kept_loss = self._reconstruction_losses(
            model, process, tokens, kept, precision=precision, chunk_tokens=head.chunk_tokens
        )
        noised_loss = self._reconstruction_losses(
            model, process, tokens, one_noised, precision=precision, chunk_tokens=head.chunk_tokens
        )
        noised_loss = noised_loss.gather(1, position)
        mean_kept = float(kept_loss[kept == tokens].mean())
        return (1 - noised_share) * mean_kept + noised_share * float(noised_loss.mean())

    def _reconstruction_losses(
        self,
        model: Transformer,
        process: NoiseProcess,
        tokens: Tensor,
        noisy: Tensor,
        *,
        precision: Precision,
        chunk_tokens: int,
    ) -> Tensor:
        """-log p(x | z) of every token, float64 [B, T], with at most `chunk_tokens` * V logits at a time."""
        losses = []
        for start in range(0, len(tokens), self._rows):
            device = model.lm_head.weight.device
            part, clean = (ids[start : start + self._rows].to(device) for ids in (noisy, tokens))
            with precision.autocast(device):
                hidden = model(part).flatten(0, 1)
            chunks = (parts.split(chunk_tokens) for parts in (hidden, part.flatten(), clean.flatten()))
            for states, seen, truth in zip(*chunks, strict=True):
                with precision.autocast(device):
                    logits = model.logits(states)
                losses.append(reconstruction_loss(process, logits.double(), seen, truth).cpu())
        return torch.cat(losses).view_as(tokens)


def _square_root_times(objective: DiffusionObjective) -> tuple[float, float]:
    """sqrt(t) at the cleanest and the noisiest level.

    Levels are spread evenly in sqrt(t). A token is noised with probability t and then counts 1/t, so the variance at t
    grows like 1/t and the best density falls like its root; even spacing in t has 9/4 of this one's variance.
    """
    ends = torch.tensor([objective.process.max_log_snr, objective.process.min_log_snr], dtype=torch.float64)
    low, high = time_from_log_snr(ends).sqrt().tolist()
    return low, high


def _stratified_standard_error(ordered: Tensor) -> float:
    """Standard error of the mean of one value per stratum, from differences of neighbouring strata.

    Neighbours share their trend in the noise level, so the plain standard deviation would overstate the error
    (successive-difference estimator, Wolter 2007, section 8.2).
    """
    num = len(ordered)
    if num < 2:
        return math.nan
    return float((ordered.diff().square().sum() / (2 * num * (num - 1))).sqrt())
