"""The whole architecture: a bidirectional pre-norm transformer that never sees the noise level (spec section 5).

Departures from the textbook, all of them the paper's:
- RMSNorm multiplies by (1 + g): its weight starts at zero.
- Queries and keys are RMS-normalised over the whole width, before the split into heads.
- Rotary positions; the first half of a head's dimensions turns with the second half.
- Attention sink: one learned key and value per head that every query sees, whatever the attention structure.
- Attention scores are soft-capped where the spec says so.
- MLP of width 4d with squared ReLU, with biases; no bias elsewhere.
- Every residual branch is multiplied by residual_scale / L, the logits by head_scale / d (CompleteP).
- Embedding and head are untied.

Parameter names equal those of the published checkpoints. Shapes: B batch, T positions, V vocabulary, d width, L layers,
H heads, D = d / H, S keys (T, or all positions of a cache; and one for the sink).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from noiselaw.accounting import MLP_RATIO
from noiselaw.model.attention import Attention, attend
from noiselaw.model.cache import KeyValueCache, LayerCache
from noiselaw.model.sharded import local
from noiselaw.specs import ModelSpec

Result = TypeVar("Result")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * (1 + weight) over the last dimension, in the weight's precision.

    Under autocast in float32: the weight is then float32, or a rounded copy of one.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        weight = local(self.weight)
        dtype = self.dtype(x.device)
        return functional.rms_norm(x.to(dtype), weight.shape, 1 + weight.to(dtype), self.epsilon)

    def dtype(self, device: torch.device) -> torch.dtype:
        """Precision of the norm and of its result."""
        return torch.float32 if torch.is_autocast_enabled(device.type) else self.weight.dtype


def rotary_tables(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of position * base^(-2i/D), each [..., T, 1, D], for `positions` [..., T].

    Both halves of D hold the same angles; the sine is negative in the first half (see `rotate`).
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[..., None, None] * base**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotary positions: turn the pairs (x_i, x_{i + D/2}) of `x` [B, T, H, D] by the angles of `rotary_tables`."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cos, swapped, signed_sin)


class SelfAttention(nn.Module):
    """Multi-head attention with whole-width q/k norms, rotary positions, and a sink."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width, self.heads = spec.width, (spec.num_heads, spec.width // spec.num_heads)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.q_norm = RMSNorm(width, spec.norm_epsilon)
        self.k_norm = RMSNorm(width, spec.norm_epsilon)
        self.soft_cap = spec.attention_soft_cap
        self.k_bias = nn.Parameter(torch.zeros(self.heads)) if spec.attention_sink else None
        self.v_bias = nn.Parameter(torch.zeros(self.heads)) if spec.attention_sink else None

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        bias: Tensor | None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """`x` [B, T, d], `rotary` from `rotary_tables`, `bias` from `Attention.additive` -> [B, T, d].

        With a cache the queries see its other positions too; their own keys and values are stored at `positions`.
        """
        query = rotate(self.q_norm(self.q_proj(x)).unflatten(-1, self.heads), *rotary)
        key = rotate(self.k_norm(self.k_proj(x)).unflatten(-1, self.heads), *rotary)
        value = self.v_proj(x).unflatten(-1, self.heads)
        if cache is None or positions is None:
            key, value = _with_sink(key, self.k_bias), _with_sink(value, self.v_bias)
        else:
            key, value = cache.store(key, value, positions)
        out = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), bias, self.soft_cap)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def new_cache(self, num_sequences: int, num_positions: int) -> LayerCache:
        """Room for the keys and values of that many tokens, with the sink in place."""
        shape = (num_sequences, num_positions, *self.heads)
        key, value = (linear.weight.new_zeros(shape) for linear in (self.k_proj, self.v_proj))
        num_sinks = 0 if self.k_bias is None else 1
        return LayerCache(_with_sink(key, self.k_bias), _with_sink(value, self.v_bias), num_sinks)


def _with_sink(x: Tensor, sink: Tensor | None) -> Tensor:
    """Put `sink` [H, D] before the first position of `x` [B, T, H, D]."""
    return x if sink is None else torch.cat([local(sink).expand(len(x), 1, -1, -1), x], dim=1)


class _SquaredReLU(torch.autograd.Function):
    """relu(x)^2, whose backward pass makes one temporary instead of autograd's three.

    These are the largest activations of a block: on a CPU it saves 2 to 4 % of a whole step at widths 64 to 128.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


class MLP(nn.Module):
    """down(relu(up(x))^2)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.up_proj = nn.Linear(spec.width, MLP_RATIO * spec.width, bias=spec.mlp_bias)
        self.down_proj = nn.Linear(MLP_RATIO * spec.width, spec.width, bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(_SquaredReLU.apply(self.up_proj(x)))


class Block(nn.Module):
    """x + m attention(norm(x)), then x + m mlp(norm(x)), with m = residual_scale / L."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attn_layernorm = RMSNorm(spec.width, spec.norm_epsilon)
        self.self_attn = SelfAttention(spec)
        self.mlp_layernorm = RMSNorm(spec.width, spec.norm_epsilon)
        self.mlp = MLP(spec)
        self.residual_multiplier = spec.residual_scale / spec.num_layers

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        bias: Tensor | None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        attended = self.self_attn(self.attn_layernorm(x), rotary, bias, cache, positions)
        x = torch.add(x, attended, alpha=self.residual_multiplier)
        return torch.add(x, self.mlp(self.mlp_layernorm(x)), alpha=self.residual_multiplier)


class Decoder(nn.Module):
    """Embedding, blocks and final norm: everything but the head."""

    def __init__(self, spec: ModelSpec, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, spec.width)
        self.layers = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.norm = RMSNorm(spec.width, spec.norm_epsilon)


class Head(nn.Linear):
    """The vocabulary head. Whoever needs its weight passes through `forward`, which is where a sharded one is whole."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (its plain product is one case of several)
        self, hidden: Tensor, operation: Callable[[Tensor, Tensor], Result] = functional.linear
    ) -> Result:
        """`operation(hidden [..., d], weight [V, d])`: the plain product, or one that never holds all logits."""
        return operation(hidden, self.weight)


class Transformer(nn.Module):
    """The paper's model: ids to hidden states; the head's weight and multiplier stand ready for the loss.

    `model(ids)` stops before the head, because the loss never needs all logits at once; `logits` is for small cases and
    sampling. Weights are as torch leaves them: call `noiselaw.model.init.initialise`.
    """

    def __init__(self, spec: ModelSpec, vocab_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.model = Decoder(spec, vocab_size)
        self.lm_head = Head(spec.width, vocab_size, bias=False)
        self.head_multiplier = spec.head_scale / spec.width

    def forward(
        self,
        ids: Tensor,
        attention: Attention | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Hidden states [B, T, d] after the final norm, for `ids` [B, T].

        `attention` is full where not given; `positions` [T] or [B, T] count from 0 where not given. With a `cache` the
        ids are those at `positions` of longer sequences whose other keys and values are in it, `attention` is that of
        the whole sequences, and the cache receives what is new: no gradients then.
        """
        attention = Attention.full() if attention is None else attention
        spec = self.spec
        x = self.model.embed_tokens(ids)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        rotary = rotary_tables(positions, spec.width // spec.num_heads, spec.rope_base, x.dtype)
        if cache is None:
            bias = attention.additive(ids.shape[1], sink=spec.attention_sink, like=x)
            for layer in self.model.layers:
                x = layer(x, rotary, bias)
        else:
            bias = attention.additive(cache.num_positions, sink=spec.attention_sink, like=x, queries=positions)
            for layer, kept in zip(self.model.layers, cache.layers, strict=True):
                x = layer(x, rotary, bias, kept, positions)
        return self.model.norm(x)

    def new_cache(self, num_sequences: int, num_positions: int) -> KeyValueCache:
        """An empty cache for sequences of that many tokens. Positions never stored must be hidden by the attention."""
        blocks = [module for module in self.model.layers if isinstance(module, Block)]
        return KeyValueCache(tuple(block.self_attn.new_cache(num_sequences, num_positions) for block in blocks))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of `hidden` [..., d]: head_scale / d times the head's product."""
        return self.lm_head(hidden) * self.head_multiplier
