"""What parabolas and surface say of each other: where they disagree, and how far parabolas stray from a known surface.

Both are ways to read the same points; their difference is what the form of the law is worth, and no interval holds it.
"""

import math
from collections.abc import Mapping

import numpy as np

from noiselaw.laws.allocation import optimal_laws
from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.forms import Floats, PowerLaw
from noiselaw.laws.optima import Keep, find_optima, fit_optimal_laws
from noiselaw.laws.surface import PARAMETERS, SurfaceFit

NEXT = 10.0
"""Times the largest budget: where the two are compared."""
FAR = 1000.0
"""Times the largest budget: where the bias of parabolas is read."""
_SIZES_DIFFER, _LOSSES_DIFFER, _BIASED = 0.1, 0.01, 0.0025

Laws = Mapping[str, PowerLaw]


def surface_laws(surface: SurfaceFit, params: PowerLaw) -> dict[str, PowerLaw]:
    """The laws along the optimum of a surface over FLOPs per token, `params` P of M; loss is the part above E."""
    parameters = {name: np.asarray(getattr(surface, name)) for name in PARAMETERS}
    logs = optimal_laws(parameters, PowerLaw(1.0, 1.0), params)
    return {name: PowerLaw(math.exp(pair[0]), float(pair[1])) for name, pair in logs.items()}


def is_allocating(surface: SurfaceFit) -> bool:
    """Whether the surface has an optimum at all."""
    return surface.alpha > 0 and surface.beta > 0


def below_floor(loss: Floats, surface: SurfaceFit) -> tuple[str, ...]:
    """A flag for losses [n] that the surface's own floor rules out."""
    below = int((loss <= surface.E).sum())
    return (
        (f"{below} of {loss.size} losses lie at or below the fitted E = {surface.E:.4g}: look at them",)
        if below
        else ()
    )


def disagreement(laws: Laws, surface: SurfaceFit, largest_budget: float) -> tuple[str, ...]:
    """A flag where parabolas and surface differ by more than 10 % in M* or 1 % in the loss at the next decade."""
    if not is_allocating(surface):
        return ()
    flops = NEXT * largest_budget
    size, optimal = float(laws["flops_per_token"](flops)), surface.optimal_size()
    by_surface = float(optimal(flops))
    loss = float(surface(by_surface, flops / by_surface)) / float(laws["loss"](flops)) - 1
    if abs(math.log(by_surface / size)) < _SIZES_DIFFER and abs(loss) < _LOSSES_DIFFER:
        return ()
    exponents = laws["flops_per_token"].exponent, optimal.exponent
    flag = (
        f"model uncertainty: FLOPs per token go as C^{exponents[0]:.3f} by parabolas, as C^{exponents[1]:.3f} by the "
        f"surface; at {NEXT:g} times the largest budget the surface's optimum is {by_surface / size:.2f} times as "
        f"large and its loss {abs(100 * loss):.2g} % {'higher' if loss > 0 else 'lower'}"
    )
    return (flag,)


def parabola_bias(table: IsoflopTable, surface: SurfaceFit, keep: Keep, kept: np.ndarray) -> tuple[str, ...]:
    """A flag for sizes so far apart that parabolas miss the optimum of the very surface they are drawn on.

    The fitted surface is sampled without noise where the table is, parabolas are fitted as to the table (the same
    budgets `kept` [K]), and their D* is held against the surface's at a thousand times the largest budget.
    """
    bias = estimate_bias(table, surface, keep, kept)
    if bias is None or abs(bias) < _BIASED:
        return ()
    flag = (
        "parabolas through sizes this far apart are biased: drawn on the fitted surface, without noise, their D* at "
        f"{FAR:g} times the largest budget is off by {100 * bias:+.2f} %"
    )
    return (flag,)


def estimate_bias(table: IsoflopTable, surface: SurfaceFit, keep: Keep, kept: np.ndarray) -> float | None:
    """D* of parabolas over D* of the surface they sample, minus one, far out; None where they have no law."""
    if not is_allocating(surface):
        return None
    size = table.cells(table.flops_per_token)
    with np.errstate(divide="ignore"):
        exact: Floats = np.log(surface(size, table.budgets[:, None] / size))
    optima = find_optima(table, np.where(np.isfinite(table.loss), exact, np.nan))
    law = fit_optimal_laws(np.log(table.budgets), optima, optima.carrying(keep) & kept).flops_per_token
    flops = FAR * float(table.budgets[kept].max())
    if not np.isfinite(law.slope):
        return None
    return float(surface.optimal_size()(flops)) / math.exp(law.at(math.log(flops))) - 1
