"""Ancestral sampling: the noise process run backwards, one level after the other (docs/theory.md eq. 31).

Each step decides for every token whether it stays, becomes noise of the next level, or becomes a token drawn from the
prediction; only for the last the prediction is needed whole. A mask's fate does not even depend on the model, so under
masked noise the head sees every position once in all.
"""

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling.canvas import Canvas
from noiselaw.sampling.denoiser import Denoiser
from noiselaw.sampling.filters import NO_FILTERS, Filters
from noiselaw.sampling.grid import check_grid, level_pairs
from noiselaw.sampling.predictions import Predictions
from noiselaw.sampling.steps import Observer, Watch


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    process: NoiseProcess,
    canvas: Canvas,
    levels: Tensor,
    *,
    filters: Filters = NO_FILTERS,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Write the blanks of `canvas`: ids [B, T], nothing noisy left.

    With the exact leave-one-out prediction and no filters the texts follow the data's law as the grid `levels` [N] gets
    finer, whatever the noise.
    """
    check_grid(levels, process)
    mixing, blank = process.mixing, canvas.blank
    shape = (len(blank), canvas.num_positions)
    tokens = torch.where(blank, process.sample_prior(shape, generator), canvas.tokens)
    predictions = Predictions(denoiser, canvas.attention(), mixing, tokens)
    watch = Watch(observe, process, predictions, blank, len(levels))
    watch.step(tokens, process.min_log_snr)
    for now, following in level_pairs(levels.to(blank.device)):
        uniform = torch.rand(2, *shape, generator=generator, dtype=torch.float64, device=blank.device)
        noise = process.sample_noise(following.expand(shape), generator)
        predictions.look(tokens, float(now))
        is_mask = tokens == mixing.mask_id
        # Under masked noise a token that is no mask is there to stay.
        live = blank & is_mask if mixing.is_masked else blank
        # At a mask the mixture needs no prediction, so the texts that need one are known before any is made.
        unpredicted = process.posterior_mixture(tokens, torch.zeros_like(uniform[0]), now, following)
        predictions.run((live & (~is_mask | (uniform[0] < unpredicted.clean))).any(1))
        present = predictions.statistics(live & ~is_mask, filters).present
        events = process.posterior_mixture(tokens, present, now, following)
        becomes_clean = live & (uniform[0] < events.clean)
        becomes_noise = live & ~becomes_clean & (uniform[0] < events.clean + events.noise)
        written = predictions.draw(becomes_clean, filters, uniform[1])
        tokens = torch.where(becomes_noise, noise, written)
        watch.step(tokens, float(following))
    return tokens
