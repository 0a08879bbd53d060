"""The vocabulary head and the loss as one operation that never holds all logits.

Tokens pass in chunks: one product gives a chunk's logits, the element-wise part turns them in place into the gradient
by the logits, and two more products send that gradient on to the hidden states and the head. Forward and gradient are
one pass, so that no logits are kept or computed twice. Matrices keep the dtype of `hidden` (float32, float64 or
bfloat16); softmax, sums and the accumulated gradient of the head are float32, or float64 where `hidden` is. The
element-wise part is one of the kernels of `kernels.py`.

Shapes: N tokens, n of them that carry loss, C tokens of one chunk, V vocabulary, d width.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from noiselaw.head.closedform import TokenLosses
from noiselaw.head.kernels import build_kernel
from noiselaw.head.targets import HeadLoss, TokenTargets, statistics_dtype
from noiselaw.specs import HeadKernel

CHUNK_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Logits of one chunk by default: enough tokens that reading the head again for each chunk costs next to nothing."""

PRODUCT_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
"""Of the gradient by the head, formed at a time where it must be widened before it is added up: what stays in a CPU's
cache, and 128 MiB of a GPU's memory."""


def default_chunk_tokens(vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens of a chunk whose logits in `dtype` take CHUNK_BYTES."""
    return max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (vocab_size * dtype.itemsize))


def vocabulary_loss(
    hidden: Tensor,
    weight: Tensor,
    multiplier: float,
    targets: TokenTargets,
    chunk_tokens: int,
    *,
    kernel: HeadKernel = "auto",
) -> HeadLoss:
    """Loss of logits = multiplier * hidden @ weight.T against `targets`, for `hidden` [N, d] and `weight` [V, d]: nats.

    Per token w_λ(z, x) (KL + IS) of the bound (spec section 3) by its closed form (section 11), or without a mixing the
    cross-entropy; the mask is never predicted. `loss` is their sum weighted by `targets.weight`, differentiable once by
    `hidden` and `weight`; where gradients are off, or neither asks for one, only the loss is computed. Tokens without
    loss never go through the head, and at most `chunk_tokens` * V logits are alive at a time.

    Raises HeadKernelError where `kernel` is native and this machine has none for the device of `hidden`.
    """
    assert chunk_tokens > 0, f"chunk_tokens must be positive, got {chunk_tokens}"
    num_tokens = len(targets.clean)
    assert hidden.shape == (num_tokens, weight.shape[1]), (
        f"hidden {tuple(hidden.shape)} does not fit targets and weight"
    )
    # Inside an autograd function it is too late to ask whether gradients are on.
    gradients = torch.is_grad_enabled()
    index = targets.live_tokens()
    is_all = len(index) == num_tokens
    plan = _Plan(
        multiplier=multiplier,
        targets=targets if is_all else targets.at(index),
        chunk_tokens=chunk_tokens,
        kernel=kernel,
        by_hidden=gradients and hidden.requires_grad,
        by_weight=gradients and weight.requires_grad,
    )
    if is_all:
        return HeadLoss(*_ChunkedLoss.apply(hidden, weight, plan))
    loss, *parts = _ChunkedLoss.apply(hidden.index_select(0, index), weight, plan)
    return HeadLoss(loss, *(part.new_zeros(num_tokens).index_copy(0, index, part) for part in parts))


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What to do with the two matrices, for tokens that all go through the head."""

    multiplier: float
    targets: TokenTargets
    chunk_tokens: int
    kernel: HeadKernel
    by_hidden: bool
    """Whether the gradient by the hidden states is wanted."""
    by_weight: bool
    """Whether the gradient by the head is wanted."""


class _ChunkedLoss(torch.autograd.Function):
    """The gradients are ready when forward ends; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            losses, grad_hidden, grad_weight = _run_chunks(hidden, weight.to(hidden.dtype), plan)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.grad_dtype if weight.is_leaf else weight.dtype
        dtype = statistics_dtype(hidden)
        loss = (plan.targets.weight * losses.integrand).sum().to(dtype)
        parts = tuple(part.to(dtype) for part in (losses.kl, losses.itakura_saito, losses.integrand))
        ctx.mark_non_differentiable(*parts)
        return loss, *parts

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        grad_loss, *_ = grad_outputs
        # A second gradient of the head would be the largest tensor of all: only a graph that is kept needs its own.
        keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph()  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]
        scale = torch.mul if keeps_graph else Tensor.mul_
        grad_hidden, grad_weight = (None if grad is None else scale(grad, grad_loss) for grad in ctx.saved_tensors)
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight_dtype), None


def _run_chunks(hidden: Tensor, weight: Tensor, plan: _Plan) -> tuple[TokenLosses, Tensor | None, Tensor | None]:
    """The losses of every token, and those wanted of the gradients of the weighted loss by `hidden` and `weight`."""
    logits = hidden.new_empty(min(plan.chunk_tokens, len(hidden)), len(weight))
    wants_gradient = plan.by_hidden or plan.by_weight
    kernel = build_kernel(plan.kernel, plan.targets, plan.multiplier, logits, wants_gradient=wants_gradient)
    grad_hidden = torch.empty_like(hidden) if plan.by_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=statistics_dtype(hidden)) if plan.by_weight else None
    # One empty chunk where no token is live, so that the gradients are zero and not missing.
    for start in range(0, max(len(hidden), 1), plan.chunk_tokens):
        rows = slice(start, start + plan.chunk_tokens)
        chunk = hidden[rows]
        gradient = logits[: len(chunk)]
        _multiply(chunk, weight, plan.multiplier, gradient)
        kernel.process(gradient, rows)
        if grad_hidden is not None:
            torch.mm(gradient, weight, out=grad_hidden[rows])
        if grad_weight is not None:
            _add_product(grad_weight, gradient, chunk)
    return kernel.losses(), grad_hidden, grad_weight


def _multiply(chunk: Tensor, weight: Tensor, multiplier: float, logits: Tensor) -> None:
    """Write multiplier * chunk @ weight.T, for `chunk` [C, d] and `weight` [V, d], into `logits` [C, V].

    A power of two, as at widths 256 to 2048, goes into the small matrix, which rounds nothing: in bfloat16 on a CPU a
    product with a factor takes twice as long as one without (docs/performance.md).
    """
    if math.frexp(multiplier)[0] == 0.5:
        torch.mm(chunk * multiplier, weight.T, out=logits)
    else:
        torch.addmm(logits, chunk, weight.T, beta=0, alpha=multiplier, out=logits)


def _add_product(total: Tensor, gradient: Tensor, chunk: Tensor) -> None:
    """Add gradient.T @ chunk, for `gradient` [C, V] and `chunk` [C, d], to `total` [V, d].

    A product of lower precision than `total` is rounded once per chunk, the running sum never; it is made for some of
    the vocabulary at a time, so that it stays in a CPU's cache until it is added, and takes little memory on a GPU.
    """
    if total.dtype == gradient.dtype:
        total.addmm_(gradient.T, chunk)
        return
    num_rows = max(1, PRODUCT_ELEMENTS.get(total.device.type, PRODUCT_ELEMENTS["cpu"]) // total.shape[1])
    for rows, columns in zip(total.split(num_rows), gradient.split(num_rows, dim=1), strict=True):
        rows.add_(columns.T @ chunk)
