"""Rows become budgets: shared ones, scattered ones, curves of runs; best of settings, repeats, windows."""

import numpy as np
import pytest
from synthetic_runs import BUDGETS, FLOPS_PER_TOKEN, MIDDLE, make_curves, surface, valley

from noiselaw.laws import fit_isoflop, fit_tables
from noiselaw.laws.budgets import NUM_BUDGETS, tabulate_budgets
from noiselaw.laws.build import build_table
from noiselaw.laws.isoflop import fit_isoflop_table
from noiselaw.laws.optima import narrow, pooled_scatter

SIZE, FLOPS = (grid.ravel() for grid in np.meshgrid(FLOPS_PER_TOKEN, BUDGETS, indexing="ij"))


def table_of(flops=FLOPS, size=SIZE, truth=valley, scatter=0.0, seed=0, **columns):
    luck = np.exp(scatter * np.random.default_rng(seed).standard_normal(size.size))
    return build_table(
        loss=truth(size, flops / size) * luck, params=size / 6, tokens=flops / size, flops=flops, **columns
    )


def curve_table(truth=valley, scatter=0.0):
    curves = make_curves(truth, scatter=scatter)
    return build_table(
        loss=np.concatenate([curve.loss for curve in curves]),
        tokens=np.concatenate([curve.tokens for curve in curves]),
        flops=np.concatenate([curve.flops for curve in curves]),
        params=np.concatenate([np.full(curve.tokens.size, curve.params) for curve in curves]),
        run=[curve.run for curve in curves for _ in curve.tokens],
    )


def only(tables):
    return tables["all"].table


def test_shared_budgets_are_taken_as_they_are():
    table = only(tabulate_budgets(table_of()))
    np.testing.assert_allclose(table.budgets, BUDGETS)
    assert table.loss.shape == (5, 5)
    np.testing.assert_allclose(table.flops_per_token, np.tile(FLOPS_PER_TOKEN, (5, 1)))
    law = fit_isoflop_table(table_of(), num_draws=10)["all"].laws["flops_per_token"].law
    assert (law.coefficient, law.exponent) == pytest.approx((MIDDLE / 3.2e11**0.53, 0.53), rel=1e-8)


def test_budgets_that_scatter_by_a_few_percent_are_gathered_at_clear_gaps():
    moved = FLOPS * np.exp(np.random.default_rng(0).uniform(-0.03, 0.03, FLOPS.size))
    found = tabulate_budgets(table_of(moved))["all"]
    np.testing.assert_allclose(found.table.budgets, BUDGETS, rtol=0.03)
    assert (np.isfinite(found.table.loss).sum(-1) == 5).all()
    assert found.notes[0].startswith("group all: rows gathered into 5 budgets, within which they differ by 0.05")
    law = fit_isoflop_table(table_of(moved), num_draws=10)["all"].laws["flops_per_token"].law
    assert law.exponent == pytest.approx(0.53, abs=0.02)


def test_one_nominal_budget_is_one_cluster():
    moved = 1e12 * np.exp(np.linspace(-0.02, 0.02, 5))
    table = only(tabulate_budgets(table_of(moved, FLOPS_PER_TOKEN)))
    assert table.loss.shape == (1, 5)


def test_rows_that_share_no_budget_are_refused_with_the_remedy():
    flops = np.geomspace(1e11, 1e13, 25)
    with pytest.raises(ValueError, match=r"group all: no budgets shared by 3 sizes .*--budgets.*--run.*fit a surface"):
        tabulate_budgets(table_of(flops))


def test_named_budgets_catch_the_rows_near_them():
    found = tabulate_budgets(table_of(), [BUDGETS[0] * 1.05, BUDGETS[1]])["all"]
    np.testing.assert_allclose(found.table.budgets, BUDGETS[:2])
    assert found.notes == ("group all: 15 rows lie near none of the budgets",)
    with pytest.raises(ValueError, match="give positive FLOPs"):
        tabulate_budgets(table_of(), [-1.0])


def test_curves_of_runs_are_read_at_named_budgets_as_a_study_reads_them():
    ours = fit_isoflop_table(curve_table(scatter=0.003), BUDGETS, num_draws=200)["all"]
    theirs = fit_isoflop(make_curves(valley, scatter=0.003), BUDGETS, num_draws=200)["masked"]
    for name, law in theirs.laws.items():
        assert ours.laws[name].law.exponent == pytest.approx(law.law.exponent, rel=1e-9)
        assert ours.laws[name].interval == pytest.approx(law.interval, rel=1e-6)


def test_curves_without_named_budgets_are_read_where_three_sizes_reach():
    found = tabulate_budgets(curve_table())["all"]
    assert found.table.budgets.size == NUM_BUDGETS
    assert (np.isfinite(found.table.loss).sum(-1) >= 3).all()
    assert found.notes == ("group all: 5 loss curves read at 8 budgets",)
    law = fit_isoflop_table(curve_table(), num_draws=10)["all"].laws["flops_per_token"].law
    assert law.exponent == pytest.approx(0.53, abs=0.01)


def test_the_best_batch_and_learning_rate_count_in_every_cell():
    worse = 1.0 + 0.02 * np.arange(3)
    rows = {"flops": np.repeat(FLOPS, 3), "size": np.repeat(SIZE, 3)}
    tuned = table_of(**rows, learning_rate=np.tile([0.1, 0.2, 0.4], 25))
    tuned = build_table(
        loss=tuned.loss * np.tile(worse, 25), params=tuned.params, tokens=tuned.tokens, flops=tuned.flops,
        learning_rate=tuned.learning_rate,
    )  # fmt: skip
    found = tabulate_budgets(tuned)["all"]
    np.testing.assert_allclose(found.table.loss, only(tabulate_budgets(table_of())).loss)
    assert found.notes == ("group all: best of several batch sizes and learning rates in 25 cells",)


def test_the_best_of_tuned_curves_counts():
    table = curve_table()
    twice = build_table(
        loss=np.concatenate([table.loss, table.loss * 1.02]), params=np.tile(table.params, 2),
        tokens=np.tile(table.tokens, 2), flops=np.tile(table.flops, 2),
        run=[*table.run, *(f"{name}-slow" for name in table.run)], learning_rate=np.repeat([0.1, 0.2], table.loss.size),
    )  # fmt: skip
    best, alone = (only(tabulate_budgets(one, BUDGETS)) for one in (twice, table))
    assert best.loss.shape == (5, 5)
    np.testing.assert_allclose(best.loss, alone.loss, rtol=1e-12)
    assert {best.run_name(0, column) for column in range(5)} == set(alone.runs)


def test_repeats_of_a_size_all_count():
    twice = table_of(np.tile(FLOPS, 2), np.tile(SIZE, 2), scatter=0.001)
    table = only(tabulate_budgets(twice))
    assert (np.isfinite(table.loss).sum(-1) == 10).all()
    assert fit_isoflop_table(twice, num_draws=10)["all"].laws["loss"].law.exponent == pytest.approx(-0.11, abs=2e-3)


def test_rows_of_their_own_runs_give_scatter_its_freedom():
    found = []
    for seed in range(30):
        scatter, freedom = pooled_scatter([only(tabulate_budgets(table_of(scatter=0.004, seed=seed)))])
        assert freedom == 5 * 2
        found.append(scatter**2)
    assert np.sqrt(np.mean(found)) == pytest.approx(0.004, rel=0.12)


def test_many_rows_of_their_own_do_not_fill_the_memory():
    import tracemalloc

    size = np.geomspace(FLOPS_PER_TOKEN[0], FLOPS_PER_TOKEN[-1], 30)
    sizes, flops = (grid.ravel() for grid in np.meshgrid(size, BUDGETS, indexing="ij"))
    table = only(tabulate_budgets(table_of(flops, sizes, scatter=0.003)))
    tracemalloc.start()
    fit_tables({"all": table})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e8


def test_a_window_keeps_the_sizes_near_the_best():
    size = np.geomspace(MIDDLE / 16, MIDDLE * 16, 17)
    sizes, flops = (grid.ravel() for grid in np.meshgrid(size, BUDGETS, indexing="ij"))
    table = only(tabulate_budgets(table_of(flops, sizes, surface)))
    near = narrow(table, 4.0)
    for budget in range(5):
        kept = np.log(table.flops_per_token[budget, np.isfinite(near.loss[budget])])
        center = np.log(table.flops_per_token[budget, np.argmin(table.loss[budget])])
        assert 3 < kept.size < 17
        assert np.abs(kept - center).max() <= np.log(4.0) + np.log(size[1] / size[0])
    assert narrow(table, None) is table
    with pytest.raises(ValueError, match=r"window 1.0: give a factor above 1"):
        narrow(table, 1.0)


def test_a_window_brings_parabolas_nearer_to_the_surface():
    """Far sizes bend the parabolas of a surface: near ones find its optimum."""
    size = np.geomspace(MIDDLE / 16, MIDDLE * 16, 33)
    sizes, flops = (grid.ravel() for grid in np.meshgrid(size, np.geomspace(1e10, 1e13, 7), indexing="ij"))
    table = table_of(flops, sizes, surface)
    truth = 0.37 / (0.34 + 0.37)
    far, near = (
        fit_isoflop_table(table, window=window, num_draws=10)["all"].laws["flops_per_token"].law.exponent - truth
        for window in (None, 2.0)
    )
    assert abs(near) < abs(far) / 5


def test_a_table_of_one_size_has_no_budget():
    with pytest.raises(ValueError, match="no budgets shared by 3 sizes"):
        fit_isoflop_table(table_of(np.array(BUDGETS), np.full(5, MIDDLE)))
