"""Blockwise sampling: one block after the other, what is finished frozen as the prompt of the next.

Prompts see themselves only, so while a block is denoised the keys and values of the text before it stay: a step costs
what the block costs. When the block is finished it joins the prompt, whose keys and values are computed anew once,
because a prompt sees the whole of itself. Shapes: B texts, T positions, K positions of a block.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling.ancestral import ancestral
from noiselaw.sampling.canvas import Canvas
from noiselaw.sampling.denoiser import Denoiser
from noiselaw.sampling.filters import NO_FILTERS, Filters
from noiselaw.sampling.steps import Beliefs, Observer, Step


class Sampler(Protocol):
    """A function that writes the blanks of a canvas: `ancestral`, `adaptive`."""

    def __call__(
        self,
        denoiser: Denoiser,
        process: NoiseProcess,
        canvas: Canvas,
        levels: Tensor,
        *,
        filters: Filters = ...,
        generator: torch.Generator,
        observe: Observer | None = ...,
    ) -> Tensor: ...


@torch.no_grad()
def blockwise(
    denoiser: Denoiser,
    process: NoiseProcess,
    canvas: Canvas,
    levels: Tensor,
    *,
    block_length: int,
    sampler: Sampler = ancestral,
    stop_id: int | None = None,
    filters: Filters = NO_FILTERS,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Continue the prompts of `canvas` block by block: ids [B, T].

    Each text's blocks start behind its own prompt. A text with `stop_id` in a finished block ends there, and what
    would follow is `stop_id` too; noise that happens to look like it ends nothing. `observe` sees every step of every
    block, with the texts whole: positions not begun show the mask.

    Raises ValueError where something is given behind a blank: a block could not see it.
    """
    if not canvas.is_continuation:
        raise ValueError("blockwise sampling cannot see what is given behind a blank; use another sampler to infill")
    if block_length < 1:
        raise ValueError(f"block_length {block_length} writes nothing; give at least 1")
    tokens = torch.where(canvas.blank, process.mixing.mask_id, canvas.tokens)
    done, ends = canvas.prompt_lengths.clone(), canvas.ends.clone()
    num_blocks = -(-int((ends - done).max()) // block_length)
    for index in range(num_blocks):
        width = min(block_length, int((ends - done).max()))
        if width <= 0:
            break
        positions = done[:, None] + torch.arange(width, device=tokens.device)
        frame = _Frame(tokens, positions, ends)
        watch = None if observe is None else frame.watch(observe, index, num_blocks)
        behind = denoiser.after(tokens[:, : int(done.max())], done)
        written = sampler(behind, process, frame.canvas(), levels, filters=filters, generator=generator, observe=watch)
        tokens = frame.placed(written, tokens)
        done = torch.minimum(done + width, ends)
        if stop_id is not None:
            tokens, ends = _stopped(tokens, canvas, done, ends, stop_id)
    return tokens


class _Frame:
    """One block of every text: where it stands, and how what happens in it looks from outside."""

    def __init__(self, tokens: Tensor, positions: Tensor, ends: Tensor) -> None:
        self._tokens = tokens
        self._exists = positions < ends[:, None]
        # Positions beyond a text's end stand in for none: what is placed there is what was there.
        self._positions = positions.clamp(max=tokens.shape[1] - 1)

    def canvas(self) -> Canvas:
        """The block as a canvas of its own, all blank: position 0 is the first behind what is finished."""
        num_positions = self._exists.sum(1)
        tokens = self._tokens.gather(1, self._positions)
        return Canvas(tokens, torch.zeros_like(self._exists), torch.zeros_like(num_positions), num_positions)

    def placed(self, block: Tensor, whole: Tensor) -> Tensor:
        """`whole` [B, T] with `block` [B, K] in its place."""
        rows = torch.arange(len(whole), device=whole.device)[:, None].expand_as(self._positions)
        result = whole.clone()
        result[rows[self._exists], self._positions[self._exists]] = block[self._exists]
        return result

    def watch(self, observe: Observer, index: int, num_blocks: int) -> Observer:
        """An observer of the block's steps that shows them to `observe` as steps of the whole texts."""

        def beliefs(inside: Callable[[], Beliefs]) -> Beliefs:
            found = inside()
            ones = torch.ones(self._tokens.shape, dtype=torch.float64, device=self._tokens.device)
            return Beliefs(self.placed(found.support, ones), self.placed(found.noise, torch.zeros_like(ones)))

        def seen(step: Step) -> None:
            observe(
                replace(
                    step,
                    index=index * (step.num_steps + 1) + step.index,
                    num_steps=num_blocks * (step.num_steps + 1) - 1,
                    tokens=self.placed(step.tokens, self._tokens),
                    changed=self.placed(step.changed, torch.zeros_like(self._tokens, dtype=torch.bool)),
                    beliefs=lambda: beliefs(step.beliefs),
                )
            )

        return seen


def _stopped(tokens: Tensor, canvas: Canvas, done: Tensor, ends: Tensor, stop_id: int) -> tuple[Tensor, Tensor]:
    """Texts and their ends, cut at what is `done` where a finished block holds `stop_id`."""
    position = torch.arange(tokens.shape[1], device=tokens.device)
    finished = canvas.blank & (position < done[:, None])
    stops = (finished & (tokens == stop_id)).any(1)
    never = stops[:, None] & canvas.blank & ~finished
    return tokens.masked_fill(never, stop_id), torch.where(stops, done, ends)
