"""Vectorised draws equal a loop of single fits, and their intervals hold what they promise."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import BUDGETS, make_curves, make_tables, valley

from noiselaw.laws import fit_isoflop, fit_tables, predict_loss
from noiselaw.laws.bootstrap import percentile_interval, resample_counts, run_effects, student_quantile
from noiselaw.laws.optima import find_optima, fit_optimal_laws, resample_optimal_laws


def test_resampled_laws_equal_a_loop_of_refits(paper_tables):
    table = paper_tables["uniform"]
    table = replace(table, budgets=table.budgets[:36], loss=table.loss[:36])
    optima = find_optima(table, np.log(table.loss))
    log_budgets = np.log(table.budgets)
    counts = resample_counts(np.random.default_rng(0), 200, 36)
    assert (counts.sum(-1) == 36).all()
    laws = resample_optimal_laws(log_budgets, optima, optima.usable, counts).logs()
    for name, y in (("loss", optima.loss), ("params", optima.params), ("flops_per_token", optima.flops_per_token)):
        for draw, count in enumerate(counts):
            rows = np.repeat(np.arange(36), count.astype(int))
            slope, intercept = np.polyfit(log_budgets[rows], y[rows], 1)
            np.testing.assert_allclose(laws[name][draw], (intercept, slope), rtol=1e-8)


def test_laws_of_shifted_runs_equal_a_loop_of_whole_fits():
    table = make_tables(valley, scatter=0.004)["masked"]
    shifts = run_effects(np.random.default_rng(1), 8, 5, 0.01)
    optima = find_optima(table, np.log(table.loss) + shifts[:, None, :])
    laws = fit_optimal_laws(np.log(table.budgets), optima, optima.inside).logs()
    assert not optima.inside.all()
    for draw, shift in enumerate(shifts):
        moved = replace(table, loss=table.loss * np.exp(shift))
        fit = fit_tables({"masked": moved}, num_draws=2)["masked"]
        for name, logs in laws.items():
            law = fit.laws[name].law
            np.testing.assert_allclose(logs[draw], (math.log(law.coefficient), law.exponent), rtol=1e-9)


def test_draws_repeat_with_the_seed():
    curves = make_curves(valley, scatter=0.003)
    first, second, other = (fit_isoflop(curves, BUDGETS, num_draws=200, seed=seed)["masked"] for seed in (0, 0, 1))
    assert first.laws == second.laws
    assert first.laws["loss"].interval != other.laws["loss"].interval


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 8, 9, 30])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_quantiles(freedom, level):
    assert student_quantile(level, freedom) == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=1e-9)


def test_intervals_widen_about_the_estimate_with_few_degrees_of_freedom():
    draws = np.random.default_rng(0).standard_normal(100_000)
    draws[::10] = np.nan
    assert percentile_interval(2 + draws, 2.0, 0.95) == pytest.approx((0.04, 3.96), abs=0.03)
    low, high = percentile_interval(2 + draws, 2.0, 0.95, 4)
    assert high - 2 == pytest.approx(stats.t.ppf(0.975, 4), abs=0.05)
    assert 2 - low == pytest.approx(stats.t.ppf(0.975, 4), abs=0.05)


def test_intervals_cover_new_runs_and_true_exponents():
    """Five sizes, five budgets over one decade, one luck per run: predict a run at four times the largest budget."""
    flops, scatter, groups = 4e12, 0.004, ("a", "b", "c", "d")
    generator = np.random.default_rng(7)
    covered, exponents = [], []
    for seed in range(12):
        fits = fit_tables(make_tables(valley, groups, scatter, seed), num_draws=400)
        for fit in fits.values():
            low, high = predict_loss(fit, flops).interval
            covered.append(low <= 60.0 * flops**-0.11 * math.exp(scatter * generator.standard_normal()) <= high)
            interval = fit.laws["loss"].interval
            exponents.append(interval[0] <= -0.11 <= interval[1])
    assert 0.87 <= np.mean(covered) <= 1.0
    assert 0.85 <= np.mean(exponents) <= 1.0
