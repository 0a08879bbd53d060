"""The two passes over a chunk's logits as Triton kernels, for a GPU; the closed forms between them stay in PyTorch.

One program takes one row for the sums: it reads the row for the largest logit and the sum of exponentials, and once
more for the sums that swaps need. The gradient is cut along the vocabulary too. Logits are float32, bfloat16 or
float16, arithmetic over the vocabulary is float32, numbers per row are float64. Import this module only where triton is
installed; with TRITON_INTERPRET=1 it runs on CPU tensors, which is how it is tested without a GPU.

Shapes: C tokens of one chunk, V vocabulary.
"""

# A kernel is launched as kernel[grid](...).
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from noiselaw.head.closedform import LogitGradient, SwapSums, TokenLevels, VocabularySums
from noiselaw.head.rarity import Rarity
from noiselaw.head.targets import TokenTargets
from noiselaw.noise.mixing import Mixing

VERSION = triton.__version__
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_BLOCK = 4096
"""Of a row, taken at a time."""
NUM_WARPS = 8


class TritonPasses:
    """`TorchPasses` without any memory beside the chunk: exponentials are formed anew in each pass."""

    def __init__(self, mixing: Mixing | None, logits: Tensor) -> None:
        """For chunks like `logits` [C, V] or shorter."""
        self._rarity = Rarity.of(mixing, logits.device, torch.float32)
        self._block = min(MAX_BLOCK, triton.next_power_of_2(logits.shape[1]))
        # Per row: highest logit, 1 / sum of exponentials, t at the highest logit, scale of the gaps, rarity there.
        self._scales = torch.empty(5, len(logits), dtype=torch.float64, device=logits.device)

    def sums(self, logits: Tensor, targets: TokenTargets, levels: TokenLevels) -> VocabularySums:
        """The four sums of each token of `logits` [C, V]."""
        num_tokens, vocab_size = logits.shape
        swaps, table = levels.swaps, self._rarity
        sums = torch.empty(4, num_tokens, dtype=torch.float64, device=logits.device)
        if num_tokens:
            _sum_row[(num_tokens,)](
                logits,
                targets.clean,
                targets.noisy,
                levels.signal if swaps is None else swaps.log_odds - table.log_highest,
                table.rarity,
                table.probs,
                sums,
                self._scales,
                num_tokens,
                self._scales.shape[1],
                targets.mask_id,
                table.max_log_ratio,
                VOCAB_SIZE=vocab_size,
                SWAPS=swaps is not None,
                WEIGHTED=swaps is not None and table.rarity is not None,
                BLOCK=self._block,
                num_warps=NUM_WARPS,  # pyright: ignore[reportCallIssue]  (taken by the launcher)
            )
        log_clean, log_noisy, mean_log_ratio, mean_gap = sums
        return VocabularySums(log_clean, None if swaps is None else SwapSums(log_noisy, mean_log_ratio, mean_gap))

    def gradient(self, logits: Tensor, targets: TokenTargets, rates: LogitGradient) -> None:
        """Write the gradient by the logits over `logits` [C, V], those of the last call of `sums`."""
        num_tokens, vocab_size = logits.shape
        if not num_tokens:
            return
        swaps = rates.swaps
        _write_gradient[(num_tokens, triton.cdiv(vocab_size, self._block))](
            logits,
            targets.clean,
            targets.noisy,
            rates.centre,
            rates.at_clean,
            rates.centre if swaps is None else swaps.spread,
            rates.centre if swaps is None else swaps.at_noisy,
            self._rarity.rarity,
            self._scales,
            self._scales.shape[1],
            targets.mask_id,
            VOCAB_SIZE=vocab_size,
            SWAPS=swaps is not None,
            WEIGHTED=swaps is not None and self._rarity.rarity is not None,
            BLOCK=self._block,
            num_warps=NUM_WARPS,  # pyright: ignore[reportCallIssue]  (taken by the launcher)
        )


@triton.jit
def _log_one_plus(x):
    """log(1 + x) for finite x >= 0, relative error below 2^-23: `log_one_plus` of kernel.cpp."""
    exponent = ((1.0 + x).to(tl.int32, bitcast=True) - 0x3F400000) & -8388608
    power = (0x40800000 - exponent).to(tl.float32, bitcast=True)
    m = (x.to(tl.int32, bitcast=True) - exponent).to(tl.float32, bitcast=True) + (0.25 * power - 1.0)
    high = -0.131622374 + m * (0.104483396 + m * -0.0449096523)
    low = 0.333334535 + m * (-0.250000536 + m * (0.199906066 + m * (-0.166477665 + m * 0.144820616)))
    square = m * m
    log_power = exponent.to(tl.float32) * 1.1920928955078125e-7 * 0.693147181
    return log_power + (m + square * (-0.5 + m * (low + square * square * m * high)))


@triton.jit
def _gap(exponent, relative, ratio):
    """The e (1 - r) / (1 + t) of the closed form."""
    return exponent * (1.0 - relative) / (1.0 + ratio)


@triton.jit
def _load(row, columns, size, mask_id):
    """Logits of `columns` as float32, -inf at the mask and beyond the end."""
    logits = tl.load(row + columns, mask=columns < size, other=float("-inf")).to(tl.float32)
    return tl.where(columns == mask_id, float("-inf"), logits)


@triton.jit
def _sum_ratios(
    row,
    highest,
    factor,
    rarity,
    probs,
    unit,
    mask_id,
    VOCAB_SIZE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of rho log(1 + t) and of the gaps over a row, float64."""
    lanes = tl.arange(0, BLOCK)
    logs = tl.zeros([BLOCK], tl.float32)
    gaps = tl.zeros([BLOCK], tl.float32)
    if WEIGHTED:
        for start in range(0, VOCAB_SIZE, BLOCK):
            columns = start + lanes
            exponent = tl.exp(_load(row, columns, VOCAB_SIZE, mask_id) - highest)
            relative = exponent * tl.load(rarity + columns, mask=columns < VOCAB_SIZE, other=0.0) * unit
            mass = tl.load(probs + columns, mask=columns < VOCAB_SIZE, other=0.0)
            logs += mass * _log_one_plus(relative * factor)
            gaps += _gap(exponent, relative, relative * factor)
        mean_log_ratio = tl.sum(logs, 0).to(tl.float64)
    else:
        # Pairs share a logarithm: (1 + a)(1 + b) = 1 + (a + b + ab).
        half: tl.constexpr = (VOCAB_SIZE + 1) // 2
        for start in range(0, half, BLOCK):
            columns = start + lanes
            left = tl.exp(_load(row, columns, half, mask_id) - highest)
            right = tl.exp(_load(row + half, columns, VOCAB_SIZE - half, mask_id - half) - highest)
            a = left * factor
            b = right * factor
            logs += _log_one_plus(a + (b + a * b))
            gaps += _gap(left, left, a) + _gap(right, right, b)
        mean_log_ratio = tl.sum(logs, 0).to(tl.float64) / (VOCAB_SIZE - 1)
    return mean_log_ratio, tl.sum(gaps, 0).to(tl.float64)


@triton.jit
def _sum_row(
    logits,
    clean,
    noisy,
    log_top_odds,
    rarity,
    probs,
    sums,
    scales,
    num_tokens,
    scales_stride,
    mask_id,
    max_log_ratio,
    VOCAB_SIZE: tl.constexpr,
    SWAPS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * VOCAB_SIZE
    lanes = tl.arange(0, BLOCK)
    highest = float("-inf")
    top = 0
    exponentials = tl.zeros([BLOCK], tl.float32)
    for start in range(0, VOCAB_SIZE, BLOCK):
        block = _load(row, start + lanes, VOCAB_SIZE, mask_id)
        largest = tl.max(block, 0)
        if WEIGHTED:
            top = tl.where(largest > highest, start + tl.argmax(block, 0), top)
        higher = tl.maximum(highest, largest)
        exponentials = exponentials * tl.exp(highest - higher) + tl.exp(block - higher)
        highest = higher
    total = tl.sum(exponentials, 0).to(tl.float64)
    log_total = tl.log(total)
    at_clean = tl.load(row + tl.load(clean + token)).to(tl.float64)
    tl.store(sums + token, at_clean - highest - log_total)
    tl.store(scales + token, highest.to(tl.float64))
    tl.store(scales + scales_stride + token, 1.0 / total)
    if SWAPS:
        at_noisy = tl.load(row + tl.load(noisy + token)).to(tl.float64)
        log_ratio = tl.load(log_top_odds + token) - log_total
        top_ratio = tl.exp(tl.minimum(log_ratio, max_log_ratio))
        unit = 1.0
        if WEIGHTED:
            at_top = tl.load(rarity + top)
            top_ratio *= at_top
            unit = 1.0 / at_top
        factor = top_ratio.to(tl.float32)
        mean_log_ratio, gaps = _sum_ratios(
            row, highest, factor, rarity, probs, unit, mask_id, VOCAB_SIZE, WEIGHTED, BLOCK
        )
        gap_scale = top_ratio / (1.0 + top_ratio) / total
        tl.store(sums + num_tokens + token, at_noisy - highest - log_total)
        tl.store(sums + 2 * num_tokens + token, mean_log_ratio)
        tl.store(sums + 3 * num_tokens + token, gaps * gap_scale)
        tl.store(scales + 2 * scales_stride + token, top_ratio)
        tl.store(scales + 3 * scales_stride + token, gap_scale)
        tl.store(scales + 4 * scales_stride + token, unit)


@triton.jit
def _write_gradient(
    logits,
    clean,
    noisy,
    centre,
    at_clean,
    spread,
    at_noisy,
    rarity,
    scales,
    scales_stride,
    mask_id,
    VOCAB_SIZE: tl.constexpr,
    SWAPS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * VOCAB_SIZE
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    highest = tl.load(scales + token).to(tl.float32)
    per_exponent = tl.load(centre + token) * tl.load(scales + scales_stride + token)
    exponent = tl.exp(_load(row, columns, VOCAB_SIZE, mask_id) - highest)
    gradient = per_exponent.to(tl.float32) * exponent
    if SWAPS:
        factor = tl.load(scales + 2 * scales_stride + token).to(tl.float32)
        per_gap = tl.load(spread + token) * tl.load(scales + 3 * scales_stride + token)
        relative = exponent
        if WEIGHTED:
            unit = tl.load(scales + 4 * scales_stride + token).to(tl.float32)
            relative = exponent * tl.load(rarity + columns, mask=columns < VOCAB_SIZE, other=0.0) * unit
        gradient -= per_gap.to(tl.float32) * _gap(exponent, relative, relative * factor)
        peak = tl.load(at_noisy + token).to(tl.float32)
        gradient += tl.where(columns == tl.load(noisy + token), peak, 0.0)
    peak = tl.load(at_clean + token).to(tl.float32)
    gradient += tl.where(columns == tl.load(clean + token), peak, 0.0)
    tl.store(row + columns, gradient.to(logits.dtype.element_ty), mask=columns < VOCAB_SIZE)
