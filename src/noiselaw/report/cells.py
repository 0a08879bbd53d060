"""What a table of the page is made of, and how its numbers are written."""

from collections.abc import Callable
from dataclasses import dataclass

from noiselaw.report import phrases

DASH = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    group: str | None = None
    """The cell names this group: it bears the group's colour."""
    strong: bool = False
    value: float | None = None
    """What the text rounds."""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    """Columns of text, aligned left; the others hold numbers."""
    prose_columns: tuple[int, ...] = ()
    """Those of them whose text is long and may wrap."""
    notes: tuple[str, ...] = ()
    """What is said below the caption, a paragraph each."""


def number(value: float, write: Callable[[float], str]) -> Cell:
    """A cell for a number, which files of the table hold in full."""
    return Cell(write(value), value=value)


def known(value: float | None, write: Callable[[float], str]) -> Cell:
    """A cell for a number that may not be known."""
    return Cell(DASH) if value is None else number(value, write)


def four_digits(loss: float) -> str:
    return f"{loss:.4f}"


def interval_text(interval: tuple[float, float] | None, digits: int) -> str:
    return DASH if interval is None else " to ".join(phrases.fixed(end, digits) for end in interval)
