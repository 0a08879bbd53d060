"""What a run trains on: a prepared folder or a mixture of several, whole or a part of it."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from noiselaw.specbase import Spec


class SourceSpec(Spec):
    """One source of a mixture."""

    path: Path
    """Folder written by `noiselaw data prepare`."""
    weight: float = Field(gt=0, allow_inf_nan=False)
    """Its sequences in proportion to those of the other sources."""


class DataSpec(Spec):
    path: Path | None = None
    """Folder written by `noiselaw data prepare`."""
    sources: list[SourceSpec] = Field(default=[])
    """In place of `path`: several folders of one tokenizer, mixed by weight, each with its own passes."""
    sequence_length: int = Field(gt=1)
    """Tokens per training sequence (T)."""
    unique_tokens: int | None = Field(default=None, gt=0)
    """Train on so many tokens' worth of sequences, drawn by the seed, again and again; None takes all there are."""

    @model_validator(mode="after")
    def _path_or_sources(self) -> Self:
        if (self.path is None) == (not self.sources):
            raise ValueError("give either path (one folder) or sources (a list of path and weight)")
        twice = next((str(path) for index, path in enumerate(self.paths) if path in self.paths[:index]), None)
        if twice is not None:
            raise ValueError(f"sources names {twice} twice; give it the sum of the weights")
        return self

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folders, one or more."""
        return tuple(source.path for source in self.sources) if self.path is None else (self.path,)
