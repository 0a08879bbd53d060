"""The vocabulary head and the loss as one operation that never holds all logits.

Tokens pass in chunks: one product gives a chunk's logits, the element-wise part turns them in place into exponentials,
four sums per token and then the gradient by the logits, and two more products send that gradient on to the hidden
states and the head. Forward and gradient are one pass, so that no logits are kept or computed twice. Matrices keep the
dtype of `hidden` (float32, float64 or bfloat16); softmax, sums and the accumulated gradient of the head are float32, or
float64 where `hidden` is. The element-wise part is two functions, `_sum_over_vocabulary` and `_gradient_by_logits`.

Shapes: N tokens, n of them that carry loss, C tokens of one chunk, V vocabulary, d width.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from noiselaw.head.closedform import (
    LogitGradient,
    SwapSums,
    TokenLevels,
    VocabularySums,
    logit_gradient,
    token_levels,
    token_losses,
)
from noiselaw.head.targets import HeadLoss, TokenTargets
from noiselaw.noise.mixing import HybridMixing

MAX_LOG_RATIO = {torch.float32: 80.0, torch.float64: 700.0}
"""Largest logarithm of a product of ratios t that is formed; float32 ends at e^88, float64 at e^709."""

MIN_EXPONENT = {torch.float32: -87.0, torch.float64: -708.0}
"""Where e^x is still a normal number."""


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, multiplier: float, targets: TokenTargets, chunk_tokens: int
) -> HeadLoss:
    """Loss of logits = multiplier * hidden @ weight.T against `targets`, for `hidden` [N, d] and `weight` [V, d]: nats.

    Per token w_λ(z, x) (KL + IS) of the bound (spec section 3) by its closed form (section 11), or without a mixing the
    cross-entropy; the mask is never predicted. `loss` is their sum weighted by `targets.weight`, differentiable once by
    `hidden` and `weight`; where gradients are off, or neither asks for one, only the loss is computed. Tokens without
    loss never go through the head, and at most `chunk_tokens` * V logits are alive at a time.
    """
    assert chunk_tokens > 0, f"chunk_tokens must be positive, got {chunk_tokens}"
    num_tokens = len(targets.clean)
    assert hidden.shape == (num_tokens, weight.shape[1]), (
        f"hidden {tuple(hidden.shape)} does not fit targets and weight"
    )
    index = targets.live_tokens()
    if len(index) == num_tokens:
        return HeadLoss(*_live_loss(hidden, weight, multiplier, targets, chunk_tokens))
    live = hidden.index_select(0, index)
    loss, *parts = _live_loss(live, weight, multiplier, targets.at(index), chunk_tokens)
    return HeadLoss(loss, *(part.new_zeros(num_tokens).index_copy(0, index, part) for part in parts))


def _live_loss(
    hidden: Tensor, weight: Tensor, multiplier: float, targets: TokenTargets, chunk_tokens: int
) -> tuple[Tensor, ...]:
    """The four parts of HeadLoss for tokens [n] that all go through the head."""
    # Inside an autograd function it is too late to ask whether gradients are on.
    gradients = torch.is_grad_enabled()
    plan = _Plan(
        multiplier=multiplier,
        targets=targets,
        chunk_tokens=chunk_tokens,
        by_hidden=gradients and hidden.requires_grad,
        by_weight=gradients and weight.requires_grad,
    )
    return _ChunkedLoss.apply(hidden, weight, plan)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What to do with the two matrices."""

    multiplier: float
    targets: TokenTargets
    chunk_tokens: int
    by_hidden: bool
    """Whether the gradient by the hidden states is wanted."""
    by_weight: bool
    """Whether the gradient by the head is wanted."""


class _ChunkedLoss(torch.autograd.Function):
    """The gradients are ready when forward ends; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        levels = token_levels(plan.targets)
        with torch.autocast(hidden.device.type, enabled=False):
            sums, grad_hidden, grad_weight = _run_chunks(hidden, weight.to(hidden.dtype), plan, levels)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        losses, dtype = token_losses(levels, sums), _statistics_dtype(hidden)
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
        grad_hidden, grad_weight = ctx.saved_tensors
        by_hidden = None if grad_hidden is None else grad_hidden * grad_loss.to(grad_hidden.dtype)
        by_weight = None if grad_weight is None else (grad_weight * grad_loss).to(ctx.weight_dtype)
        return by_hidden, by_weight, None


def _statistics_dtype(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _run_chunks(
    hidden: Tensor, weight: Tensor, plan: _Plan, levels: TokenLevels
) -> tuple[VocabularySums, Tensor | None, Tensor | None]:
    """The sums of every token, and those wanted of the gradients of the weighted loss by `hidden` and `weight`."""
    targets, chunk_tokens, statistics = plan.targets, plan.chunk_tokens, _statistics_dtype(hidden)
    workspace = _Workspace.allocate(hidden, min(chunk_tokens, len(hidden)), len(weight), targets.mixing)
    reference = _Reference.of(targets.mixing, hidden.device, statistics)
    grad_hidden = torch.empty_like(hidden) if plan.by_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=statistics) if plan.by_weight else None
    collected = []
    # One empty chunk where no token is live, so that the gradients are zero and not missing.
    for start in range(0, max(len(hidden), 1), chunk_tokens):
        rows = slice(start, start + chunk_tokens)
        chunk, here, level = hidden[rows], targets.at(rows), levels.rows(rows)
        space = workspace.rows(len(chunk))
        torch.addmm(space.logits, chunk, weight.T, beta=0, alpha=plan.multiplier, out=space.logits)
        sums, scales = _sum_over_vocabulary(space, here, level, reference)
        collected.append(sums)
        if grad_hidden is None and grad_weight is None:
            continue
        rates = logit_gradient(level, sums, here.weight.double() * plan.multiplier)
        gradient = _gradient_by_logits(space, here, rates, scales)
        if grad_hidden is not None:
            torch.mm(gradient, weight, out=grad_hidden[rows])
        if grad_weight is not None:
            _accumulate(grad_weight, gradient.T, chunk)
    return VocabularySums.concatenate(collected), grad_hidden, grad_weight


@dataclass(frozen=True, slots=True, eq=False)
class _Workspace:
    """Memory of one chunk, [C, V] each, used again by the next one."""

    logits: Tensor
    """The product, in the dtype of the matrices; at the end the gradient."""
    exps: Tensor
    """e^(logit - highest logit); the same memory as `logits` where their dtypes agree."""
    ratios: Tensor | None
    """Scratch for t and the gaps; none without swaps."""
    relative: Tensor | None
    """r; only where the reference is not uniform, else it is `exps`."""

    @staticmethod
    def allocate(hidden: Tensor, num_tokens: int, vocab_size: int, mixing: HybridMixing | None) -> "_Workspace":
        statistics = _statistics_dtype(hidden)
        logits = hidden.new_empty(num_tokens, vocab_size)
        exps = logits if hidden.dtype == statistics else torch.empty_like(logits, dtype=statistics)
        if mixing is None or mixing.is_masked:
            return _Workspace(logits, exps, None, None)
        relative = None if mixing.reference is None else torch.empty_like(exps)
        return _Workspace(logits, exps, torch.empty_like(exps), relative)

    def rows(self, num: int) -> "_Workspace":
        ratios, relative = (None if part is None else part[:num] for part in (self.ratios, self.relative))
        return _Workspace(self.logits[:num], self.exps[:num], ratios, relative)


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    """The reference distribution ρ as the sums over the vocabulary use it."""

    log_highest: float
    """Logarithm of the largest ρ_j."""
    max_log_ratio: float
    """Largest log t, at the largest logit and the largest ρ, for which no t overflows."""
    probs: Tensor | None = None
    """ρ [V], None for the uniform one."""
    rarity: Tensor | None = None
    """Largest ρ over ρ_j, [V], 0 at the mask; None for the uniform one."""

    @staticmethod
    def of(mixing: HybridMixing | None, device: torch.device, dtype: torch.dtype) -> "_Reference":
        limit = MAX_LOG_RATIO[dtype]
        if mixing is None or mixing.reference is None:
            # Halved because `mean_log1p` multiplies pairs.
            return _Reference(0.0 if mixing is None else -math.log(mixing.vocab_size - 1), limit / 2)
        exact = mixing.reference
        rarity = torch.where(exact > 0, exact.max() / exact, 0.0)
        max_log_ratio = limit - math.log(float(rarity.max()))
        parts = (part.to(device, dtype) for part in (exact, rarity))
        return _Reference(math.log(float(exact.max())), max_log_ratio, *parts)

    def mean_log1p(self, ratios: Tensor) -> Tensor:
        """Σ_j ρ_j log(1 + t_j) of `ratios` [C, V], which it consumes.

        Where all ρ_j are equal, pairs share a logarithm: (1 + a)(1 + b) = 1 + (a + b + ab), and no digit is lost
        because nothing is negative.
        """
        if self.probs is not None:
            return torch.mv(ratios.log1p_(), self.probs).double()
        half = ratios.shape[1] // 2
        left, right = ratios[:, :half], ratios[:, half:]
        right[:, :half].addcmul_(left, right[:, :half]).add_(left)
        return right.log1p_().sum(-1).double() * math.exp(self.log_highest)


@dataclass(frozen=True, slots=True, eq=False)
class _Scales:
    """What turns the contents of the workspace into probabilities and gaps: float64 [C]."""

    probs: Tensor
    """s_k over `exps`."""
    gaps: Tensor | None
    """s_k (G - g_k) over `ratios`; None without swaps."""


def _sum_over_vocabulary(
    space: _Workspace, targets: TokenTargets, levels: TokenLevels, reference: _Reference
) -> tuple[VocabularySums, _Scales]:
    """The four sums of each token. Turns the logits of `space` into exponentials, and its ratios into gaps."""
    logits, exps, ratios = space.logits, space.exps, space.ratios
    logits[:, targets.mask_id] = -math.inf
    highest = logits.amax(-1, keepdim=True)
    # In float64 before the difference: bfloat16 would round it again.
    at_clean = (logits.gather(1, targets.clean[:, None]).double() - highest).squeeze(1)
    at_noisy = (logits.gather(1, targets.noisy[:, None]).double() - highest).squeeze(1) if targets.has_swaps else None
    # Nothing is copied where both are one memory. Results below the smallest normal number, over which some vector
    # libraries spend 50 times as long, are kept out of exp; they are 0, and so is the mask's.
    lowest = MIN_EXPONENT[exps.dtype]
    exps.copy_(logits).sub_(highest).clamp_(min=lowest - 0.1).exp_()
    torch.threshold_(exps, math.exp(lowest), 0.0)
    total = exps.sum(-1).double()
    log_clean = at_clean - total.log()
    if ratios is None or levels.swaps is None or at_noisy is None:
        return VocabularySums(log_clean, None), _Scales(1.0 / total, None)
    log_ratio = levels.swaps.log_odds - reference.log_highest - total.log()
    top_ratio = log_ratio.clamp(max=reference.max_log_ratio).exp()
    relative = exps
    if space.relative is not None and reference.rarity is not None:
        rarity_at_top = reference.rarity[exps.argmax(-1)]
        relative = torch.mul(exps, reference.rarity, out=space.relative).div_(rarity_at_top[:, None])
        top_ratio = top_ratio * rarity_at_top.double()
    factor = top_ratio.to(exps.dtype)[:, None]
    mean_log_ratio = reference.mean_log1p(torch.mul(relative, factor, out=ratios))
    # Forming t twice is cheaper than memory for another [C, V]. Then e^(logit - highest) (1 - r) / (1 + t):
    torch.mul(relative, factor, out=ratios).add_(1.0)
    torch.div(exps, ratios, out=ratios)
    ratios.addcmul_(ratios, relative, value=-1.0)
    gaps = top_ratio / (1.0 + top_ratio) / total
    swaps = SwapSums(at_noisy - total.log(), mean_log_ratio, ratios.sum(-1).double() * gaps)
    return VocabularySums(log_clean, swaps), _Scales(1.0 / total, gaps)


def _gradient_by_logits(space: _Workspace, targets: TokenTargets, rates: LogitGradient, scales: _Scales) -> Tensor:
    """Gradient by the logits, [C, V], in the dtype of the matrices. Consumes `space`."""
    gradient = space.exps
    gradient.mul_((rates.centre * scales.probs).to(gradient.dtype)[:, None])
    if rates.swaps is not None:
        assert space.ratios is not None
        assert scales.gaps is not None
        gradient.addcmul_(space.ratios, (rates.swaps.spread * scales.gaps).to(gradient.dtype)[:, None], value=-1.0)
        gradient.scatter_add_(1, targets.noisy[:, None], rates.swaps.at_noisy.to(gradient.dtype)[:, None])
    gradient.scatter_add_(1, targets.clean[:, None], rates.at_clean.to(gradient.dtype)[:, None])
    return space.logits.copy_(gradient)


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`. A low-precision product is rounded once per chunk, the running sum never."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
