"""The published laws derived anew: every printed number, what explains a difference, the runs that no fit has seen."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from noiselaw.laws import isoflop_laws, load_points
from noiselaw.laws.discrepancy import Comparison, IntervalComparison, half_unit
from noiselaw.laws.published import LARGE_RUNS, METHOD_2_LAWS, NOISES, isoflop_tables, raw_isoflop_laws, surfaces
from noiselaw.laws.reproduce import reproduce


@pytest.fixture(scope="module")
def found():
    return reproduce()


@pytest.fixture(scope="module")
def sections(found):
    return {section.name: section for section in found.sections}


def rows_of(section, **wanted):
    return [row for row in section.comparisons if all(getattr(row, name) == value for name, value in wanted.items())]


def test_every_number_of_the_papers_tables_is_compared(sections):
    compared = {(row.group, row.quantity, row.number): row.published for row in sections["isoflop"].comparisons}
    for law in isoflop_laws():
        assert compared.pop((law.group, law.quantity, "exponent")) == law.exponent
        assert compared.pop((law.group, law.quantity, "prefactor")) == law.coefficient
        assert compared.pop((law.group, law.quantity, "R²")) == law.r_squared
    assert not compared
    assert len(rows_of(sections["raw"], number="exponent")) == len(raw_isoflop_laws()) == 20
    assert len(rows_of(sections["surfaces"], number="alpha")) == len(surfaces()) == 5
    assert len(sections["method_2"].comparisons) == len(METHOD_2_LAWS) == 15


def test_exponents_of_the_parabolas_differ_by_less_than_5e_5(sections):
    rows = rows_of(sections["isoflop"], number="exponent")
    assert len(rows) == 20
    assert max(abs(row.difference) for row in rows) < 5e-5


@pytest.mark.parametrize("name", ["isoflop", "surfaces", "gaps"])
def test_rounding_and_recovery_explain_every_difference(sections, name):
    assert [row for row in sections[name].comparisons if row.explained_by is None] == []


def test_r_squared_is_explained_by_rounding_alone(sections):
    rows = rows_of(sections["isoflop"], number="R²")
    assert {row.explained_by for row in rows} == {"rounding"}


def test_numbers_of_the_parabolas_are_those_of_the_fits(found, sections):
    for row in sections["isoflop"].comparisons:
        fit = found.fits[row.group]
        law = fit.laws[row.quantity].law
        x, y = np.log([(one.budget, getattr(one, row.quantity)) for one in fit.optima]).T
        expected = {
            "exponent": law.exponent,
            "prefactor": law.coefficient,
            "R²": stats.linregress(x, y).rvalue ** 2,
        }
        assert row.ours == pytest.approx(expected[row.number], rel=1e-8), row


def test_raw_laws_are_lines_through_the_lowest_points_of_45_budgets(sections):
    points = load_points()
    kept = points["in_fit_mask"]
    columns = {"flops_per_token": "flops_per_token", "params": "non_emb_params", "tokens": "tokens", "loss": "loss"}
    for noise in NOISES:
        mine = kept & (points["noise"] == noise)
        budgets = np.unique(points["target_flops"][mine])
        assert budgets.size == 45
        at = [np.flatnonzero(mine & (points["target_flops"] == budget)) for budget in budgets]
        best = [rows[np.argmin(points["loss"][rows])] for rows in at]
        for quantity, column in columns.items():
            slope, intercept = np.polyfit(np.log(budgets), np.log(points[column][best]), 1)
            (exponent,) = rows_of(sections["raw"], group=noise, quantity=quantity, number="exponent")
            assert exponent.ours == pytest.approx(slope, rel=1e-8)
            for prefactor in rows_of(sections["raw"], group=noise, quantity=quantity, number="prefactor"):
                assert prefactor.ours == pytest.approx(math.exp(intercept), rel=1e-6)


def test_raw_laws_agree_with_print(sections):
    assert max(abs(row.difference) for row in rows_of(sections["raw"], number="exponent")) < 3.2e-5
    for row in rows_of(sections["raw"], number="prefactor"):
        assert abs(row.difference) < row.rounding + 2e-4 * row.published
    # Sizes are known exactly, so the recovery of losses explains nothing of D, M, P.
    assert {row.spread for row in sections["raw"].comparisons if row.quantity != "loss"} == {0.0}


def polyfit_exponents(table, loss):
    """Exponents of M* and L* by one polyfit per budget, then one per law."""
    optima = []
    for budget, row in zip(table.budgets, loss, strict=True):
        known = np.isfinite(row)
        if known.sum() >= 3:
            c2, c1, c0 = np.polyfit(np.log(table.flops_per_token[known]) - 20, np.log(row[known]), 2)
            vertex = -c1 / (2 * c2)
            optima.append((math.log(budget), vertex, c0 + c1 * vertex + c2 * vertex**2))
    x, *ys = np.array(optima).T
    return [np.polyfit(x, y, 1)[0] for y in ys]


def test_the_reach_of_the_recovery_is_that_of_refits(sections):
    table, deviations = isoflop_tables()["masked"], isoflop_tables("loss_sd")["masked"]
    generator = np.random.default_rng(5)
    moves = generator.standard_normal((80, *table.loss.shape))
    refits = [polyfit_exponents(table, table.loss + deviations.loss * move) for move in moves]
    for quantity, spread in zip(("flops_per_token", "loss"), 3 * np.std(refits, axis=0), strict=True):
        (row,) = rows_of(sections["isoflop"], group="masked", quantity=quantity, number="exponent")
        assert row.spread == pytest.approx(spread, rel=0.25)


def test_surfaces_report_how_far_their_own_optimum_disagrees(sections):
    for law in surfaces():
        (row,) = rows_of(sections["surfaces"], group=law.group, quantity="flops_per_token")
        assert row.published == pytest.approx(law.beta / (law.alpha + law.beta))
        (parabolas,) = rows_of(sections["isoflop"], group=law.group, quantity="flops_per_token", number="exponent")
        assert row.ours < parabolas.ours


def test_method_2_is_close_where_points_are_interpolated(sections):
    for row in sections["method_2"].comparisons:
        assert abs(row.difference) < (1.1e-4 if row.quantity == "loss" else 4e-3)
    for noise in NOISES:
        tokens, params = (
            rows_of(sections["method_2"], group=noise, quantity=name)[0].ours for name in ("tokens", "params")
        )
        assert tokens + params == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "explained"), [(0.43371, "rounding"), (0.433714, "rounding"), (0.43373, "points"), (0.4338, None)]
)
def test_what_explains_a_difference(ours, explained):
    row = Comparison("masked", "tokens", "exponent", 0.43371, ours, rounding=0.5e-5, spread=3e-5)
    assert row.explained_by == explained
    assert row.record()["difference"] == pytest.approx(ours - 0.43371)


@pytest.mark.parametrize(
    ("value", "digits", "half"), [(1920, 3, 5), (0.292, 3, 5e-4), (-0.02, 2, 5e-4), (0.0011, 2, 5e-5)]
)
def test_half_a_unit_of_the_last_digit(value, digits, half):
    assert half_unit(value, digits) == pytest.approx(half)


def interval(found, group, quantity) -> IntervalComparison:
    return next(row for row in found.intervals if (row.group, row.quantity) == (group, quantity))


def test_the_published_truncation_is_told(found):
    uniform = interval(found, "uniform", "tokens")
    assert uniform.explained_by[1] == "cut short"
    assert uniform.published[1] - uniform.exponent[0] == pytest.approx(0.0011)
    assert uniform.ours[1] - uniform.exponent[1] == pytest.approx(0.019, abs=1e-3)
    cut = {(row.group, row.quantity) for row in found.intervals if "cut short" in row.explained_by}
    assert {("masked", "loss"), ("balanced", "loss"), ("high-uniform", "tokens")} <= cut
    assert not [pair for pair in cut if pair[1] == "flops_per_token"]
    assert all(end is not None for row in found.intervals for end in row.explained_by)


def test_intervals_of_tokens_mirror_those_of_size(found):
    for noise in NOISES:
        tokens, size = interval(found, noise, "tokens"), interval(found, noise, "flops_per_token")
        assert tokens.mirrored == (1 - size.published[1], 1 - size.published[0])
        assert tokens.ours == pytest.approx((1 - size.ours[1], 1 - size.ours[0]))
        assert size.mirrored is None


def test_draws_explain_ends_that_two_bootstraps_would_differ_by():
    generator = np.random.default_rng(0)
    published, ours = (np.quantile(generator.standard_normal((300, size)), 0.975, axis=-1) for size in (10_000, 1000))
    apart = (published - ours).std()
    exact = IntervalComparison("x", "flops_per_token", (0.0, 0.0), (-1.96, 1.96), (-1.96, 1.96), None, 1000)
    rounding = 0.05  # half a unit of the second digit
    ends = [replace(exact, published=(-1.96, 1.96 + rounding + times * apart)) for times in (2.5, 3.5)]
    assert [end.explained_by[1] for end in ends] == ["draws", None]


def test_an_unexplained_end_is_flagged_wherever_nothing_cuts_it():
    wide = IntervalComparison("x", "flops_per_token", (0.5, 0.5), (0.48, 0.51), (0.48, 0.52), None, 10_000)
    assert wide.explained_by == ("rounding", None)
    assert replace(wide, quantity="tokens").explained_by == ("rounding", "cut short")
    assert replace(wide, quantity="tokens", published=(0.48, 0.53)).explained_by == ("rounding", None)


def test_large_runs_are_predicted_without_being_fitted(found):
    assert [row.run for row in found.held_out] == list(LARGE_RUNS)
    for row in found.held_out:
        run, law = row.run, found.fits[row.run.group].laws["loss"].law
        assert row.before_cooldown.predicted == pytest.approx(float(law(run.flops)))
        assert row.before_cooldown.predicted == pytest.approx(row.printed_law, rel=3e-4)
        assert row.final.predicted == pytest.approx(float(law(run.flops)) / 1.0245)
        assert (row.before_cooldown.measured, row.final.measured) == (run.loss_before_cooldown, run.loss)
        assert row.extrapolation_factor == pytest.approx(run.flops / 5.748427401e19)
        assert row.before_cooldown.is_inside
        assert row.final.is_inside
        low, high = row.final.interval
        assert low < row.before_cooldown.interval[0] / 1.0245 < row.before_cooldown.interval[1] / 1.0245 < high
    errors = [row.before_cooldown.error_percent for row in found.held_out]
    assert errors == pytest.approx([-0.93, -1.36, -2.41], abs=0.01)
    factors = [row.measured_cooldown_factor for row in found.held_out]
    assert factors == pytest.approx([2.495 / 2.422, 2.538 / 2.462, 2.275 / 2.214])


def test_the_record_is_plain_json(found):
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record == found.record()
    assert set(record["sections"]) == {"isoflop", "raw", "surfaces", "method_2", "gaps"}
    assert len(record["intervals"]) == 15
    assert record["fits"]["uniform"]["budgets"] == 36
    assert [record["fits"][noise]["vertices_outside"] for noise in NOISES] == [4, 3, 4, 6, 5]
    assert all(row["why"] for row in record["not_derivable"])


def test_tables_hold_the_points_within_the_mask(paper_tables):
    for noise, table in isoflop_tables().items():
        np.testing.assert_array_equal(table.loss, paper_tables[noise].loss)
    assert sum(np.isfinite(table.loss).sum() for table in isoflop_tables().values()) == 840
