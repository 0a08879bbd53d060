"""Every method of `noiselaw laws` recovers laws that its table was made from."""

import json
import math

import numpy as np
import pytest

from noiselaw.laws.cooldown import fit_cooldown
from noiselaw.laws.crossing import find_crossings
from noiselaw.laws.datalaws import fit_data_laws
from noiselaw.laws.effective import Rows, log_loss, log_slopes
from noiselaw.laws.frontier import fit_frontier
from noiselaw.laws.hyperparameters import fit_hyperparameters
from noiselaw.laws.repeated import fit_repeated
from noiselaw.laws.table import RunTable
from noiselaw.laws.tokens import fit_tokens

DRAWS = 50


def table_of(rows, **columns) -> RunTable:
    """From rows of (group, run, params, tokens, loss); C = 6 P D."""
    group, run, params, tokens, loss = (np.array(column) for column in zip(*rows, strict=True))
    return RunTable(group, run, loss, params, tokens, 6 * params * tokens, 6 * params, "6P", **columns)


def test_tokens_recovers_the_laws_of_exact_parabolas():
    rows = []
    for tokens in np.geomspace(1e8, 1e10, 6):
        best, least = 300.0 * tokens**0.5, 12.0 * tokens**-0.08
        for size in np.geomspace(1e6, 6e7, 7):
            loss = least * math.exp(0.02 * math.log(size / best) ** 2)
            rows.append(("all", f"{size:.0f}", size, tokens, loss))
    laws = fit_tokens(table_of(rows), num_draws=DRAWS)["all"].laws
    assert laws["loss"].law.exponent == pytest.approx(-0.08, abs=1e-9)
    assert laws["loss"].law.coefficient == pytest.approx(12.0, rel=1e-7)
    assert laws["params"].law.exponent == pytest.approx(0.5, abs=1e-9)
    assert laws["params"].law.coefficient == pytest.approx(300.0, rel=1e-7)


def test_a_level_of_two_sizes_is_left_out_however_often_they_were_run():
    rows = [
        ("all", f"{run}", size, tokens, 12.0 * tokens**-0.08 * math.exp(0.02 * math.log(size / 3e6) ** 2))
        for tokens in (1e8, 2e8, 4e8, 8e8)
        for run, size in enumerate((1e6, 1e6, 4e6, 1.6e7, 6.4e7) if tokens < 8e8 else (1e6, 1e6, 4e6, 4e6))
    ]
    record = fit_tokens(table_of(rows), num_draws=DRAWS)["all"].record()
    assert [optimum["tokens"] for optimum in record["optima"]] == pytest.approx([1e8, 2e8, 4e8])
    assert "1 of 4 levels left out: fewer than 3 sizes" in record["flags"]
    assert "NaN" not in json.dumps(record)


def test_repeated_recovers_the_decay_of_repeats():
    """L = E + A N^-alpha + B D'^-beta, D' = U + U R* (1 - exp(-R / R*)), R = D / U - 1 (arXiv 2305.16264)."""
    rows, unique = [], []
    for params in np.geomspace(1e6, 1e9, 5):
        for fresh in (1e8, 1e9, 1e10):
            for epochs in (1, 2, 5, 20, 60):
                effective = fresh + fresh * 15.0 * (1 - math.exp(-(epochs - 1) / 15.0))
                loss = 1.8 + 400 * params**-0.34 + 900 * effective**-0.3
                rows.append(("all", f"{params:.0f}-{fresh:.0f}-{epochs}", params, fresh * epochs, loss))
                unique.append(fresh)
    fit = fit_repeated(table_of(rows, unique_tokens=np.array(unique)), excess_params=False, num_draws=DRAWS)["all"]
    want = {"E": 1.8, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.3, "inverse_R_D": 1 / 15}
    for name, value in want.items():
        assert fit.parameters[name] == pytest.approx(value, rel=1e-5), name


def test_a_size_far_beyond_what_is_optimal_counts_in_full_where_excess_keeps_its_value():
    """Also where that size is too small for any number: descents pass by there on noisy tables."""
    size, tokens = np.array([-1.0, 0.5, 2.0]), np.array([-1.0, 0.0, 1.0])
    rows = Rows(size, tokens, np.array([0.0, 1.0, 5.0]), np.zeros(3))
    alpha, beta, decay = 1e-3, 0.5, 0.2
    theta = np.array([[0.0, alpha, 3.0, beta, -1.0, decay, 0.0]])
    effective = tokens + np.log1p(
        rows.repeats * -np.expm1(-rows.repeats * decay) / np.maximum(rows.repeats * decay, 1e-9)
    )
    want = np.exp(-alpha * size) + np.exp(3.0 - beta * effective) + np.exp(-1.0)
    np.testing.assert_allclose(log_loss(rows, theta)[0], np.log(want), rtol=1e-12)
    loss, slopes = log_slopes(rows, theta + np.array([0, 0, 0, 0, 0, 0, 0.3]))
    assert np.isfinite(loss).all()
    assert np.isfinite(slopes).all()


def test_a_group_without_enough_runs_says_so_and_stops_no_other():
    rows, unique = [], []
    for group, sizes in {"many": (1e6, 4e6, 1.6e7, 6.4e7), "few": (1e6, 4e6), "fresh": (1e6, 4e6, 1.6e7)}.items():
        for params in sizes:
            for epochs in (0.25, 0.5, 1, 2, 8):
                loss = 1.8 + 400 * params**-0.34 + 900 * (1e9 * min(epochs, 1)) ** -0.3
                rows.append((group, f"{group}-{params:.0f}-{epochs}", params, 1e9 * epochs, loss))
                unique.append(math.inf if group == "fresh" else 1e9)
    found = fit_data_laws(table_of(rows, unique_tokens=np.array(unique)), num_draws=DRAWS, repeated_draws=2).groups
    assert list(found) == ["many", "few", "fresh"]
    assert [name for name, record in found.items() if "repeated" in record] == ["many"]
    fresh, repeated = found["few"]["flags"]
    assert fresh.startswith("no laws of fresh data: group few: no levels shared by 3 sizes or more")
    assert repeated == "no law of repeated data: the law needs at least 3 distinct params, got 2; add runs"
    assert found["fresh"]["flags"][-1].startswith("no law of repeated data: no run repeats its data")
    assert found["fresh"]["optima"]


def test_cooldown_is_the_mean_ratio():
    rows, annealed = [], []
    for index, params in enumerate((1e6, 2e6, 4e6, 8e6)):
        rows += [("all", f"{index}", params, 1e9, 3.0), ("all", f"{index}c", params, 1e9, 3.0 / (1.02 + 0.001 * index))]
        annealed += [False, True]
    record = fit_cooldown(table_of(rows, cooldown=np.array(annealed)))["all"].record()
    ratios = 1.02 + 0.001 * np.arange(4)
    assert record["parameters"]["factor"] == pytest.approx(float(np.exp(np.log(ratios).mean())), rel=1e-12)


def test_learning_rate_law_is_recovered():
    """log L is an exact parabola of log eta about 0.01 B^0.3."""
    rows, batches, rates = [], [], []
    for batch in 2.0 ** np.arange(11, 16):
        for rate in 0.02 * 2.0 ** np.arange(0, 7):
            for tokens in (1e8, 2e8, 4e8, 8e8):
                loss = 30 * tokens**-0.1 * math.exp(0.02 * math.log(rate / (0.01 * batch**0.3)) ** 2)
                rows.append(("all", f"{batch}-{rate}", 1e6, tokens, loss))
                batches.append(batch)
                rates.append(rate)
    table = table_of(rows, batch_tokens=np.array(batches), learning_rate=np.array(rates))
    law = fit_hyperparameters(table, num_draws=DRAWS)["all"].record()["laws"]["learning_rate"]
    assert law["exponent"] == pytest.approx(0.3, abs=1e-6)
    assert law["coefficient"] == pytest.approx(0.01, rel=1e-5)


def isoflop_rows(group: str, coefficient: float, exponent: float) -> list:
    rows = []
    for budget in np.geomspace(1e15, 1e17, 5):
        best = 0.1 * budget**0.5
        for params in best * np.geomspace(0.25, 4, 7):
            loss = coefficient * budget**exponent * math.exp(0.02 * math.log(params / best) ** 2)
            rows.append((group, f"{group}-{params:.0f}-{budget:.0f}", params, budget / 6 / params, loss))
    return rows


def test_crossing_is_where_the_laws_are_equal():
    crossing_at = 1e18
    second = 20.0 * crossing_at**-0.05 / crossing_at**-0.06
    table = table_of(isoflop_rows("a", 20.0, -0.05) + isoflop_rows("b", second, -0.06))
    (found,) = find_crossings(table, num_draws=DRAWS).values()
    assert found.record()["parameters"]["crossing"] == pytest.approx(crossing_at, rel=1e-6)


def test_no_crossing_is_an_answer():
    table = table_of(isoflop_rows("a", 20.0, -0.05) + isoflop_rows("b", 25.0, -0.05))
    (found,) = find_crossings(table, num_draws=DRAWS).values()
    assert any("no crossing" in flag for flag in found.record()["flags"])


def test_frontier_of_a_surface_has_its_exponent():
    """Compute-optimal sizes of E + A N^-alpha + B D^-beta grow as C^(beta / (alpha + beta))."""
    rows = [
        ("all", f"{params:.0f}", params, tokens, 1.7 + 400 * params**-0.3 + 400 * tokens**-0.3)
        for params in np.geomspace(1e6, 1e9, 25)
        for tokens in np.geomspace(1e7, 1e11, 30)
    ]
    law = fit_frontier(table_of(rows), num_draws=DRAWS)["all"].record()["laws"]["params"]
    assert law["exponent"] == pytest.approx(0.5, abs=0.02)
