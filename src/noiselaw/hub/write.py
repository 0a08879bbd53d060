"""Writing with a loaded model: which sampler, with which settings, and which of them mean nothing for this model.

Shapes: B texts, T positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from noiselaw.hub.loading import LoadedModel
from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling import (
    GRIDS,
    NO_FILTERS,
    Canvas,
    Filters,
    Observer,
    adaptive,
    ancestral,
    autoregressive,
    blockwise,
    linear_grid,
    self_correct,
)

DEFAULT_STEPS = 128
DEFAULT_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """How to write. None takes the sampler's own default; a setting without effect is refused when writing."""

    sampler: str | None = None
    """A name of SAMPLERS; by default ancestral."""
    num_steps: int | None = None
    """Steps, of each block where the sampler is blockwise: by default 128, one a token (adaptive, blockwise)."""
    grid: str | None = None
    """A name of GRIDS; by default cosine."""
    positions_per_step: int | None = None
    """Tokens that an adaptive step rewrites; by default as many as are needed to write all."""
    block_length: int | None = None
    """Tokens of a block; by default 32."""
    filters: Filters = NO_FILTERS


@dataclass(frozen=True, slots=True)
class _Task:
    """One writing: everything a sampler may want."""

    loaded: LoadedModel
    process: NoiseProcess
    canvas: Canvas
    settings: Settings
    generator: torch.Generator
    observe: Observer | None

    def levels(self, default_steps: int) -> Tensor:
        grid = GRIDS[self.settings.grid or "cosine"]
        return grid(self.process, self.steps(default_steps))

    def steps(self, default: int) -> int:
        return default if self.settings.num_steps is None else self.settings.num_steps


def _ancestral(task: _Task) -> Tensor:
    return ancestral(
        task.loaded.denoiser,
        task.process,
        task.canvas,
        task.levels(DEFAULT_STEPS),
        filters=task.settings.filters,
        generator=task.generator,
        observe=task.observe,
    )


def _adaptive(task: _Task) -> Tensor:
    one_each = -(-_most_blanks(task.canvas) // max(1, task.settings.positions_per_step or 1))
    return adaptive(
        task.loaded.denoiser,
        task.process,
        task.canvas,
        linear_grid(task.process, task.steps(one_each)),
        positions_per_step=task.settings.positions_per_step,
        filters=task.settings.filters,
        generator=task.generator,
        observe=task.observe,
    )


def _blockwise(task: _Task) -> Tensor:
    block_length = DEFAULT_BLOCK if task.settings.block_length is None else task.settings.block_length
    return blockwise(
        task.loaded.denoiser,
        task.process,
        task.canvas,
        task.levels(max(1, block_length)),
        block_length=block_length,
        stop_id=_end_id(task.loaded),
        filters=task.settings.filters,
        generator=task.generator,
        observe=task.observe,
    )


@dataclass(frozen=True, slots=True)
class NamedSampler:
    """A sampler by name, and which settings it heeds beside filters and seed."""

    write: Callable[[_Task], Tensor]
    heeds: frozenset[str]


SAMPLERS: dict[str, NamedSampler] = {
    "ancestral": NamedSampler(_ancestral, frozenset({"num_steps", "grid"})),
    "adaptive": NamedSampler(_adaptive, frozenset({"num_steps", "positions_per_step"})),
    "blockwise": NamedSampler(_blockwise, frozenset({"num_steps", "grid", "block_length"})),
}


def write(
    loaded: LoadedModel,
    canvas: Canvas,
    settings: Settings,
    *,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Write the blanks of `canvas`: ids [B, T].

    Raises ValueError for texts longer than the model's context, for blanks the model cannot fill, and for settings that
    would have no effect.
    """
    _check_context(loaded, canvas)
    if loaded.process is None:
        _refuse_without_effect(settings, frozenset(), "an autoregressive model writes token by token")
        end_id = loaded.text_tokenizer().end_of_text_id
        return autoregressive(
            loaded.model,
            canvas,
            start_id=end_id,
            stop_id=end_id,
            mask_id=loaded.mask_id,
            filters=settings.filters,
            generator=generator,
            observe=observe,
        )
    name = settings.sampler or "ancestral"
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r}: known are {', '.join(SAMPLERS)}")
    if settings.grid is not None and settings.grid not in GRIDS:
        raise ValueError(f"grid {settings.grid!r}: known are {', '.join(GRIDS)}")
    _refuse_without_effect(settings, SAMPLERS[name].heeds | {"sampler"}, f"the {name} sampler")
    return SAMPLERS[name].write(_Task(loaded, loaded.process, canvas, settings, generator, observe))


def revise(
    loaded: LoadedModel,
    canvas: Canvas,
    settings: Settings,
    *,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> Tensor:
    """Rewrite what the model would improve in the texts of `canvas`: ids [B, T]. Raises ValueError as `write`."""
    _check_context(loaded, canvas)
    if loaded.process is None:
        raise ValueError(
            f"{loaded.path}: an autoregressive model cannot revise what is written; use one trained with uniform noise"
        )
    _refuse_without_effect(settings, frozenset({"num_steps", "positions_per_step"}), "a revision")
    num_steps = _most_blanks(canvas) if settings.num_steps is None else settings.num_steps
    return self_correct(
        loaded.denoiser,
        loaded.process,
        canvas,
        linear_grid(loaded.process, num_steps),
        positions_per_step=1 if settings.positions_per_step is None else settings.positions_per_step,
        filters=settings.filters,
        generator=generator,
        observe=observe,
    )


def written_ids(loaded: LoadedModel, ids: list[int], num_given: int) -> list[int]:
    """A finished text without what follows its end: cut at the first end of text behind `num_given` tokens."""
    end_id = _end_id(loaded)
    behind = ids[num_given:]
    return ids if end_id not in behind else ids[: num_given + behind.index(end_id)]


def _end_id(loaded: LoadedModel) -> int | None:
    return None if loaded.tokenizer is None else loaded.tokenizer.end_of_text_id


def _most_blanks(canvas: Canvas) -> int:
    return max(1, int(canvas.blank.sum(1).max()))


def _check_context(loaded: LoadedModel, canvas: Canvas) -> None:
    if canvas.num_positions > loaded.sequence_length:
        raise ValueError(
            f"a text of {canvas.num_positions} tokens is longer than the {loaded.sequence_length} that {loaded.path} "
            "was trained on; shorten it"
        )


def _refuse_without_effect(settings: Settings, heeded: frozenset[str], who: str) -> None:
    names = {"num_steps": "steps"}
    ignored = [
        names.get(field.name, field.name)
        for field in fields(settings)
        if field.name not in heeded | {"filters"} and getattr(settings, field.name) is not None
    ]
    if ignored:
        raise ValueError(f"{', '.join(ignored)}: without effect on {who}; leave it out")
