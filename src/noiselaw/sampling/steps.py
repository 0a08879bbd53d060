"""What a sampler tells those who watch it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling.filters import NO_FILTERS
from noiselaw.sampling.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """What the model makes of the tokens that stand there now, float64 [B, T]. Given tokens are certain."""

    support: Tensor
    """Probability of the token given all others, x_θ(z): the leave-one-out prediction (docs/theory.md eq. 14)."""
    noise: Tensor
    """Probability that the clean token is another one, given everything, this token included (eq. 15)."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The texts after a step, or before the first (index 0). Tensors belong to the watcher."""

    index: int
    num_steps: int
    """Steps planned in all; a sampler that has nothing left to improve stops before."""
    tokens: Tensor
    """Ids, int64 [B, T]."""
    changed: Tensor
    """What this step rewrote, bool [B, T]."""
    log_snr: float
    """Noise level the texts stand at now; +inf is clean."""
    beliefs: Callable[[], Beliefs]
    """Computed when called, and only before the sampler goes on: a look costs a run of the head over all blanks."""


Observer = Callable[[Step], None]
"""Called before the first step and after every step."""


class Watch:
    """Tells an observer of every step; without one it does nothing."""

    def __init__(
        self, observe: Observer | None, process: NoiseProcess, predictions: Predictions, blank: Tensor, num_steps: int
    ) -> None:
        self._observe, self._process, self._predictions = observe, process, predictions
        self._blank, self._num_steps = blank, num_steps
        self._index, self._before = -1, torch.empty(0)

    def step(self, tokens: Tensor, log_snr: float) -> None:
        """The texts [B, T] after a step, or at the start, and the noise level they stand at now."""
        if self._observe is None:
            return
        self._index += 1
        changed = self._blank & (tokens != self._before) if self._index else torch.zeros_like(self._blank)
        self._before = tokens
        self._observe(
            Step(
                index=self._index,
                num_steps=self._num_steps,
                tokens=tokens.clone(),
                changed=changed,
                log_snr=log_snr,
                beliefs=lambda: self._beliefs(tokens, log_snr),
            )
        )

    def _beliefs(self, tokens: Tensor, log_snr: float) -> Beliefs:
        written = self._blank & (tokens != self._process.mixing.mask_id)
        self._predictions.look(tokens, log_snr)
        support = self._predictions.statistics(written, NO_FILTERS).present
        level = torch.tensor(log_snr, dtype=torch.float64, device=tokens.device)
        noise = 1.0 - self._process.belief_at(tokens, support, level.expand(tokens.shape))
        support = support.masked_fill(~self._blank, 1.0)
        return Beliefs(support, noise.masked_fill(~self._blank, 0.0))
