"""Every published law derived anew from the paper's points: published, ours, and what explains the difference.

The points were recovered from pixels (data/SOURCE.md). How far that reaches is shown by refits of losses that are moved
by the recovery's standard deviations. Legend: S such refits, K budgets, R sizes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from noiselaw.laws.bootstrap import percentile_interval, resample_counts, resample_lines
from noiselaw.laws.curves import IsoflopTable, tabulate_points
from noiselaw.laws.discrepancy import PUBLISHED_DRAWS, REACH, Comparison, IntervalComparison, Section, half_unit
from noiselaw.laws.forms import Floats, Lines, fit_lines
from noiselaw.laws.frontier import Arc, raw_argmin
from noiselaw.laws.heldout import HeldOut, predict_large_runs
from noiselaw.laws.isoflop import QUANTITIES, IsoflopFit, Optimum, fit_tables
from noiselaw.laws.lawfits import OUTSIDE
from noiselaw.laws.optima import find_optima
from noiselaw.laws.published import (
    LOSS_GAPS,
    METHOD_1,
    METHOD_2_LAWS,
    NOISES,
    PAPER,
    PublishedLaw,
    PublishedSurface,
    Quantity,
    isoflop_laws,
    isoflop_tables,
    load_points,
    raw_isoflop_laws,
    surfaces,
)
from noiselaw.laws.surface import SurfaceFit, fit_surface
from noiselaw.laws.table import RunTable

NOT_DERIVABLE = (
    ("optimal batch against tokens, by noise and pooled", "data unpublished: losses by batch size"),
    ("optimal learning rate against batch, by noise and pooled", "data unpublished: losses by learning rate"),
    ("cooldown factor 1.0245 ± 0.0014", "data unpublished: pairs of runs; only the three large runs are known"),
    ("prefactors of method 2 (C = 6 P D)", "not printed: exponents only"),
    ("bits per byte per nat, benchmarks", "measured on text and models, not fitted"),
)
"""Published numbers that the points do not hold, and why."""

Logs = Mapping[str, Floats]
"""Natural logs of the best at every budget [..., K], by quantity."""


@dataclass(frozen=True, slots=True, eq=False)
class Reproduction:
    """All that the shipped points say about what was published."""

    fits: Mapping[str, IsoflopFit]
    """By noise; every optimum carries the laws and optima are resampled, as in the paper."""
    surfaces: Mapping[str, SurfaceFit]
    """By noise, over FLOPs per token and tokens."""
    sections: tuple[Section, ...]
    intervals: tuple[IntervalComparison, ...]
    held_out: tuple[HeldOut, ...]

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "method": "reproduce",
            "source": PAPER,
            "convention": METHOD_1,
            "fits": {group: _describe_fit(fit) for group, fit in self.fits.items()},
            "sections": {section.name: section.record() for section in self.sections},
            "intervals": [interval.record() for interval in self.intervals],
            "held_out": [held_out.record() for held_out in self.held_out],
            "not_derivable": [{"what": what, "why": why} for what, why in NOT_DERIVABLE],
        }


def reproduce(*, num_draws: int = PUBLISHED_DRAWS, seed: int = 0) -> Reproduction:
    """Fit the paper's points as the paper does and compare every published law (spec section 7)."""
    table = _fitted_points()
    fits = fit_tables(isoflop_tables(), keep="all", resample="optima", num_draws=num_draws, seed=seed)
    surface_fits = {noise: _fit_surface(rows) for noise, rows in table.groups()}
    return Reproduction(
        fits=fits,
        surfaces=surface_fits,
        sections=(
            _isoflop_section(fits, seed),
            _raw_section(table, seed),
            _surface_section(surface_fits),
            _method_2_section(),
            _gap_section(fits),
        ),
        intervals=_interval_comparisons(fits, num_draws, seed),
        held_out=predict_large_runs(fits),
    )


def _fitted_points() -> RunTable:
    """The points that the paper's laws are fitted to, row by row."""
    points = load_points()
    rows = {name: values[points["in_fit_mask"]] for name, values in points.items()}
    return RunTable(
        group=rows["noise"],
        run=np.char.add("P=", rows["non_emb_params"].astype(int).astype(str)),
        loss=rows["loss"],
        params=rows["non_emb_params"],
        tokens=rows["tokens"],
        flops=rows["target_flops"],
        flops_per_token=rows["flops_per_token"],
        convention=METHOD_1,
    )


def _describe_fit(fit: IsoflopFit) -> dict[str, Any]:
    return {
        "budgets": len(fit.optima),
        "largest_budget": fit.largest_budget,
        "vertices_outside": sum(OUTSIDE in optimum.flags for optimum in fit.optima),
        "flags": list(fit.flags),
    }


def _isoflop_section(fits: Mapping[str, IsoflopFit], seed: int) -> Section:
    tables, deviations = isoflop_tables(), isoflop_tables("loss_sd")
    rows = []
    for noise, fit in fits.items():
        moved = _vertices(*_moved_losses(tables[noise], deviations[noise], seed, least_sizes=3))
        rows += _compare_laws(isoflop_laws(), noise, fit.optima, moved)
    note = (
        "A parabola of log loss over log size at every budget with 3 sizes or more, a line in logs through the optima."
    )
    return Section("isoflop", "Laws of the parabolas' optima", note, _by_law(rows))


def _raw_section(table: RunTable, seed: int) -> Section:
    tables, deviations = isoflop_tables(), isoflop_tables("loss_sd")
    rows = []
    for noise, fit in raw_argmin(table, num_draws=2).items():
        _, moved = _moved_losses(tables[noise], deviations[noise], seed, least_sizes=1)
        rows += _compare_laws(raw_isoflop_laws(), noise, fit.optima, {"loss": np.nanmin(moved, axis=-1)})
    note = (
        "The lowest point of every budget, no interpolation. The sizes here are five known numbers, so the points "
        "explain nothing of what D, M and P miss: so closely, it seems, the published minimiser stopped."
    )
    return Section("raw", "Laws of the lowest points", note, _by_law(rows))


_NUM_MOVES = 400


def _moved_losses(
    table: IsoflopTable, deviations: IsoflopTable, seed: int, least_sizes: int
) -> tuple[IsoflopTable, Floats]:
    """The budgets with so many sizes, and log losses [S, K, R] moved as their recovery from pixels may have."""
    enough = np.isfinite(table.loss).sum(-1) >= least_sizes
    table = replace(table, budgets=table.budgets[enough], loss=table.loss[enough])
    moves = np.random.default_rng(seed).standard_normal((_NUM_MOVES, *table.loss.shape))
    return table, np.log(table.loss) + deviations.loss[enough] / table.loss * moves


def _vertices(table: IsoflopTable, log_loss: Floats) -> Logs:
    optima = find_optima(table, log_loss)
    tokens = np.log(table.budgets) - optima.flops_per_token
    return {
        "loss": optima.loss,
        "tokens": tokens,
        "flops_per_token": optima.flops_per_token,
        "params": optima.params,
    }


_DECIMALS = {"exponent": 5, "prefactor": 5, "R²": 4}
"""As printed."""


def _compare_laws(
    published: Iterable[PublishedLaw], noise: str, optima: Sequence[Optimum | Arc], moved: Logs
) -> list[Comparison]:
    """Numbers of every law of a noise through these optima; quantities that `moved` leaves out do not move."""
    log_budgets = np.log([optimum.budget for optimum in optima])
    rows = []
    for law in published:
        if law.group == noise:
            ours = _law_numbers(log_budgets, np.log([getattr(optimum, law.quantity) for optimum in optima]))
            spread = _law_numbers(log_budgets, moved[law.quantity]) if law.quantity in moved else ours
            printed = {"exponent": law.exponent, "prefactor": law.coefficient, "R²": law.r_squared}
            rows += [
                Comparison(noise, law.quantity, name, value, float(ours[name]), 0.5 * 10.0 ** -_DECIMALS[name],
                           REACH * float(spread[name].std()))
                for name, value in printed.items()
                if value is not None
            ]  # fmt: skip
    return rows


def _by_law(rows: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """One number of one law after the other, all noises together."""
    quantities: list[str] = list(QUANTITIES)
    numbers = list(_DECIMALS)
    return tuple(sorted(rows, key=lambda row: (quantities.index(row.quantity), numbers.index(row.number))))


def _law_numbers(log_budgets: Floats, y: Floats) -> dict[str, Floats]:
    """Of the lines through y [..., K]; R² is that of the logs."""
    lines = fit_lines(log_budgets, y)
    missed = y - Lines(*(part[..., None] for part in lines)).at(log_budgets)
    r_squared = 1 - (missed**2).sum(-1) / (y.var(-1) * y.shape[-1])
    return {"exponent": lines.slope, "prefactor": np.exp(lines.intercept), "R²": r_squared}


_SURFACE_DIGITS = 3


def _fit_surface(rows: RunTable) -> SurfaceFit:
    return fit_surface(rows.flops_per_token, rows.tokens, rows.loss, delta=math.inf)


def _surface_section(fits: Mapping[str, SurfaceFit]) -> Section:
    deviations = isoflop_tables("loss_sd")
    rows = []
    for law in surfaces():
        relative = deviations[law.group].loss / isoflop_tables()[law.group].loss
        rows += _compare_surface(law, fits[law.group], math.sqrt(np.nanmean(relative**2)))
    note = (
        "L = E + A M^-alpha + B D^-beta by least squares of log residuals, printed to three digits. Its own best size "
        "grows as C^(beta / (alpha + beta)), slower than that of the parabolas: the difference is model uncertainty."
    )
    return Section("surfaces", "Loss surfaces", note, tuple(rows))


def _compare_surface(law: PublishedSurface, fit: SurfaceFit, deviation: float) -> list[Comparison]:
    """`deviation` is what the recovery leaves in a log loss; the fit's covariance says how far that moves it."""
    errors = [deviation * math.sqrt(fit.covariance[index][index]) for index in range(5)]
    moved = dict(zip(("A", "alpha", "B", "beta", "E"), errors, strict=True))
    moved |= {name: moved[name] * getattr(fit, name) for name in ("A", "B", "E")}
    rows = [
        Comparison(law.group, "loss", name, getattr(law, name), getattr(fit, name),
                   half_unit(getattr(law, name), _SURFACE_DIGITS), REACH * moved[name])
        for name in ("E", "A", "alpha", "B", "beta")
    ]  # fmt: skip
    # Either exponent may be off by its rounding, in opposite directions.
    rounding = half_unit(law.beta, _SURFACE_DIGITS) / (law.alpha + law.beta)
    size = Comparison(
        law.group, "flops_per_token", "exponent", law.size_exponent, fit.optimal_size().exponent, rounding
    )
    return [*rows, size]


_METHOD_2_DECIMALS: dict[Quantity, int] = {"loss": 4, "tokens": 3, "params": 3}
_FIT_BUDGETS = (5e17, 2e20)
_FIT_LOSS = 4.0
"""The paper fits losses below it, at budgets within _FIT_BUDGETS (spec section 6)."""


def _method_2_section() -> Section:
    fits = fit_tables(_method_2_tables(), keep="all", resample="optima", num_draws=2)
    rows = [
        Comparison(law.group, law.quantity, "exponent", law.exponent, fits[law.group].law(law.quantity).exponent,
                   0.5 * 10.0 ** -_METHOD_2_DECIMALS[law.quantity])
        for law in METHOD_2_LAWS
    ]  # fmt: skip
    note = (
        "The paper read its loss curves off at budgets C = 6 P D. They are unpublished; here the points are "
        "interpolated (log loss over log C), which moves the optima by more than rounding."
    )
    return Section("method_2", "Laws with C = 6 P D", note, tuple(rows))


def _method_2_tables() -> dict[str, IsoflopTable]:
    """Losses of every size between its points, at the same budgets but of C = 6 P D."""
    points = load_points()
    budgets = np.unique(points["target_flops"])
    budgets = budgets[(budgets >= _FIT_BUDGETS[0]) & (budgets <= _FIT_BUDGETS[1])]
    rows: list[tuple[str, float, float, float]] = []
    for noise in NOISES:
        for params in np.unique(points["non_emb_params"]):
            mine = (points["noise"] == noise) & (points["non_emb_params"] == params)
            flops, loss = 6 * params * points["tokens"][mine], points["loss"][mine]
            inside = budgets[(budgets >= flops.min()) & (budgets <= flops.max())]
            read = np.exp(np.interp(np.log(inside), np.log(flops), np.log(loss)))
            rows += [(noise, params, c, y) for c, y in zip(inside, read, strict=True) if y < _FIT_LOSS]
    group, params, flops, loss = zip(*rows, strict=True)
    return tabulate_points(group=group, params=params, flops_per_token=6 * np.array(params), flops=flops, loss=loss)


def _gap_section(fits: Mapping[str, IsoflopFit]) -> Section:
    uniform, masked = (fits[noise].law("loss") for noise in ("uniform", "masked"))
    rows = [
        Comparison("uniform", "loss", f"gap at {flops:.0e}", gap, float(uniform(flops) / masked(flops)) - 1,
                   half_unit(gap, 2))
        for flops, gap in LOSS_GAPS.items()
    ]  # fmt: skip
    crossing = (uniform.coefficient / masked.coefficient) ** (1 / (masked.exponent - uniform.exponent))
    note = f"L* of uniform over L* of masked noise, minus one; the two laws cross at {crossing:.2g} FLOPs."
    return Section("gaps", "Uniform against masked noise", note, tuple(rows))


def _interval_comparisons(fits: Mapping[str, IsoflopFit], num_draws: int, seed: int) -> tuple[IntervalComparison, ...]:
    """The printed intervals beside percentiles of exact refits to resampled optima: the paper's way, without its cut.

    Intervals of the fits themselves are wider by Student's t, which pays for a scatter that is estimated.
    """
    ours = {noise: _percentiles(fit, num_draws, seed) for noise, fit in fits.items()}
    return tuple(
        _compare_interval(
            law, float(fits[law.group].law(law.quantity).exponent), ours[law.group][law.quantity], num_draws
        )
        for law in isoflop_laws()
        if law.interval is not None
    )


def _percentiles(fit: IsoflopFit, num_draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % of the exponents of resampled optima, by quantity."""
    logs = np.log([[getattr(optimum, name) for name in ("budget", *QUANTITIES)] for optimum in fit.optima]).T
    counts = resample_counts(np.random.default_rng(seed), num_draws, len(fit.optima))
    slopes = resample_lines(logs[0], logs[1:], counts).slope
    return {name: percentile_interval(drawn) for name, drawn in zip(QUANTITIES, slopes, strict=True)}


def _compare_interval(
    law: PublishedLaw, exponent: float, ours: tuple[float, float], num_draws: int
) -> IntervalComparison:
    assert law.interval is not None
    mirrored = None
    if law.quantity == "tokens":
        size = next(one for one in isoflop_laws() if (one.group, one.quantity) == (law.group, "flops_per_token"))
        assert size.interval is not None
        mirrored = 1 - size.interval[1], 1 - size.interval[0]
    exponents = law.exponent, exponent
    return IntervalComparison(law.group, law.quantity, exponents, law.interval, ours, mirrored, num_draws)
