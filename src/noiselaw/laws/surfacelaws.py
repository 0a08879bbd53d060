"""A surface for every group of a table: parameters, the compute-optimal laws they imply, and how far to trust both.

Intervals are percentiles of refits that run to the bottom, all draws at once from the best fit on. What is drawn is
runs: weighted at random where there are many, else the fit with new luck for every run (`laws.luck`).
Legend: S draws, R runs, n points.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from noiselaw.laws.allocation import optimal_laws
from noiselaw.laws.bootstrap import default_draws, percentile_interval
from noiselaw.laws.descent import Points, derivatives, log_slopes
from noiselaw.laws.doubts import below_floor
from noiselaw.laws.forms import MAD_TO_DEVIATION, Floats, PowerLaw
from noiselaw.laws.lawfits import LawFit, law_fits, law_records, listed, lost_draws
from noiselaw.laws.luck import Luck, redraw, split_luck
from noiselaw.laws.record import surface_record
from noiselaw.laws.surface import (
    DELTA,
    PARAMETERS,
    Objective,
    SurfaceFit,
    fit_surface,
    minimize,
    start_at,
    surface_parameters,
    threshold,
)
from noiselaw.laws.table import RunTable

Size = Literal["params", "flops_per_token"]
"""What the surface is over, beside tokens."""

L1_COST = 4
"""Times the work of the others."""


@dataclass(frozen=True, slots=True)
class SurfaceLaws:
    """Everything fitted for one group."""

    group: str
    size: Size
    objective: Objective
    delta: float | None
    """Huber's; None for the others."""
    num_points: int
    num_runs: int
    num_draws: int
    """0 where too few runs tell an interval."""
    fit: SurfaceFit | None
    """None where the group has no surface; its flags say why."""
    deviation: float
    """Root mean square of the log residuals."""
    intervals: Mapping[str, tuple[float, float]]
    """Of the parameters, 95 %."""
    laws: Mapping[str, LawFit]
    """Over C, along the optimum: tokens, params, flops_per_token, and loss above E."""
    draws_gradient_norm: float
    """Largest, per point, at which a refit ended."""
    flags: tuple[str, ...]
    per_token: PowerLaw | None = None
    """FLOPs per token of the size, as the rows have it."""
    scatter: float | None = None
    """Standard deviation of the log loss between runs; None where too few tell it."""
    degrees_of_freedom: float = 0.0
    """Of the scatter."""
    budgets: tuple[float, float] = (math.nan, math.nan)
    """Smallest and largest FLOPs of the rows."""

    def record(self) -> dict[str, Any]:
        """Plain JSON: "parameters", "parameter_intervals", "laws", "flags", "certificate" and what was fitted how.

        The law of the loss has an "offset": L* = offset + coefficient C^exponent.
        """
        how = {name: getattr(self, name) for name in ("size", "objective", "delta", "num_points", "num_runs")}
        if self.fit is None:
            return {"laws": {}, "flags": list(self.flags), **how}
        laws, per_token = law_records(self.laws), self.per_token
        assert per_token is not None
        if laws:
            laws["loss"] = {**laws["loss"], "offset": self.fit.E}
        surface = surface_record(self.fit)
        draws = {"num_draws": self.num_draws, "draws_gradient_norm": self.draws_gradient_norm}
        return {
            "parameters": surface["parameters"],
            "parameter_intervals": {name: listed(self.intervals.get(name)) for name in PARAMETERS},
            "parameters_covariance": surface["parameters_covariance"],
            "parameters_covariance_of": surface["parameters_covariance_of"],
            "laws": laws,
            "flags": list(self.flags),
            "certificate": surface["certificate"] | draws,
            **how,
            "deviation": self.deviation,
            "scatter": self.scatter,
            "degrees_of_freedom": self.degrees_of_freedom,
            "budgets": list(self.budgets),
            "flops_per_token_of_size": {"coefficient": per_token.coefficient, "exponent": per_token.exponent},
        }


def fit_surface_table(
    table: RunTable,
    *,
    size: Size = "params",
    objective: Objective = "huber",
    delta: float = DELTA,
    num_draws: int | None = None,
    seed: int = 0,
) -> dict[str, SurfaceLaws]:
    """L = E + A size^-alpha + B tokens^-beta for every group of a table, with intervals and the laws along the optimum.

    C = M D with M a power of the size, as the rows of the table have it (exact for 6 P). `num_draws` is by default what
    about half a second allows. A group without a surface is flagged; raises ValueError where no group has one.
    """
    if num_draws is None:
        num_draws = default_draws(table.loss.size * (L1_COST if objective == "l1" else 1))
    how = _How(size, objective, threshold(objective, delta), num_draws, seed)
    fits = {group: _fit_group(group, rows, how) for group, rows in table.groups()}
    if all(fit.fit is None for fit in fits.values()):
        group, fit = next(iter(fits.items()))
        raise ValueError(f"group {group}: {fit.flags[-1]}")
    return fits


class _How(NamedTuple):
    size: Size
    objective: Objective
    delta: float
    num_draws: int
    seed: int


class _Draws(NamedTuple):
    parameters: dict[str, Floats]
    """[S] by name."""
    gradient_norm: float


def _fit_group(group: str, rows: RunTable, how: _How) -> SurfaceLaws:
    size = getattr(rows, how.size)
    runs, run = np.unique(rows.run, return_inverse=True)
    delta = how.delta if how.objective == "huber" else None
    empty = SurfaceLaws(
        group, how.size, how.objective, delta, rows.loss.size, runs.size, 0, None, math.nan, {}, {}, 0.0, ()
    )  # fmt: skip
    try:
        fit = fit_surface(size, rows.tokens, rows.loss, run, objective=how.objective, delta=how.delta)
    except ValueError as error:
        return replace(empty, flags=(f"no surface: {error}",))
    data, residuals = Points.checked(size, rows.tokens, rows.loss), np.log(rows.loss / fit(size, rows.tokens))
    draws = _draw(data, fit, residuals, run, how)
    luck = _typical_luck(data, fit, residuals, run, how)
    return replace(
        empty,
        scatter=math.hypot(luck.between_runs, luck.within_runs) if luck.tells_runs else None,
        degrees_of_freedom=luck.run_freedom,
        budgets=(float(rows.flops.min()), float(rows.flops.max())),
        per_token=PowerLaw.fit(size, rows.flops_per_token),
        num_draws=0 if draws is None else how.num_draws,
        fit=fit,
        deviation=math.sqrt(float((residuals**2).mean())),
        intervals={} if draws is None else {name: percentile_interval(x) for name, x in draws.parameters.items()},
        draws_gradient_norm=0.0 if draws is None else draws.gradient_norm,
        **_laws(rows, fit, draws, how.size),
    )


def _draw(data: Points, fit: SurfaceFit, residuals: Floats, run: np.ndarray, how: _How) -> _Draws | None:
    """Refits of drawn tables, from the best fit on; None where too few runs tell how they differ."""
    theta = start_at(fit, data)
    if not how.num_draws:
        return None
    drawn = redraw(
        data.y, log_slopes(data, theta)[1][0], residuals, run,
        delta=how.delta, num_draws=how.num_draws, seed=how.seed,
    )  # fmt: skip
    if drawn is None:
        return None
    tables = replace(data, y=drawn.log_loss, weights=drawn.weights)
    parts: list[Floats] = []
    worst = 0.0
    for index in np.array_split(np.arange(how.num_draws), max(1, how.num_draws * data.x.size // _CHUNK)):
        mine = tables.draws(index)
        found = minimize(mine, np.repeat(theta, index.size, axis=0), how.objective, how.delta).theta
        gradient = derivatives(mine, found, how.delta).gradient
        worst = max(worst, float(np.linalg.norm(gradient, axis=-1).max()) / data.x.size)
        parts.append(found)
    unit = how.delta if how.objective == "l1" else 1.0
    refits = surface_parameters(data, np.concatenate(parts))
    return _Draws(
        {name: drawn.widen(name, values, getattr(fit, name)) for name, values in refits.items()}, worst / unit
    )


_CHUNK = 2**18
"""Points of draws held at once."""


_OUTLIER = 3.0


def _typical_luck(data: Points, fit: SurfaceFit, residuals: Floats, run: np.ndarray, how: _How) -> Luck:
    """How runs scatter about the surface, for predictions; where outliers count less in the fit, they do here too."""
    if how.objective != "l2":
        most = _OUTLIER * MAD_TO_DEVIATION * float(np.median(np.abs(residuals)))
        residuals = np.clip(residuals, -most, most)
    return split_luck(residuals, log_slopes(data, start_at(fit, data))[1][0], run)


def _laws(rows: RunTable, fit: SurfaceFit, draws: _Draws | None, size: Size) -> dict[str, Any]:
    """The laws along the optimum, and every flag of the group."""
    sizes = getattr(rows, size)
    per_token, params = PowerLaw.fit(sizes, rows.flops_per_token), PowerLaw.fit(sizes, rows.params)
    estimates = {name: np.asarray(getattr(fit, name)) for name in PARAMETERS}
    flags = _fit_flags(rows, fit, sizes, has_draws=draws is not None)
    if fit.alpha <= 0 or fit.beta <= 0:
        return {"laws": {}, "flags": (*flags, "no laws: the loss does not fall with size and tokens both")}
    drawn = None if draws is None else optimal_laws(draws.parameters, per_token, params)
    laws = law_fits(optimal_laws(estimates, per_token, params), drawn)
    missed = max(
        float(np.abs(np.log(column / law(sizes))).max())
        for law, column in ((per_token, rows.flops_per_token), (params, rows.params))
    )
    if missed > _POWER_MISS:
        flags += (f"FLOPs per token are no power of the size: laws over C hold to about {missed:.0%}",)
    return {"laws": laws, "flags": flags + (() if drawn is None else lost_draws(drawn))}


_POWER_MISS = 0.05


def _fit_flags(rows: RunTable, fit: SurfaceFit, sizes: Floats, *, has_draws: bool) -> tuple[str, ...]:
    certificate, flags = fit.certificate, [*below_floor(rows.loss, fit)]
    flags += [f"{name} at its bound 0: the data do not show it" for name in certificate.active_bounds]
    if certificate.agreeing_starts < certificate.num_starts / 2:
        flags.append(f"only {certificate.agreeing_starts} of {certificate.num_starts} starts end at this minimum")
    spread = certificate.parameter_spread
    if spread is not None and spread > _UNDETERMINED:
        amount = f"by {spread:.0%}" if spread < _TENFOLD else "more than tenfold"
        flags.append(f"the data do not determine the parameters: equally good fits differ {amount} in one of them")
    if np.ptp(np.log(rows.tokens)) < _NARROW or np.ptp(np.log(sizes)) < _NARROW:
        flags.append("sizes or tokens span less than a factor of 2")
    if not has_draws:
        flags.append("no interval: too few runs to tell how they differ")
    return tuple(flags)


_NARROW = math.log(2.0)
_UNDETERMINED = 0.01
"""Relative difference between equally good parameters."""
_TENFOLD = 10.0
