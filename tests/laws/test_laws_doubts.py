"""Where parabolas and surface disagree it is said, and the bias of parabolas is estimated from the surface itself."""

import numpy as np
import pytest
from synthetic_runs import BUDGETS, FLOPS_PER_TOKEN, surface, valley
from test_laws_isoflop import CHINCHILLA, EPOCH, points_of

from noiselaw.laws import fit_tables, from_json, tabulate_points, to_json


def spread_points(parameters, spread, scatter=0.0):
    """Fifteen sizes spread around the optimum of five budgets 1e17 to 1e21, C = 6 P D; and D* at 1e24."""
    floor, a, alpha, b, beta = parameters

    def optimal(flops):
        return (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))

    flops = np.repeat(np.geomspace(1e17, 1e21, 5), 15)
    params = optimal(flops) * np.tile(np.geomspace(1 / spread, spread, 15), 5)
    loss = floor + a * params**-alpha + b * (flops / 6 / params) ** -beta
    loss *= np.exp(scatter * np.random.default_rng(0).standard_normal(75))
    names = [f"run {index}" for index in range(75)]
    tables = tabulate_points(
        group=["x"] * 75, params=params, flops_per_token=6 * params, flops=flops, loss=loss, run=names
    )
    return tables, 1e24 / 6 / optimal(1e24)


def biases(fit):
    return [flag for flag in fit.flags if "biased" in flag]


@pytest.mark.parametrize(
    ("parameters", "spread", "bias_percent"),
    [
        *((CHINCHILLA, spread, bias) for spread, bias in ((2, -0.33), (4, -1.30), (8, -2.90), (16, -5.07))),
        *((EPOCH, spread, bias) for spread, bias in ((4, 0.39), (8, 0.89), (16, 1.59))),
    ],
)
def test_the_bias_of_wide_spreads_is_warned_about_with_its_size(parameters, spread, bias_percent):
    tables, truth = spread_points(parameters, spread)
    fit = fit_tables(tables, num_draws=10)["x"]
    (flag,) = biases(fit)
    assert flag.endswith(f"their D* at 1000 times the largest budget is off by {bias_percent:+.2f} %")
    assert 100 * (fit.laws["tokens"].law(1e24) / truth - 1) == pytest.approx(bias_percent, abs=0.006)


def test_a_narrow_spread_is_not_warned_about():
    tables, _ = spread_points(EPOCH, 2)
    assert biases(fit_tables(tables, num_draws=10)["x"]) == []


def test_the_bias_is_found_through_noise():
    tables, _ = spread_points(CHINCHILLA, 16, scatter=0.002)
    (flag,) = biases(fit_tables(tables, num_draws=10)["x"])
    assert -8 < float(flag.split("off by ")[1].split(" %")[0]) < -3


def test_a_surface_and_its_parabolas_agree():
    fit = fit_tables(points_of(surface, BUDGETS, FLOPS_PER_TOKEN))["a"]
    assert not any("model uncertainty" in flag for flag in fit.flags)


def test_the_paper_is_told_that_its_two_ways_disagree(paper_fits):
    for group, (by_parabolas, by_surface) in {"uniform": (0.589, 0.531), "balanced": (0.534, 0.502)}.items():
        (flag,) = (flag for flag in paper_fits[group].flags if "model uncertainty" in flag)
        assert f"C^{by_parabolas} by parabolas, as C^{by_surface} by the surface" in flag


def test_the_record_holds_the_laws_of_the_surface_beside_the_others():
    fits = fit_tables(points_of(surface, BUDGETS, FLOPS_PER_TOKEN), num_draws=10)
    record = to_json(fits, "6P")
    laws = record["groups"]["a"]["surface"]
    fitted = fits["a"].surface
    for flops in (1e12, 1e14):
        size = laws["flops_per_token"]["coefficient"] * flops ** laws["flops_per_token"]["exponent"]
        assert size == pytest.approx(float(fitted.optimal_size()(flops)), rel=1e-9)
        loss = laws["loss"]["offset"] + laws["loss"]["coefficient"] * flops ** laws["loss"]["exponent"]
        assert loss == pytest.approx(float(fitted(size, flops / size)), rel=1e-9)
        params = laws["params"]["coefficient"] * flops ** laws["params"]["exponent"]
        assert params == pytest.approx(size / 6, rel=1e-9)
    assert from_json(record) == fits


def test_a_surface_without_an_optimum_raises_no_doubt():
    """All sizes equally good: nothing to allocate."""
    fit = fit_tables(points_of(lambda size, tokens: valley(size, tokens) * size**0, BUDGETS, FLOPS_PER_TOKEN))["a"]
    assert all("nan" not in flag for flag in fit.flags)
