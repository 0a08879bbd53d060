"""Collects the steps of a sampler for the trace page."""

import math
from collections.abc import Iterable

import numpy as np

from noiselaw.hub.loading import LoadedModel
from noiselaw.report.trace import Trace, TraceFrame
from noiselaw.sampling import Canvas, Step

MAX_CELLS = 2_000_000
"""Tokens times frames that a page may hold (two characters each): beyond, steps are left out evenly."""
CONTROL_PICTURES = 0x2400
"""Where Unicode keeps pictures of the 32 control characters."""


class TraceRecorder:
    """An observer of samplers that remembers what the page will show."""

    def __init__(self, loaded: LoadedModel, canvas: Canvas, *, revises: bool) -> None:
        self._loaded, self._canvas = loaded, canvas
        self._shows_level = loaded.process is not None and not revises
        self._frames: list[TraceFrame] = []
        self._seen = -1

    def observe(self, step: Step) -> None:
        """Keep a step, or pass over it where there are too many for a page."""
        self._seen += 1
        every = max(1, math.ceil((step.num_steps + 1) * step.tokens.numel() / MAX_CELLS))
        if self._seen % every and step.index < step.num_steps:
            return
        beliefs = step.beliefs()
        level = step.log_snr if self._shows_level and math.isfinite(step.log_snr) else None
        self._frames.append(
            TraceFrame(
                step.index,
                level,
                step.tokens.cpu().numpy(),
                beliefs.support.cpu().numpy(),
                beliefs.noise.cpu().numpy(),
            )
        )

    def trace(self, title: str, facts: Iterable[tuple[str, str]], texts: Iterable[str]) -> Trace:
        """All that was seen."""
        ids = np.unique(np.concatenate([frame.tokens.ravel() for frame in self._frames]))
        return Trace(
            title=title,
            facts=tuple(facts),
            given=self._canvas.given.cpu().numpy(),
            ends=tuple(self._canvas.ends.tolist()),
            frames=tuple(self._frames),
            pieces={int(token): piece(self._loaded, int(token)) for token in ids},
            mask_id=self._loaded.mask_id,
            texts=tuple(texts),
        )


def piece(loaded: LoadedModel, token: int) -> str:
    """A token as it is shown: its text, control characters as pictures, never empty."""
    text = "░" if token == loaded.mask_id else loaded.decode([token])
    return visible(text) or f"⟨{token}⟩"


def visible(text: str) -> str:
    """`text` with control characters but line ends and tabs as pictures: nothing a terminal would obey."""
    return "".join(_picture(character) for character in text)


def _picture(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or (code >= 0x20 and not 0x7F <= code < 0xA0):
        return character
    return chr(CONTROL_PICTURES + code) if code < 0x20 else "␡"
