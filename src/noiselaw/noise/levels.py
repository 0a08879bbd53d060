"""Where an estimate of the bound puts its noise levels: a place in [0, 1) becomes a log-SNR and its weight.

Any spacing gives the same expectation, because the weight is the log-SNR that a unit of the place covers
(docs/theory.md eq. 35); they differ in variance only. Shapes: K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import log_snr_from_time, time_from_log_snr


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Noise levels of an estimate, float64 [K]."""

    log_snr: Tensor
    weight: Tensor
    """|d(log-SNR) / d(place)|: what the integrand at this level counts."""


Spacing = Callable[[NoiseProcess, Tensor], Levels]
"""Places in [0, 1) [K] -> their levels, from the cleanest at 0 to the noisiest at 1."""


def square_root_levels(process: NoiseProcess, place: Tensor) -> Levels:
    """Even in sqrt(t).

    A token is noised with probability t and then counts 1/t, so the variance at t grows like 1/t and the best density
    falls like its root; even spacing in t has 9/4 of this one's variance.
    """
    low, high = _end_times(process).sqrt()
    root = low + (high - low) * place
    time = root.square()
    # d(log-SNR) = d(time) / (time (1 - time)) up to sign, and d(time) = 2 root d(root).
    return Levels(log_snr_from_time(time), 2 * (high - low) / (root * (1 - time)))


def linear_levels(process: NoiseProcess, place: Tensor) -> Levels:
    """Even in the time t, as training draws its levels."""
    low, high = _end_times(process)
    time = low + (high - low) * place
    return Levels(log_snr_from_time(time), (high - low) / (time * (1 - time)))


def log_snr_levels(process: NoiseProcess, place: Tensor) -> Levels:
    """Even in the log-SNR, as the bound is written."""
    span = process.max_log_snr - process.min_log_snr
    return Levels(process.max_log_snr - span * place, torch.full_like(place, span))


SPACINGS: dict[str, Spacing] = {
    "log-snr": log_snr_levels,
    "time": linear_levels,
    "square-root": square_root_levels,
}


def stratified_places(num: int, generator: torch.Generator) -> Tensor:
    """One place in each of `num` equal strata of [0, 1), in order: float64 [K]."""
    within = torch.rand(num, generator=generator, dtype=torch.float64)
    return (torch.arange(num) + within) / num


def _end_times(process: NoiseProcess) -> Tensor:
    """Time of the cleanest and of the noisiest level."""
    ends = torch.tensor([process.max_log_snr, process.min_log_snr], dtype=torch.float64)
    return time_from_log_snr(ends)
