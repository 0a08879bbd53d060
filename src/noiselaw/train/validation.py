"""The held-out bound, estimated with low variance: fixed tokens, fixed stratified noise levels, fixed draws.

Every validation of every run with the same noise and data sees the same corrupted sequences, so the differences between
runs and steps carry far less noise than the standard error of the level, which is reported beside it. Shapes: B
sequences, T positions, K draws per sequence, N = B*T.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from noiselaw.data.mixture import AnySplit
from noiselaw.data.order import step_generator
from noiselaw.model.transformer import Transformer
from noiselaw.noise.levels import square_root_levels
from noiselaw.specs import ValidationSpec
from noiselaw.train.bound import (
    Forward,
    Texts,
    batch_losses,
    noised,
    prior_losses,
    reconstruction_losses,
    stratified_standard_error,
)
from noiselaw.train.distributed import ALONE, Ranks
from noiselaw.train.objective import DiffusionObjective, NoisyBatch, Objective
from noiselaw.train.parallel import reshard
from noiselaw.train.step import HeadSettings, Precision

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
        self,
        objective: Objective,
        split: AnySplit,
        sequence_length: int,
        spec: ValidationSpec,
        batch_sequences: int,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        available = split.num_sequences(sequence_length)
        if available < spec.num_sequences:
            raise ValueError(
                f"validation.num_sequences is {spec.num_sequences} but the validation split holds only {available} "
                f"sequences of {sequence_length} tokens; lower it or prepare more validation text"
            )
        indices = torch.linspace(0, available - 1, spec.num_sequences).long().numpy()
        self._texts = Texts(torch.from_numpy(split.sequences(indices, sequence_length)))
        self._objective = objective
        self._rows, self._ranks = batch_sequences, ranks
        self._generator = step_generator(VALIDATION_SEED, 0, "validation")
        self._batches, self._order = self._fixed_draws(spec.draws)

    def _fixed_draws(self, draws: int) -> tuple[list[NoisyBatch], Tensor]:
        """The corrupted sequences, and the sequences sorted by noise level."""
        objective, tokens = self._objective, self._texts.tokens
        if not isinstance(objective, DiffusionObjective):
            return [objective.training_batch(tokens, self._generator)], torch.arange(len(tokens))
        num = len(tokens)
        stratum = torch.randperm(num, generator=self._generator)
        within = torch.rand(num, generator=self._generator, dtype=torch.float64)
        offset = (stratum + within) / num
        batches = []
        for draw in range(draws):
            # One level per sequence and draw; a sequence's levels are 1/draws apart, all of them evenly spread.
            levels = square_root_levels(objective.process, (offset + draw) / draws)
            batches.append(noised(objective, self._texts, levels, self._generator))
        return batches, torch.argsort(offset)

    @torch.no_grad()
    def estimate(self, model: Transformer, precision: Precision, head: HeadSettings) -> BoundEstimate:
        """The bound of `model` on the held-out sequences, in nats per token, with its standard error.

        Of several ranks each computes its share of the sequences, and all get the same estimate.
        """
        model.eval()
        length = self._texts.tokens.shape[1]
        forward = Forward(model, precision, head, self._rows, self._ranks)
        sums = [batch_losses(forward, self._objective, part) for part in self._batches]
        per_sequence = torch.stack(sums).mean(0) / length
        reconstruction, prior = self._end_terms(forward)
        reshard(model)
        model.train()
        diffusion = float(per_sequence.mean())
        return BoundEstimate(
            loss=diffusion + reconstruction + prior,
            standard_error=float(stratified_standard_error(per_sequence[self._order])),
            diffusion=diffusion,
            reconstruction=reconstruction,
            prior=prior,
        )

    def _end_terms(self, forward: Forward) -> tuple[float, float]:
        """Reconstruction at the highest log-SNR and prior at the lowest, nats per token (0 for the autoregressive).

        A quarter of the sequences is enough for the reconstruction, which varies little.
        """
        objective, texts = self._objective, self._texts
        if not isinstance(objective, DiffusionObjective):
            return 0.0, 0.0
        few = texts.rows(slice(max(1, len(texts.tokens) // 4)))
        generator = step_generator(VALIDATION_SEED, 0, "reconstruction")
        losses = reconstruction_losses(forward, objective, few, generator)
        length = texts.tokens.shape[1]
        return float(losses.mean()) / length, float(prior_losses(objective, texts).mean()) / length
