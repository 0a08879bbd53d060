"""Numbers as people write them into tables: 1,234,567 or 1 234 567 or 1.234.567,8; 1.5e9, 1.5×10^9, 125M, 1.3B.

And columns whose name says what their numbers stand in: `params (M)`, `tokens_B`, `N in millions`, `C [1e18]`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "–", "—", "?", "."})
"""Cells that hold no number, in small letters."""
SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
WORDS = {
    "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "mio": 1e6, "mn": 1e6, "billion": 1e9,
    "billions": 1e9, "bn": 1e9, "trillion": 1e12, "trillions": 1e12, "tn": 1e12,
    "teraflops": 1e12, "tflops": 1e12, "petaflops": 1e15, "pflops": 1e15, "exaflops": 1e18, "eflops": 1e18,
    "zettaflops": 1e21, "zflops": 1e21, "petaflop days": 8.64e19, "petaflop/s days": 8.64e19, "pf days": 8.64e19,
    "pfs days": 8.64e19, "pflop/s days": 8.64e19,
}  # fmt: skip
"""Units by name; petaFLOP/s-days are 1e15 * 86,400 FLOPs."""

_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*,\d{1,2}|\d*,\d{4,}|0,\d+|\d{1,3}(\.\d{3})+,\d*)(e[+-]?\d+)?", re.IGNORECASE)
_OTHER_MARKS = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|[\d.]*,\d*)(e[+-]?\d+)?", re.IGNORECASE)
"""Where commas are decimal marks, points stand between thousands."""
_POWER = re.compile(r"(?:(?P<factor>[^x×*·]+?)\s*[x×*·]\s*)?10\s*(?:\^|\*\*)\s*\{?(?P<power>[+-]?\d+)\}?")
_SUFFIXED = re.compile(r"(?P<number>.*\d\.?)\s*(?P<suffix>[kmbgt])", re.IGNORECASE)
_SPACES = re.compile(r"(?<=\d)[\s'’_](?=\d{3}(\D|$))")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


class Numbers(NamedTuple):
    """A column read: NaN where a cell is empty, None where it holds something else."""

    values: list[float | None]
    notes: tuple[str, ...]
    """How its spelling was understood, where that is not plain."""


def uses_decimal_commas(columns: Iterable[Sequence[Any]]) -> bool:
    """Whether any cell is a number only if a comma is its decimal mark (3,14): then so are all commas of the table."""
    return any(
        isinstance(value, str) and "," in value and _DECIMAL_COMMA.fullmatch(_joined(value)) is not None
        for values in columns
        for value in values
    )


def read_numbers(values: Sequence[Any], *, decimal_commas: bool, suffixes: bool) -> Numbers:
    """A column of numbers or of text. `suffixes` allows 125M and 1.3B."""
    read = [_read(value, decimal_commas=decimal_commas, suffixes=suffixes) for value in values]
    texts = [_joined(value) for value in values if isinstance(value, str)]
    commas = _OTHER_MARKS if decimal_commas else _GROUPED
    raised = {
        f"commas {'are decimal marks' if decimal_commas else 'stand between thousands'}": any(
            map(commas.fullmatch, texts)
        ),
        "K, M, B and T are 1e3, 1e6, 1e9 and 1e12": suffixes and any(map(_suffixed, texts)),
    }
    return Numbers(read, tuple(note for note, is_raised in raised.items() if is_raised))


def _suffixed(text: str) -> bool:
    return plain_number(text) is None and _SUFFIXED.fullmatch(text) is not None


def plain_number(value: Any) -> float | None:
    """A number as such or in Python's spelling; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _read(value: Any, *, decimal_commas: bool, suffixes: bool) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    if not isinstance(value, str):
        return plain_number(value)
    text = _joined(value)
    if decimal_commas and _OTHER_MARKS.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    found = plain_number(text)
    return _product(text, suffixes=suffixes) if found is None else found


def _product(text: str, *, suffixes: bool) -> float | None:
    """1.5×10^9, or with `suffixes` 1.3B."""
    power = _POWER.fullmatch(text)
    if power is not None:
        factor = 1.0 if power["factor"] is None else plain_number(power["factor"])
        return None if factor is None else factor * 10.0 ** int(power["power"])
    suffix = _SUFFIXED.fullmatch(text) if suffixes else None
    if suffix is None:
        return None
    factor = plain_number(suffix["number"].replace(",", ""))
    return None if factor is None else factor * SUFFIXES[suffix["suffix"].lower()]


def _joined(text: str) -> str:
    """Without spaces, apostrophes and underscores between thousands; superscripts as powers."""
    text = _SPACES.sub("", text.strip().replace("−", "-"))
    return re.sub(r"(?<=10)([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)", lambda match: "^" + match[1].translate(_SUPERSCRIPTS), text)


_BRACKETED = re.compile(r"(?P<name>.*?)\s*[(\[](?P<unit>[^)\]]*)[)\]]\s*")
_TRAILING = re.compile(r"(?P<name>.*?)[\s_-]+(?:in[\s_-]+)?(?P<unit>[a-z]+|[x×]?1e\d+)", re.IGNORECASE)


class Name(NamedTuple):
    """A column's name taken apart."""

    bare: str
    """Without its unit, or whatever stands in brackets at its end."""
    unit: float | None
    """What its numbers stand in."""


def split_name(name: str) -> Name:
    """`params (M)` -> ("params", 1e6); `N in millions` -> ("N", 1e6); `loss (nats)` -> ("loss", None)."""
    bracketed = _BRACKETED.fullmatch(name)
    if bracketed is not None:
        return Name(bracketed["name"], unit_of(bracketed["unit"]))
    trailing = _TRAILING.fullmatch(name)
    unit = None if trailing is None else unit_of(trailing["unit"])
    return Name(name, None) if trailing is None or unit is None else Name(trailing["name"], unit)


def unit_of(text: str) -> float | None:
    """The factor that a unit stands for: 1e6, 10^9, M, millions, exaFLOPs; None for any other word."""
    words = re.sub(r"[\s_-]+", " ", text.strip().lower())
    words = re.sub(r"^(in |x|×)\s*| (tokens?|params?|parameters?)$", "", words).strip()
    known = SUFFIXES | WORDS
    if words in known:
        return known[words]
    found = _read(words, decimal_commas=False, suffixes=False)
    return found if found is not None and found > 0 else None
