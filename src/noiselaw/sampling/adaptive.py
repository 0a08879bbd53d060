"""Adaptive sampling: at every step only the positions that gain most are rewritten (docs/theory.md eq. 32).

A position's score is (probability of the best token - probability of the present one) · (how likely noise is to have
put the present one there). Both probabilities are the leave-one-out prediction: what the other tokens say of this one.
The token's own value speaks through the last factor. It works for every noise, and it is what lets models that know
swapped tokens revise.
"""

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling.canvas import Canvas
from noiselaw.sampling.denoiser import Denoiser
from noiselaw.sampling.filters import GREEDY, NO_FILTERS, Filters
from noiselaw.sampling.grid import check_grid
from noiselaw.sampling.predictions import Predictions, Statistics
from noiselaw.sampling.steps import Observer, Watch


@torch.no_grad()
def adaptive(
    denoiser: Denoiser,
    process: NoiseProcess,
    canvas: Canvas,
    levels: Tensor,
    *,
    positions_per_step: int | None = None,
    filters: Filters = NO_FILTERS,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Write the blanks of `canvas`, the most improvable positions first: ids [B, T], no mask left.

    Each step rewrites `positions_per_step` tokens of every text, by default just enough that all are written. Of the
    grid `levels` [N] only the number of steps counts, unless the denoiser sees the noise level. One position a step
    under masked noise, without filters, is exact; else it is a search for likely text, which need not follow the
    data's law.

    Raises ValueError where steps times positions are too few to write every blank.
    """
    blank = canvas.blank
    most_blanks = int(blank.sum(1).max())
    enough = max(1, -(-most_blanks // len(levels)))
    if positions_per_step is not None and positions_per_step < enough:
        raise ValueError(
            f"{len(levels)} steps of {positions_per_step} positions do not write {most_blanks} tokens; "
            f"take more steps or at least {enough} positions a step"
        )
    start = torch.where(blank, process.sample_prior(tuple(blank.shape), generator), canvas.tokens)
    return _rewrite(
        denoiser,
        process,
        canvas,
        levels,
        start=start,
        num_positions=enough if positions_per_step is None else positions_per_step,
        filters=filters,
        generator=generator,
        observe=observe,
    )


@torch.no_grad()
def self_correct(
    denoiser: Denoiser,
    process: NoiseProcess,
    canvas: Canvas,
    levels: Tensor,
    *,
    positions_per_step: int = 1,
    filters: Filters = GREEDY,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Rewrite the tokens of `canvas` that are not given where the model knows better ones: ids [B, T].

    Greedy by default, which stops when every token is the best one given the others.

    Raises ValueError for masked noise: under it a token that stands there cannot be noise, so nothing is improvable.
    """
    if process.mixing.is_masked and not bool((canvas.blank & (canvas.tokens == process.mixing.mask_id)).any()):
        raise ValueError(
            "a model of masked noise cannot revise: to it every token that is no mask is certain; use a model trained "
            "with some uniform noise, or blank out what shall change and infill it"
        )
    return _rewrite(
        denoiser,
        process,
        canvas,
        levels,
        start=canvas.tokens,
        num_positions=positions_per_step,
        filters=filters,
        generator=generator,
        observe=observe,
    )


def improvability(process: NoiseProcess, tokens: Tensor, statistics: Statistics) -> Tensor:
    """(best - present) · (prior probability of the present token), float64 [B, T] (docs/theory.md eq. 32).

    The prior is π at the noisiest level. A mask where noise makes none (somebody's text, uniform noise) counts as
    certain noise, so that it does not stay for ever.
    """
    mixing = process.mixing
    lowest = torch.full(tokens.shape, process.min_log_snr, dtype=torch.float64, device=tokens.device)
    prior = mixing.pi_at(lowest, tokens)
    if mixing.is_uniform:
        prior = torch.where(tokens == mixing.mask_id, 1.0, prior)
    return (statistics.best - statistics.present) * prior


def _rewrite(
    denoiser: Denoiser,
    process: NoiseProcess,
    canvas: Canvas,
    levels: Tensor,
    *,
    start: Tensor,
    num_positions: int,
    filters: Filters,
    generator: torch.Generator,
    observe: Observer | None,
) -> Tensor:
    check_grid(levels, process)
    if num_positions < 1:
        raise ValueError(f"positions_per_step {num_positions} rewrites nothing; give at least 1")
    mixing, blank, tokens = process.mixing, canvas.blank, start
    predictions = Predictions(denoiser, canvas.attention(), mixing, tokens)
    watch = Watch(observe, process, predictions, blank, len(levels))
    watch.step(tokens, process.min_log_snr)
    for level in levels.tolist():
        uniform = torch.rand(blank.shape, generator=generator, dtype=torch.float64, device=blank.device)
        predictions.look(tokens, level)
        live = blank & (tokens == mixing.mask_id) if mixing.is_masked else blank
        score = improvability(process, tokens, predictions.statistics(live, NO_FILTERS))
        value, position = score.topk(min(num_positions, score.shape[1]))
        chosen = torch.zeros_like(blank).scatter(1, position, value > 0)
        if not bool(chosen.any()) and not denoiser.sees_noise_level:
            break  # every token is the best one given the others
        tokens = predictions.draw(chosen, filters, uniform)
        watch.step(tokens, level)
    return tokens
