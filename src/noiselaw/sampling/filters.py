"""Which of the predicted tokens may be drawn, and the draw itself.

Shapes: n tokens, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NUCLEUS_CANDIDATES = 256
"""How many of the most probable tokens are sorted first; hardly any nucleus is larger."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Sharpens or cuts a prediction before it is used, in this order. Raises ValueError for impossible settings.

    An ancestral sampler uses the filtered prediction throughout, in the draw and in the law of what changes.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 leaves the most probable token alone."""
    top_k: int | None = None
    """Only the k most probable tokens."""
    top_p: float | None = None
    """Only the most probable tokens that together have this probability: the nucleus."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise ValueError(f"temperature {self.temperature} is no number from 0 up; 1 leaves the model as it is")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} leaves no token; give at least 1")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p {self.top_p} is no probability above 0; 1 leaves every token")
        if self.temperature == 0.0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError("temperature 0 takes the most probable token: top_k and top_p have no effect; drop them")

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [n, V] with -inf at tokens left out; not normalised."""
        if self.temperature == 0.0:
            best = logits.argmax(-1, keepdim=True)
            return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -math.inf)
        if self.top_p is not None and self.top_p < 1.0:
            logits = logits.masked_fill(logits < _nucleus_edge(logits, self.top_p), -math.inf)
        return logits


NO_FILTERS = Filters()
GREEDY = Filters(temperature=0.0)


def _nucleus_edge(logits: Tensor, mass: float) -> Tensor:
    """The smallest logit of each row's nucleus, [n, 1]: the fewest best tokens with at least that probability."""
    num_candidates = NUCLEUS_CANDIDATES
    total = logits.logsumexp(-1, keepdim=True)
    while True:
        best = logits.topk(min(num_candidates, logits.shape[-1])).values
        inside = (best - total).exp().cumsum(-1)
        if num_candidates >= logits.shape[-1] or bool((inside[:, -1] >= mass).all()):
            break
        num_candidates *= 8
    # Rounding can leave the sum over all tokens just below the mass: then all belong.
    last = (inside < mass).sum(-1, keepdim=True).clamp(max=best.shape[-1] - 1)
    return best.gather(-1, last)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Ids [n] drawn from softmax(logits) [n, V] by inverting its distribution function at `uniform` [n] in [0, 1).

    Sums in float64: in float32 the tail of a large vocabulary would be drawn in steps of 6e-8. One draw is a function
    of one number, so it does not depend on what else is computed beside it.
    """
    weights = (logits - logits.amax(-1, keepdim=True)).double().exp()
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding up to the total would step past the last possible token.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
