"""What the denoiser says of the texts as they are: computed when asked, kept until a text changes.

Only texts that changed run through the denoiser, only positions that are asked for through the head, and never more
than a chunk of logits is alive. Shapes: B texts, T positions, V vocabulary, n positions asked for.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.model.attention import Attention
from noiselaw.noise.mixing import Mixing
from noiselaw.sampling.denoiser import Denoiser
from noiselaw.sampling.filters import Filters, draw

MAX_LOGITS = 2**26
"""Logits alive at one time. Few large chunks: each one reads the whole weight of the head."""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Numbers of the (filtered) prediction at the positions asked for, 0 elsewhere: float64 [B, T]."""

    present: Tensor
    """Probability of the present token."""
    best: Tensor
    """Probability of the most probable token."""


class Predictions:
    """The denoiser's view of one batch of texts."""

    def __init__(self, denoiser: Denoiser, attention: Attention, mixing: Mixing, tokens: Tensor) -> None:
        self._denoiser, self._attention, self._mixing = denoiser, attention, mixing
        self._tokens, self._log_snr = tokens, math.nan
        self._hidden: Tensor | None = None
        self._stale = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        self._statistics: dict[Filters, tuple[Statistics, Tensor]] = {}

    def look(self, tokens: Tensor, log_snr: float) -> None:
        """Take the texts [B, T] as they are now: what was known of those that changed is forgotten."""
        changed = (tokens != self._tokens).any(1)
        if self._denoiser.sees_noise_level and log_snr != self._log_snr:
            changed = torch.ones_like(changed)
        self._tokens, self._log_snr = tokens, log_snr
        self._stale |= changed
        for _, known in self._statistics.values():
            known.masked_fill_(changed[:, None], False)

    def run(self, rows: Tensor) -> None:
        """Run those of the texts `rows` [B] that changed through the denoiser, in one call."""
        todo = rows & self._stale
        index = todo.nonzero().squeeze(1)
        if len(index) == len(todo):
            self._hidden = self._denoiser.hidden(self._tokens, self._attention, self._log_snr)
        elif len(index):
            denoiser, attention = self._denoiser.select(index), self._attention.rows(index)
            part = denoiser.hidden(self._tokens[index], attention, self._log_snr)
            if self._hidden is None:
                self._hidden = part.new_zeros(len(todo), *part.shape[1:])
            self._hidden[index] = part
        self._stale &= ~todo

    def statistics(self, where: Tensor, filters: Filters) -> Statistics:
        """Probabilities at `where` [B, T] of the prediction filtered."""
        if filters not in self._statistics:
            zeros = torch.zeros(2, *where.shape, dtype=torch.float64, device=where.device)
            self._statistics[filters] = Statistics(zeros[0], zeros[1]), torch.zeros_like(where)
        values, known = self._statistics[filters]
        for rows, columns, logits in self._logits(where & ~known):
            ids = self._tokens[rows, columns]
            values.present[rows, columns], values.best[rows, columns] = _probabilities(filters.apply(logits), ids)
        known |= where
        return Statistics(torch.where(where, values.present, 0.0), torch.where(where, values.best, 0.0))

    def draw(self, where: Tensor, filters: Filters, uniform: Tensor) -> Tensor:
        """Draw from the filtered prediction at `where` [B, T], by `uniform` [B, T]; the present tokens elsewhere."""
        drawn = self._tokens.clone()
        for rows, columns, logits in self._logits(where):
            drawn[rows, columns] = draw(filters.apply(logits), uniform[rows, columns])
        return drawn

    def _logits(self, where: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(rows [n], columns [n], logits [n, V] without the mask) in chunks over the positions `where` [B, T]."""
        index = where.nonzero()
        if not len(index):
            return
        self.run(where.any(1))
        assert self._hidden is not None
        for rows, columns in (chunk.unbind(1) for chunk in index.split(max(1, MAX_LOGITS // self._mixing.vocab_size))):
            logits = self._denoiser.logits(self._hidden[rows, columns])
            logits[:, self._mixing.mask_id] = -math.inf
            yield rows, columns, logits


def _probabilities(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax at `ids` [n] and at its peak from logits [n, V]: float64 [n] each."""
    peak = logits.amax(-1, keepdim=True)
    total = (logits - peak).exp_().sum(-1)
    present = (logits.gather(-1, ids[:, None]) - peak).squeeze(-1).exp()
    return present.double() / total.double(), 1.0 / total.double()
