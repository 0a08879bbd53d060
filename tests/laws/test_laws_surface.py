"""The surface: exact recovery, the paper's printed parameters, derivatives, a second solver, the certificate."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from synthetic_runs import BUDGETS, FLOPS_PER_TOKEN, SURFACE, surface, valley

from noiselaw.laws import fit_surface
from noiselaw.laws.build import build_table
from noiselaw.laws.descent import Points, derivatives, objective
from noiselaw.laws.published import surfaces
from noiselaw.laws.surfacelaws import fit_surface_table

SIZE, FLOPS = (grid.ravel() for grid in np.meshgrid(FLOPS_PER_TOKEN, BUDGETS, indexing="ij"))
TOKENS = FLOPS / SIZE
RUN = np.repeat(np.arange(5), 5)


def noisy_loss(seed=0, scatter=0.003):
    return surface(SIZE, TOKENS) * np.exp(scatter * np.random.default_rng(seed).standard_normal(25))


@pytest.mark.parametrize("delta", [1e-3, math.inf])
@pytest.mark.parametrize(
    "truth",
    [
        SURFACE,
        {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
        {"E": 0.5, "A": 9.0, "alpha": 0.08, "B": 1e6, "beta": 1.1},
    ],
)
def test_noise_free_parameters_are_recovered(truth, delta):
    loss = truth["E"] + truth["A"] * SIZE ** -truth["alpha"] + truth["B"] * TOKENS ** -truth["beta"]
    fit = fit_surface(SIZE, TOKENS, loss, delta=delta)
    assert {name: getattr(fit, name) for name in truth} == pytest.approx(truth, rel=1e-6)
    assert fit.certificate.gradient_norm < 1e-12
    np.testing.assert_allclose(fit(SIZE, TOKENS), loss, rtol=1e-10)


@pytest.mark.parametrize("published", surfaces(), ids=lambda law: law.group)
def test_the_papers_surfaces_are_least_squares_of_log_residuals(paper_points, published):
    mine = paper_points["noise"] == published.group
    columns = (paper_points[name][mine] for name in ("flops_per_token", "tokens", "loss"))
    fit = fit_surface(*columns, delta=math.inf)
    # Half a unit of the third printed digit, and as much again for points recovered from pixels.
    for name, tolerance in {"E": 0.01, "alpha": 1e-3, "beta": 1e-3}.items():
        assert getattr(fit, name) == pytest.approx(getattr(published, name), abs=tolerance), name
    for name in ("A", "B"):
        assert getattr(fit, name) == pytest.approx(getattr(published, name), rel=5e-3), name
    assert fit.certificate.agreeing_starts == fit.certificate.num_starts


@pytest.mark.parametrize("delta", [1e-3, math.inf])
def test_derivatives_match_finite_differences(delta):
    data = Points.checked(SIZE, TOKENS, noisy_loss())
    theta = np.array([[0.1, 0.3, -0.2, 0.4, 0.15]])
    gradient, hessian, _ = derivatives(data, theta, delta)
    step = 1e-6
    for index in range(5):
        moved = step * np.eye(5)[[index]]
        slope = (objective(data, theta + moved, delta) - objective(data, theta - moved, delta)) / (2 * step)
        assert gradient[0, index] == pytest.approx(slope[0], rel=1e-6, abs=1e-9)
        ahead, behind = (derivatives(data, theta + sign * moved, delta)[0] for sign in (1, -1))
        np.testing.assert_allclose(hessian[0, index], (ahead - behind)[0] / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("delta", [1e-3, 1e-2, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_solver_finds_a_lower_point(delta, seed):
    loss = noisy_loss(seed)
    fit = fit_surface(SIZE, TOKENS, loss, delta=delta)

    def objective(theta):
        log_a, alpha, log_b, beta, floor = theta
        predicted = floor + np.exp(log_a - alpha * np.log(SIZE)) + np.exp(log_b - beta * np.log(TOKENS))
        size = np.abs(np.log(np.maximum(predicted, 1e-9) / loss))
        return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2) if delta < math.inf else 0.0).sum()

    found = np.array([math.log(fit.A), fit.alpha, math.log(fit.B), fit.beta, fit.E])
    assert objective(found) == pytest.approx(fit.certificate.objective, rel=1e-8)
    for start in (found, found * 1.05, found * np.array([1, 1, 1, 1, 0.5])):
        second = minimize(
            objective, start, method="Nelder-Mead", options={"maxfev": 3000, "xatol": 1e-10, "fatol": 1e-16}
        )
        assert second.fun >= fit.certificate.objective * (1 - 1e-9)


def test_a_floor_that_the_data_do_not_want_is_an_active_bound():
    fit = fit_surface(SIZE, TOKENS, valley(SIZE, TOKENS), delta=math.inf)
    assert fit.certificate.active_bounds == ("E",)
    assert pytest.approx(0, abs=1e-6) == fit.E


def test_optimal_size_is_where_the_surface_is_lowest():
    fit = fit_surface(SIZE, TOKENS, surface(SIZE, TOKENS))
    for flops in (1e11, 4e12):
        sizes = float(fit.optimal_size()(flops)) * np.array([0.99, 1.0, 1.01])
        assert np.argmin(fit(sizes, flops / sizes)) == 1


def test_standard_errors_are_those_of_refits_under_run_luck():
    generator = np.random.default_rng(3)
    size, tokens, scatter = 2e6, 2e6, 0.003
    refits = [
        fit_surface(
            SIZE, TOKENS, surface(SIZE, TOKENS) * np.exp(scatter * generator.standard_normal(5)[RUN]), delta=math.inf
        )
        for _ in range(40)
    ]
    spread = np.std([math.log(fit(size, tokens)) for fit in refits])
    exact = fit_surface(SIZE, TOKENS, surface(SIZE, TOKENS), RUN, delta=math.inf)
    claimed = scatter * exact.standard_error(size, tokens)
    assert spread == pytest.approx(claimed, rel=0.3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1e6] * 8, np.geomspace(1e5, 1e6, 8), [3.0] * 8), "at least 3 distinct values of size, got 1"),
        (([1e6, 2e6, 4e6], [1e5, 2e5, 4e5], [3.0, 2.9, 2.8]), "needs at least 6 points, got 3"),
        (([1e6, 2e6], [1e5, 2e5], [3.0, np.nan]), "loss, row 1: nan is not positive and finite"),
        (([1e6, -2e6], [1e5, 2e5], [3.0, 2.0]), "size, row 1: -2"),
    ],
)
def test_tables_without_a_surface_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        fit_surface(*columns)


def test_parameters_that_the_data_leave_open_are_flagged():
    """A loss that knows nothing of the size: E and A may share it as they like."""
    size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    told, silent = (
        fit_surface_table(build_table(loss=loss, params=size, tokens=tokens), num_draws=20)["all"].flags
        for loss in (2 + 400 * tokens**-0.3, 2 + 300 * size**-0.34 + 400 * tokens**-0.3)
    )
    assert any(flag.startswith("the data do not determine the parameters: equally good fits differ") for flag in told)
    assert not any("determine" in flag for flag in silent)
