"""Which implementation of the element-wise part runs: the seam between the chunked products and the kernels.

A kernel turns the logits of a chunk into their gradient, in place, and keeps each token's losses. There are three:

    native on a CPU    `native.py` and `kernel.cpp`: all of it in one call, compiled on first use
    native on CUDA     `triton.py`: the two passes over the vocabulary; never run on a GPU yet
    torch              `elementwise.py`: the two passes as PyTorch operators; runs anywhere, and is the others' oracle

Kernels of two passes leave what lies between them, n numbers per token, to `closedform.py`. Fake tensors, which have a
size but no memory, get passes that take what native ones take (`UncomputedPasses`).
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from noiselaw.head.closedform import (
    LogitGradient,
    SwapSums,
    TokenLevels,
    TokenLosses,
    VocabularySums,
    logit_gradient,
    token_levels,
    token_losses,
)
from noiselaw.head.elementwise import TorchPasses
from noiselaw.head.library import find_library
from noiselaw.head.native import DTYPES, NativeKernel
from noiselaw.head.targets import TokenTargets
from noiselaw.specs import HeadKernel


class HeadKernelError(ValueError):
    """The native kernel was asked for by name where it cannot run: names the reason and the remedy."""


class ChunkKernel(Protocol):
    """The element-wise part for all tokens of one loss, taken a chunk at a time from first to last."""

    def process(self, logits: Tensor, rows: slice) -> None:
        """Turn the `logits` [C, V] of tokens `rows` into the gradient of the weighted loss by hidden @ weight.T.

        Where no gradient is wanted their contents are lost.
        """
        ...

    def losses(self) -> TokenLosses:
        """Losses of all tokens."""
        ...


class Passes(Protocol):
    """The two passes over one chunk's logits [C, V]; see `TorchPasses`."""

    def sums(self, logits: Tensor, targets: TokenTargets, levels: TokenLevels) -> VocabularySums: ...
    def gradient(self, logits: Tensor, targets: TokenTargets, rates: LogitGradient) -> None: ...


class TwoPassKernel:
    """The closed forms of `closedform.py` around two passes over the vocabulary."""

    def __init__(self, passes: Passes, targets: TokenTargets, multiplier: float, wants_gradient: bool) -> None:
        self._passes = passes
        self._targets = targets
        self._levels = token_levels(targets)
        self._multiplier = multiplier
        self._wants_gradient = wants_gradient
        self._sums: list[VocabularySums] = []

    def process(self, logits: Tensor, rows: slice) -> None:
        here, level = self._targets.at(rows), self._levels.rows(rows)
        sums = self._passes.sums(logits, here, level)
        self._sums.append(sums)
        if self._wants_gradient:
            rates = logit_gradient(level, sums, here.weight.double() * self._multiplier)
            self._passes.gradient(logits, here, rates)

    def losses(self) -> TokenLosses:
        return token_losses(self._levels, VocabularySums.concatenate(self._sums))


class UncomputedPasses:
    """What native kernels take, nothing beside the chunk, without the work: for fake tensors."""

    def sums(self, logits: Tensor, targets: TokenTargets, levels: TokenLevels) -> VocabularySums:
        row = logits.new_empty(len(targets.clean), dtype=torch.float64)
        return VocabularySums(row, None if levels.swaps is None else SwapSums(row, row, row))

    def gradient(self, logits: Tensor, targets: TokenTargets, rates: LogitGradient) -> None:
        """Nothing is taken."""


def build_kernel(
    name: HeadKernel, targets: TokenTargets, multiplier: float, logits: Tensor, *, wants_gradient: bool
) -> ChunkKernel:
    """The kernel `name` for chunks like `logits` [C, V] or shorter.

    Raises HeadKernelError where `name` is native and this machine has none for the device of `logits`.
    """
    if isinstance(logits, FakeTensor) and name != "torch":
        return TwoPassKernel(UncomputedPasses(), targets, multiplier, wants_gradient)
    # Stand-ins for tensors have no memory that a compiled kernel could work on.
    is_plain = type(logits) is Tensor
    native = _native(name, logits.device.type) if is_plain and name != "torch" else None
    if native is not None and logits.dtype in native.dtypes:
        return native.build(targets, multiplier, logits, wants_gradient)
    return TwoPassKernel(TorchPasses(targets.mixing, logits), targets, multiplier, wants_gradient)


def describe_kernel(name: HeadKernel, device: torch.device) -> str:
    """What `name` stands for on `device`, in words for a record. Raises HeadKernelError as `build_kernel`."""
    native = None if name == "torch" else _native(name, device.type)
    return "torch" if native is None else native.description


@dataclass(frozen=True, slots=True)
class Native:
    """A kernel for one kind of device."""

    build: Callable[[TokenTargets, float, Tensor, bool], ChunkKernel]
    """From targets, multiplier, logits and whether gradients are wanted."""
    dtypes: Collection[torch.dtype]
    """Of the logits it takes."""
    description: str


def _find_native(device_type: str) -> Native | str:
    """The native kernel of a device, or the reason in words why there is none."""
    if device_type == "cpu":
        return _compiled_kernel()
    return _triton_kernel() if device_type == "cuda" else f"there is none for {device_type}"


def _compiled_kernel() -> Native | str:
    library = find_library()
    if isinstance(library, str):
        return library
    return Native(partial(NativeKernel, library), DTYPES, f"native ({library.compiler})")


def _triton_kernel() -> Native | str:
    try:
        from noiselaw.head import triton  # noqa: PLC0415  (optional: not there with a torch for CPUs)
    except ImportError as error:
        return f"triton is not installed ({error})"

    def build(targets: TokenTargets, multiplier: float, logits: Tensor, wants_gradient: bool) -> ChunkKernel:
        return TwoPassKernel(triton.TritonPasses(targets.mixing, logits), targets, multiplier, wants_gradient)

    return Native(build, triton.DTYPES, f"native (triton {triton.VERSION})")


@cache
def _native(name: HeadKernel, device_type: str) -> Native | None:
    """The native kernel of the device, None where `auto` has to do without; that is said once."""
    found = _find_native(device_type)
    if isinstance(found, Native):
        return found
    if name == "native":
        raise HeadKernelError(f"runtime.head_kernel is native but {found}; use auto or torch")
    logging.getLogger(__name__).warning("head: the PyTorch kernel runs, not the faster native one: %s", found)
    return None
