"""Plans from what every method of `laws` printed: surfaces and frontiers stand in for parabolas."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import SURFACE, surface

from noiselaw.laws import predict_loss
from noiselaw.laws.build import build_table
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.frontier import fit_frontier, raw_argmin
from noiselaw.laws.isoflop import fit_isoflop_table
from noiselaw.laws.ownbook import read_book
from noiselaw.laws.planner import Budget, plan_training
from noiselaw.laws.record import to_json
from noiselaw.laws.surface import fit_surface
from noiselaw.laws.surfacelaws import fit_surface_table

PARAMS, TOKENS = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e6, 12), np.geomspace(1e5, 1e7, 12)))
TOTAL = SURFACE["alpha"] + SURFACE["beta"]


def table_of(groups=("masked",), scatter=0.001, seed=0):
    generator = np.random.default_rng(seed)
    loss = [surface(6 * PARAMS, TOKENS) * np.exp(scatter * generator.standard_normal(12))[np.arange(144) % 12]] * len(
        groups
    )
    return build_table(
        loss=np.concatenate(loss), params=np.tile(PARAMS, len(groups)), tokens=np.tile(TOKENS, len(groups)),
        group=np.repeat(groups, 144).tolist(), run=[f"{group}-{size:.0f}" for group in groups for size in PARAMS],
    )  # fmt: skip


def record_of(method, fits, convention="6P"):
    return {"method": method, "convention": convention, "groups": {name: fit.record() for name, fit in fits.items()}}


@pytest.fixture
def write(tmp_path):
    def write_record(name, record):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        return path

    return write_record


@pytest.mark.parametrize("size", ["params", "flops_per_token"])
def test_a_surface_alone_plans_as_its_formula_says(write, size):
    path = write("surface", record_of("surface", fit_surface_table(table_of(scatter=0), size=size, num_draws=20)))
    book = read_book([path])
    fit, flops = book.fit("masked"), 1e15
    optimal = (SURFACE["alpha"] * SURFACE["A"] / SURFACE["beta"] / SURFACE["B"]) ** (1 / TOTAL)
    best = optimal * flops ** (SURFACE["beta"] / TOTAL)
    assert float(fit.law("flops_per_token")(flops)) == pytest.approx(best, rel=1e-5)
    prediction = predict_loss(fit, flops)
    assert prediction.value == prediction.surface_value == pytest.approx(float(surface(best, flops / best)), rel=1e-6)
    assert fit.largest_budget == pytest.approx(6e13)
    plan = plan_training(book, "masked", Budget("flops", flops))
    assert plan.loss.value == pytest.approx(float(surface(plan.flops_per_token, plan.tokens)), rel=1e-5)
    assert plan.extrapolation_factor == pytest.approx(plan.flops / 6e13)


def test_intervals_of_a_surfaces_predictions_hold_new_runs(write):
    flops, covered = 1e15, []
    generator = np.random.default_rng(5)
    for seed in range(40):
        fits = fit_surface_table(table_of(scatter=0.004, seed=seed), objective="l2", num_draws=0)
        fit = read_book([write("surface", record_of("surface", fits))]).fit("masked")
        size = float(fit.law("flops_per_token")(flops))
        low, high = predict_loss(fit, flops, size).interval
        truth = float(surface(size, flops / size)) * math.exp(0.004 * generator.standard_normal())
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.87
    assert (high - low) / truth < 0.08


def test_a_surface_over_another_size_is_the_same_surface():
    loss = 1.5 + 300 * PARAMS**-0.3 + 200 * TOKENS**-0.28
    law = PowerLaw(9.0, 1.1)
    by_params = fit_surface(PARAMS, TOKENS, loss * np.exp(0.002 * np.cos(np.arange(144))), objective="l2")
    turned = by_params.over(law)
    np.testing.assert_allclose(turned(law(PARAMS), TOKENS), by_params(PARAMS, TOKENS), rtol=1e-10)
    direct = fit_surface(law(PARAMS), TOKENS, loss * np.exp(0.002 * np.cos(np.arange(144))), objective="l2")
    assert turned.standard_error(float(law(1e7)), 1e8) == pytest.approx(
        direct.standard_error(float(law(1e7)), 1e8), rel=1e-4
    )
    assert turned.alpha == pytest.approx(direct.alpha, rel=1e-6)


def test_a_frontier_alone_plans_by_its_laws(write):
    fits = fit_frontier(table_of(), num_draws=100)
    book = read_book([write("frontier", record_of("frontier", fits))])
    plan = plan_training(book, "masked", Budget("flops", 1e15))
    law = fits["masked"].laws["loss"].law
    assert plan.loss.value == pytest.approx(float(law(plan.flops)))
    assert plan.loss.interval[0] < plan.loss.value < plan.loss.interval[1]
    # Of a loss with a floor no power law foretells more: the interval owns up to what the surface says.
    truth = float(surface(plan.flops_per_token, plan.tokens))
    assert plan.loss.surface == pytest.approx(truth, rel=0.01)
    assert plan.loss.interval[0] < truth < plan.loss.interval[1]
    assert any("model uncertainty" in flag for flag in plan.flags)
    assert book.fit("masked").largest_budget == max(arc.flops_high for arc in fits["masked"].optima if arc.kept)
    raw = read_book([write("raw", record_of("frontier", raw_argmin(table_of(), num_draws=50)))])
    with pytest.raises(ValueError, match=r"no loss surface, .* add what `noiselaw laws surface --json` says"):
        plan_training(raw, "masked", Budget("flops", 1e15), unique_tokens=1e6)
    scarce = plan_training(book, "masked", Budget("flops", 1e15), unique_tokens=1e6)
    assert scarce.loss.scarcity_penalty > 1


def test_a_surface_beside_parabolas_takes_the_place_of_theirs(write):
    table = table_of()
    parabolas = write("isoflop", to_json(fit_isoflop_table(table, np.geomspace(1e12, 1e13, 5), num_draws=50), "6P"))
    other = fit_surface_table(table, objective="huber", num_draws=20)
    book = read_book([parabolas, write("surface", record_of("surface", other))])
    assert read_book([parabolas]).fit("masked").surface.alpha != book.fit("masked").surface.alpha
    assert book.fit("masked").surface.alpha == pytest.approx(other["masked"].fit.alpha)
    assert book.fit("masked").laws == read_book([parabolas]).fit("masked").laws


def test_the_laws_of_a_table_without_groups_stand_for_any_objective(write):
    table = replace(table_of(), group=np.repeat("all", 144))
    book = read_book([write("surface", record_of("surface", fit_surface_table(table, num_draws=20)))])
    plan = plan_training(book, "uniform", Budget("flops", 1e15))
    assert plan.group == "uniform"
    assert plan_training(book, "autoregressive", Budget("flops", 1e15)).flops == plan.flops
    with pytest.raises(ValueError, match="no laws for 'unifrom'"):
        plan_training(book, "unifrom", Budget("flops", 1e15))


def test_a_group_without_a_surface_is_no_group_to_plan_for(write):
    table = table_of(("masked", "uniform"))
    few = np.flatnonzero((table.group == "masked") | (np.arange(288) > 284))
    fits = fit_surface_table(table.rows(few), num_draws=20)
    book = read_book([write("surface", record_of("surface", fits))])
    assert book.groups == ("masked",)
    with pytest.raises(ValueError, match=r"group uniform: nothing to predict from .no surface"):
        plan_training(book, "uniform", Budget("flops", 1e15))
