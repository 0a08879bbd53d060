"""Strategies for files from anywhere: valid ones with bytes changed, or with one value in their JSON changed."""

import copy
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NUM_EXAMPLES = int(os.environ.get("NOISELAW_FUZZ_EXAMPLES", "0"))
"""Per reader, drawn anew every time; 0: few and always the same, for CI."""


def fuzzing(num_examples: int) -> settings:
    """`num_examples` in CI, NOISELAW_FUZZ_EXAMPLES where that is set."""
    return settings(
        max_examples=NUM_EXAMPLES or num_examples,
        derandomize=not NUM_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


DEEP = 100_000
HOSTILE_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320, math.inf, -math.inf, math.nan,
    "", "0", "x", "nan", "1e999", "\0", "a\nb", "\ud800", "../../etc/passwd", "/etc/passwd", "..", ".", "~root",
    "<script>alert(1)</script>", "!!python/object/apply:os.system ['true']", "%s%n{0.__class__}", "x" * 100_000,
    [], [[]], {}, [1, 2], ["a"], {"a": 1}, {"kind": "none"}, [None], {"__class__": "os.system"}, "\u202e", "9" * 5000,
]  # fmt: skip


def damaged_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` cut short, with bits flipped, bytes put in, doubled, or replaced by anything."""
    places = st.integers(0, max(0, len(content) - 1))
    flipped = st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=4).map(
        lambda bits: _with_bits_flipped(content, bits)
    )
    inserted = st.tuples(places, st.binary(min_size=1, max_size=20)).map(
        lambda pair: content[: pair[0]] + pair[1] + content[pair[0] :]
    )
    replaced = st.tuples(places, st.binary(min_size=1, max_size=20)).map(
        lambda pair: content[: pair[0]] + pair[1] + content[pair[0] + len(pair[1]) :]
    )
    cut = places.map(lambda place: content[:place])
    return st.one_of(flipped, cut, inserted, replaced, st.just(content * 2), st.binary(max_size=200), SHAPELESS)


SHAPELESS = st.sampled_from(
    [b"", b"\0" * 64, b"[" * DEEP, b'{"a":' * DEEP, b"\xff\xfe\x00", b"9" * 5000, b"null", b"3", b'"x"', b"[]", b"{}",
     b"[" * DEEP + b"]" * DEEP, b"\xef\xbb\xbf{}", b"- " * 2000, b"{" * 2000, b"NaN", b"a: &a [*a, *a]"]
)  # fmt: skip


def _with_bits_flipped(content: bytes, bits: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content or b"\0")
    for place, bit in bits:
        changed[place] ^= 1 << bit
    return bytes(changed)


def altered(value: Any) -> st.SearchStrategy[Any]:
    """`value` as JSON has it, with one or two places in it set to something hostile, taken out, or put in."""
    places = list(_places(value))
    one = st.tuples(st.sampled_from(places), st.sampled_from(["set", "set", "set", "drop", "add"]), _anything())
    return st.lists(one, min_size=1, max_size=2).map(lambda changes: _changed(value, changes))


def _anything() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(HOSTILE_VALUES), st.integers(), st.floats(), st.text(max_size=8))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, child in items:
        yield from _places(child, (*path, key))


def _changed(value: Any, changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
    value = copy.deepcopy(value)
    for path, change, new in changes:
        if not path:
            value = copy.deepcopy(new) if change == "set" else value
            continue
        *parents, last = path
        holder = value
        try:
            for key in parents:
                holder = holder[key]
            if change == "drop":
                del holder[last]
            elif change == "set":
                holder[last] = copy.deepcopy(new)
            else:
                holder["extra"] = copy.deepcopy(new)
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    return value


def write_json_as_is(path: Path, value: Any) -> None:
    """Also what is no JSON: NaN, infinity, half a surrogate pair."""
    path.write_bytes(json.dumps(value).encode("utf-8", errors="surrogatepass"))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below `folder`: equal before and after where nothing was written."""
    paths = sorted(folder.rglob("*"))
    return {str(path): (status.st_size, status.st_mtime_ns) for path in paths if (status := path.lstat())}
