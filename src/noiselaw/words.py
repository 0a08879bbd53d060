"""Words that people mistype, and what they meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, whatever the case; None where none is near."""
    by_small_letters = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_small_letters, n=1, cutoff=0.5)
    return by_small_letters[near[0]] if near else None


def nearest_name(word: str, known: Iterable[str]) -> str:
    """The text " (did you mean ...?)" for the known word most like `word`, or nothing."""
    near = nearest(word, known)
    return f" (did you mean {near!r}?)" if near else ""
