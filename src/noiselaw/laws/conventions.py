"""Ways to count training FLOPs per token, by name: what turns any two of parameters, tokens, FLOPs into the third.

M training FLOPs per token (forward and backward), P parameters, L layers, d width, s sequence length. `given` is no
formula: FLOPs stand in the table row by row and M = C / D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from noiselaw.laws.forms import Floats

GIVEN = "given"
DEFAULT = "6P"

Needed = Literal["params", "layers", "width", "sequence_length"]


class Shapes(NamedTuple):
    """What counts depend on, [n] each; None where the table does not say."""

    params: Floats | None
    layers: Floats | None
    width: Floats | None
    sequence_length: Floats | None

    @property
    def attention(self) -> Floats:
        assert self.layers is not None
        assert self.width is not None
        assert self.sequence_length is not None
        return 12.0 * self.layers * self.width * self.sequence_length

    @property
    def matrices(self) -> Floats:
        assert self.layers is not None
        assert self.width is not None
        return 72.0 * self.layers * self.width**2


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to count."""

    needs: tuple[Needed, ...]
    """Besides parameters."""
    flops_per_token: Callable[[Shapes, Floats], Floats]
    """M from shapes and P."""
    params: Callable[[Shapes, Floats], Floats]
    """P from shapes and M."""


CONVENTIONS: dict[str, Convention] = {
    "6P": Convention((), lambda _, params: 6.0 * params, lambda _, flops: flops / 6.0),
    "6P+12Lds": Convention(
        ("layers", "width", "sequence_length"),
        lambda shapes, params: 6.0 * params + shapes.attention,
        lambda shapes, flops: (flops - shapes.attention) / 6.0,
    ),
    "72Ld2+12Lds": Convention(
        ("layers", "width", "sequence_length"),
        lambda shapes, _: shapes.matrices + shapes.attention,
        lambda shapes, _: shapes.matrices / 6.0,
    ),
}
"""`6P`: Chinchilla. `6P+12Lds`: with attention. `72Ld2+12Lds`: matrices of 12 L d^2 parameters, and attention.

The names are those of `noiselaw.accounting`, where the same counts are made from a model's shape.
"""

ALIASES = {"6P+attention": "6P+12Lds", "72Ld²+12Lds": "72Ld2+12Lds", "6N": "6P"}


def canonical(name: str) -> str:
    """The convention's own name. Raises ValueError for an unknown one."""
    found = ALIASES.get(name, name)
    if found not in CONVENTIONS and found != GIVEN:
        raise ValueError(f"unknown FLOPs convention {name!r}; known: {', '.join(CONVENTIONS)}, 6P+attention, {GIVEN}")
    return found


def convention_named(name: str, shapes: Shapes) -> Convention:
    """The convention, once everything it needs is there. Raises ValueError naming what is missing."""
    convention = CONVENTIONS[name]
    missing = [need for need in convention.needs if getattr(shapes, need) is None]
    if missing:
        wanted = ", ".join(need.replace("_", " ") for need in missing)
        raise ValueError(f"convention {name} needs {wanted}; name the columns (or give --sequence-length)")
    return convention
