"""Attention structures as values, and the one function that attends.

A structure says which keys a query may see; it knows nothing of heads or weights, so the same value serves every layer
of a forward pass. The attention sink, one learned key and value per head that every query sees whatever the structure,
enters as an extra first key.

Shapes: B batch, T queries, S keys (T, or T + 1 with a sink; with a cache all positions there are), H heads, D head
dimension.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Attention:
    """Which keys each query may see. Build one with `full`, `causal`, `prompt`, `keys` or `matrix`."""

    kind: Literal["full", "causal", "prompt", "keys", "matrix"]
    values: Tensor | None = None
    """prompt: lengths [B]; keys: booleans [B, T]; matrix: booleans [B, T, T] (query, key). True = may be seen."""
    ends: Tensor | None = None
    """Positions from ends[b] on do not exist in sequence b: nobody sees them, whatever the kind. [B]."""

    @classmethod
    def full(cls) -> "Attention":
        """Every query sees every key."""
        return cls("full")

    @classmethod
    def causal(cls) -> "Attention":
        """A query sees the keys up to its own position."""
        return cls("causal")

    @classmethod
    def prompt(cls, lengths: Tensor) -> "Attention":
        """The first `lengths[b]` tokens of sequence b see only each other; the rest see everything (spec section 4).

        A batch without any prompt is `full()`, which needs no mask. That is noticed for lengths on the CPU only: asking
        a device would stall it.
        """
        if lengths.device.type == "cpu" and not lengths.any():
            return cls.full()
        return cls("prompt", lengths)

    @classmethod
    def keys(cls, mask: Tensor) -> "Attention":
        """Every query sees the keys where `mask` [B, T] is true (for example: all but padding)."""
        return cls("keys", mask)

    @classmethod
    def matrix(cls, mask: Tensor) -> "Attention":
        """Query t sees key s where `mask[b, t, s]` is true."""
        return cls("matrix", mask)

    def until(self, ends: Tensor) -> "Attention":
        """The same structure for sequences of different lengths: nobody sees positions from `ends[b]` on."""
        return replace(self, ends=ends)

    def rows(self, index: Tensor) -> "Attention":
        """The structure of the sequences at `index` [n]."""
        values, ends = (None if part is None else part[index] for part in (self.values, self.ends))
        return Attention(self.kind, values, ends)

    def to(self, device: torch.device) -> "Attention":
        """The structure on another device."""
        values, ends = (None if part is None else part.to(device) for part in (self.values, self.ends))
        return Attention(self.kind, values, ends)

    def mask(self, num_keys: int, device: torch.device, queries: Tensor | None = None) -> Tensor | None:
        """The structure as booleans, broadcastable to [B, H, T, S]; None where every query sees every key.

        `queries` [T] or [B, T] are the positions that ask; where not given, all positions do.
        """
        key = torch.arange(num_keys, device=device)
        query = (key if queries is None else queries)[..., :, None]
        seen = self._seen(query, key)
        if self.ends is not None:
            exists = key < self.ends[:, None, None]
            seen = exists if seen is None else seen & exists
        return None if seen is None else seen.unsqueeze(-3)

    def _seen(self, query: Tensor, key: Tensor) -> Tensor | None:
        """Who sees whom if all exist, [T, S] or [B, T or 1, S]: `query` [T, 1] or [B, T, 1], `key` [S]."""
        match self.kind, self.values:
            case "causal", None:
                return query >= key
            case "prompt", Tensor() as lengths:
                length = lengths[:, None, None]
                return (query >= length) | (key < length)
            case "keys", Tensor() as mask:
                return mask[:, None, :]
            case "matrix", Tensor() as mask:
                return mask.take_along_dim(query.expand(len(mask), -1, -1), dim=1)
        return None

    def additive(self, num_keys: int, *, sink: bool, like: Tensor, queries: Tensor | None = None) -> Tensor | None:
        """What to add to attention scores: 0 where a key may be seen, -inf where not; [B or 1, 1, T or 1, S].

        Made once per forward pass and shared by all layers. `sink` puts a column that is always seen in front.
        """
        seen = self.mask(num_keys, like.device, queries)
        if seen is None:
            return None
        if sink:
            seen = functional.pad(seen, (1, 0), value=True)
        kind = like.device.type
        # What attention is computed in: else every layer would convert it anew.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=like.device).masked_fill_(~seen, -torch.inf)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, soft_cap: float | None) -> Tensor:
    """softmax(query key^T / sqrt(D) + bias) value; scores x become soft_cap tanh(x / soft_cap) where a cap is given.

    query [B, H, T, D], key and value [B, H, S, D], bias broadcastable to [B, H, T, S] -> [B, H, T, D].
    """
    if soft_cap is None and not _two_products_are_faster(query, key):
        return functional.scaled_dot_product_attention(query, key, value, bias)
    # No library kernel caps scores. They stay in float32 under autocast: near the cap bfloat16 is 0.125 coarse.
    with torch.autocast(query.device.type, enabled=False):
        scores = query * query.shape[-1] ** -0.5 @ key.mT
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        if bias is not None:
            scores = scores + bias
        # As in the library's kernel a query that may see no key at all gets zeros, not NaN.
        return torch.ops.aten._safe_softmax(scores, -1) @ value.to(scores.dtype)  # noqa: SLF001


MOST_KEYS_AT_ONCE = 257
"""Keys, the sink included, up to which all scores are formed at once where that is faster."""


def _two_products_are_faster(query: Tensor, key: Tensor) -> bool:
    """Whether two batched products beat the library's kernel: with oneDNN on a CPU, for short sequences in float32.

    That kernel makes one small product per head, sequence and tile, and oneDNN takes 13 times as long as torch over
    those at 24 keys, still twice at 128; two products for all of them take 0.4 to 0.9 of torch's time (docs/log.md).
    Compiled code always takes the library's kernel: it would keep what it saw of the switch when it was compiled.
    """
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and key.shape[2] <= MOST_KEYS_AT_ONCE
        and not torch.compiler.is_compiling()
        and _onednn_multiplies_float32()
    )


def _onednn_multiplies_float32() -> bool:
    """Whether the switch that hands float32 products to oneDNN is set."""
    return torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # pyright: ignore[reportAttributeAccessIssue]
