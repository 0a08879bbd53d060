"""Laws of compute by other methods than parabolas, as plans read them from what `noiselaw laws ... --json` printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.lawfits import LawFit, law_of
from noiselaw.laws.record import surface_of
from noiselaw.laws.surface import SurfaceFit

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OtherLaws:
    """The laws of one group (`noiselaw.laws.prediction.Laws`)."""

    group: str
    method: str
    laws: Mapping[str, LawFit]
    flags: tuple[str, ...]
    scatter: float | None
    degrees_of_freedom: float
    surface: SurfaceFit | None
    smallest_budget: float
    largest_budget: float

    def law(self, quantity: str) -> PowerLaw:
        """The law of a quantity over C. Raises ValueError, saying why, for a group without laws."""
        if quantity not in self.laws:
            reasons = "; ".join(self.flags)
            raise ValueError(f"group {self.group}: nothing to predict from ({reasons}); add runs or fit parabolas")
        return self.laws[quantity].law


def laws_of_surface(group: str, record: Record) -> OtherLaws:
    """From a group of `laws surface --json`: the loss is that of the surface itself, no power law."""
    laws = {name: law_of(law) for name, law in record["laws"].items() if name != "loss"}
    surface = turned_surface(record)
    smallest, largest = record["budgets"] if surface is not None else (0.0, 0.0)
    return OtherLaws(
        group, "surface", laws, tuple(record["flags"]), record.get("scatter"), record.get("degrees_of_freedom", 0.0),
        surface, smallest, largest,
    )  # fmt: skip


def turned_surface(record: Record) -> SurfaceFit | None:
    """The surface of a group of `laws surface --json` over FLOPs per token, whatever size it was fitted over."""
    if "parameters" not in record:
        return None
    size = record["flops_per_token_of_size"]
    return surface_of(record).over(PowerLaw(size["coefficient"], size["exponent"]))


def laws_of_frontier(group: str, record: Record) -> OtherLaws:
    """From a group of `laws frontier --json`."""
    kept = [arc for arc in record["optima"] if arc["kept"]]
    laws = {name: law_of(law) for name, law in record["laws"].items()}
    return OtherLaws(
        group, "frontier", laws, tuple(record["flags"]), record["scatter"], record["degrees_of_freedom"],
        surface_of(record) if "parameters" in record else None,
        min((arc["flops_low"] for arc in kept), default=0.0), max((arc["flops_high"] for arc in kept), default=0.0),
    )  # fmt: skip


READERS: dict[str, Callable[[str, Record], OtherLaws]] = {"surface": laws_of_surface, "frontier": laws_of_frontier}
"""By method."""
