"""The baseline: one token after the other, each from those before it, with keys and values kept.

Shapes: B texts, T positions, V vocabulary.
"""

import math

import torch
from torch import Tensor

from noiselaw.model.attention import Attention
from noiselaw.model.transformer import Transformer
from noiselaw.sampling.canvas import Canvas
from noiselaw.sampling.filters import NO_FILTERS, Filters, draw
from noiselaw.sampling.steps import Beliefs, Observer, Step


@torch.no_grad()
def autoregressive(
    model: Transformer,
    canvas: Canvas,
    *,
    start_id: int,
    mask_id: int,
    stop_id: int | None = None,
    filters: Filters = NO_FILTERS,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Continue the prompts of `canvas`: ids [B, T], exactly the model's law where there are no filters.

    The model sees `start_id` (end of text) first, as in training, and never predicts `mask_id`, which marks positions
    not yet written. A text with `stop_id` ends there: what would follow is `stop_id` too.

    Raises ValueError where something is given behind a blank: the model sees only what comes before.
    """
    if not canvas.is_continuation:
        raise ValueError(
            "an autoregressive model cannot infill: it sees only what comes before; use a model of masked or hybrid "
            "noise"
        )
    writer = _Writer(model, canvas, start_id, mask_id)
    num_steps = int((canvas.ends - canvas.prompt_lengths).max())
    writer.tell(observe, 0, num_steps)
    for step in range(num_steps):
        logits = writer.next_logits()
        uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64, device=logits.device)
        writer.write(logits, draw(filters.apply(logits), uniform), stop_id)
        writer.tell(observe, step + 1, num_steps)
        if bool((writer.position >= writer.ends).all()):
            break
    return writer.tokens


class _Writer:
    """Texts as far as they are written, and the cache of what the model has read. All texts advance together."""

    def __init__(self, model: Transformer, canvas: Canvas, start_id: int, mask_id: int) -> None:
        self.tokens = torch.where(canvas.blank, mask_id, canvas.tokens)
        self.position, self.ends = canvas.prompt_lengths.clone(), canvas.ends.clone()
        self._model, self._canvas, self._start_id, self._mask_id = model, canvas, start_id, mask_id
        self._cache = model.new_cache(len(self.tokens), canvas.num_positions)
        self._rows = torch.arange(len(self.tokens), device=self.tokens.device)
        self._support = torch.ones(self.tokens.shape, dtype=torch.float64, device=self.tokens.device)
        self._changed = torch.zeros_like(canvas.given)
        self._num_read = 0

    def next_logits(self) -> Tensor:
        """Logits [B, V] of each text's next token. Input position p holds token p - 1 and predicts token p."""
        position = self.position.clamp(max=self.tokens.shape[1] - 1)  # texts that ended read on, unheard
        if self._num_read == 0:
            self._num_read = int(position.max()) + 1
            start = torch.full_like(self.tokens[:, :1], self._start_id)
            ids = torch.cat([start, self.tokens[:, : self._num_read - 1]], dim=1)
            at = torch.arange(self._num_read, device=ids.device)
            hidden = self._model(ids, Attention.causal(), at, self._cache.first(self._num_read))[self._rows, position]
        else:
            self._num_read = min(self._num_read + 1, self.tokens.shape[1])
            ids, at = self.tokens[self._rows, position - 1][:, None], position[:, None]
            hidden = self._model(ids, Attention.causal(), at, self._cache.first(self._num_read))[:, 0]
        logits = self._model.logits(hidden)
        logits[:, self._mask_id] = -math.inf
        return logits

    def write(self, logits: Tensor, drawn: Tensor, stop_id: int | None) -> None:
        """Put `drawn` [B], predicted with `logits` [B, V], at the next position of the texts that go on."""
        before = self.tokens
        open_rows = self._rows[self.position < self.ends]
        at = self.position[open_rows]
        self.tokens = before.clone()
        self.tokens[open_rows, at] = drawn[open_rows]
        chance = logits.double().softmax(-1).gather(1, drawn[:, None]).squeeze(1)
        self._support[open_rows, at] = chance[open_rows]
        self.position = self.position + 1
        if stop_id is not None:
            stopped = (drawn == stop_id) & (self.position <= self.ends)
            self.ends = torch.where(stopped, self.position, self.ends)
            beyond = torch.arange(self.tokens.shape[1], device=at.device) >= self.ends[:, None]
            self.tokens = torch.where(beyond & self._canvas.blank, stop_id, self.tokens)
        self._changed = self.tokens != before

    def tell(self, observe: Observer | None, index: int, num_steps: int) -> None:
        """Show the texts: what is written is certain, and its support is the probability it was drawn with."""
        if observe is not None:
            beliefs = Beliefs(self._support.clone(), torch.zeros_like(self._support))
            observe(Step(index, num_steps, self.tokens.clone(), self._changed, math.inf, lambda: beliefs))
