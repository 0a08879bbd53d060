"""Noise levels of a generation as data: float64 [N] log-SNRs, one per step, from the noisiest up.

Step i asks the model at level i and moves to level i + 1; the last one moves to the clean text, so no level is visited
twice and no call of the model is wasted. α at step i of N is α_min + (α_max - α_min) f(i / N) (docs/theory.md eq. 33).
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import alpha


def linear_grid(process: NoiseProcess, num_steps: int) -> Tensor:
    """f(τ) = τ: every step reveals the same share of the text."""
    return _grid(process, num_steps, lambda time: time)


def cosine_grid(process: NoiseProcess, num_steps: int) -> Tensor:
    """f(τ) = (1 - cos πτ) / 2: small steps at both ends, where first words and last repairs are made."""
    return _grid(process, num_steps, lambda time: (1.0 - (math.pi * time).cos()) / 2.0)


GRIDS: dict[str, Callable[[NoiseProcess, int], Tensor]] = {"cosine": cosine_grid, "linear": linear_grid}
"""Named grids: (process, number of steps) -> levels [N]."""


def check_grid(levels: Tensor, process: NoiseProcess) -> None:
    """Raises ValueError unless `levels` starts at the process's lowest level and rises with every step."""
    if levels.ndim != 1 or len(levels) == 0:
        raise ValueError(f"a grid of shape {tuple(levels.shape)}; give one log-SNR per step, shape (N,)")
    if float(levels[0]) != process.min_log_snr:
        raise ValueError(f"the grid starts at log-SNR {float(levels[0])}; start at {process.min_log_snr}, the prior's")
    if not bool((levels.diff() > 0).all()) or not bool(levels.isfinite().all()):
        raise ValueError("the grid's log-SNRs must be finite and rise with every step")


def level_pairs(levels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(level now, level next) of every step; the last next is +inf, the clean text."""
    clean = torch.full_like(levels[:1], math.inf)
    return iter(zip(levels, torch.cat([levels[1:], clean]), strict=True))


def _grid(process: NoiseProcess, num_steps: int, share: Callable[[Tensor], Tensor]) -> Tensor:
    if num_steps < 1:
        raise ValueError(f"{num_steps} steps write nothing; give at least 1")
    lowest, highest = torch.tensor([process.min_log_snr, process.max_log_snr], dtype=torch.float64)
    time = torch.arange(num_steps, dtype=torch.float64) / num_steps
    levels = torch.logit(alpha(lowest) + (alpha(highest) - alpha(lowest)) * share(time))
    levels[0] = lowest
    return levels
