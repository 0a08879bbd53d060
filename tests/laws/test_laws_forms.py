"""Closed-form fits against an independent solver, and the curves they describe."""

import numpy as np
import pytest

from noiselaw.laws.forms import (
    PowerLaw,
    SaturatingCurve,
    fit_lines,
    fit_parabolas,
    fit_saturating_curves,
    shifted_parabolas,
)


@pytest.fixture
def cloud():
    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(17, 21, 7))
    return x, generator.standard_normal((3, 7)), generator.uniform(0.1, 2.0, (4, 1, 7))


@pytest.mark.parametrize("degree", [1, 2])
def test_every_vectorised_fit_equals_a_single_polyfit(cloud, degree):
    x, y, weights = cloud
    fit = fit_lines(x, y, weights) if degree == 1 else fit_parabolas(x, y, weights)
    grid = np.linspace(16, 22, 5)
    for draw in range(4):
        for row in range(3):
            expected = np.polyval(np.polyfit(x - 19, y[row], degree, w=np.sqrt(weights[draw, 0])), grid - 19)
            one = type(fit)(*(part[draw, row] for part in fit))
            np.testing.assert_allclose(one.at(grid), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fit", [fit_lines, fit_parabolas])
def test_points_of_weight_zero_take_no_part_whatever_they_hold(cloud, fit):
    x, y, _ = cloud
    weights = np.array([1, 1, 0, 1, 1, 1, 0.0])
    spoiled = y.copy()
    spoiled[:, 2], spoiled[:, 6] = np.nan, 1e9
    used = weights > 0
    np.testing.assert_allclose(fit(x, spoiled, weights), fit(x[used], y[:, used]), rtol=1e-12)


def test_parabola_vertex_and_plain_coefficients():
    x = np.linspace(15, 20, 6)
    fit = fit_parabolas(x, 1.1 + 0.3 * (x - 17.25) ** 2)
    assert fit.vertex == pytest.approx(17.25, abs=1e-12)
    a0, a1, a2 = fit.coefficients
    np.testing.assert_allclose(a0 + a1 * x + a2 * x**2, fit.at(x), rtol=1e-10)
    assert a2 == pytest.approx(0.3)


def test_too_few_distinct_points_give_nan_not_noise():
    assert np.isnan(fit_parabolas([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]).c2)
    assert np.isnan(fit_lines([1.0, 1.0], [1.0, 2.0]).slope)


def test_power_law_round_trip():
    x = np.geomspace(1e17, 1e20, 4)
    law = PowerLaw.fit(x, 27.2 * x**-0.05)
    assert (law.coefficient, law.exponent) == pytest.approx((27.2, -0.05))
    assert law.inverse(float(law(1e21))) == pytest.approx(1e21)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_power_law_refuses_values_without_a_logarithm(bad):
    with pytest.raises(ValueError, match=r"y holds .* drop those rows"):
        PowerLaw.fit([1.0, 2.0, 3.0], [1.0, bad, 2.0])


@pytest.mark.parametrize("truth", [SaturatingCurve(1.7, 3e3, 0.41), SaturatingCurve(0.0, 40.0, 0.11)])
def test_saturating_curve_is_recovered(truth):
    tokens = np.geomspace(3e5, 1e7, 16)
    fitted = SaturatingCurve.fit(tokens, truth(tokens))
    assert fitted.decay == pytest.approx(truth.decay, rel=1e-6)
    assert fitted.floor == pytest.approx(truth.floor, abs=1e-5)
    np.testing.assert_allclose(fitted(tokens), truth(tokens), rtol=1e-9)


def test_saturating_curve_shrugs_off_an_outlier():
    truth = SaturatingCurve(1.7, 3e3, 0.41)
    tokens = np.geomspace(3e5, 1e7, 20)
    loss = truth(tokens) * np.exp(1e-4 * np.random.default_rng(1).standard_normal(20))
    loss[9] *= 1.2
    np.testing.assert_allclose(
        SaturatingCurve.fit(tokens, loss)(tokens[[0, 9, 19]]), truth(tokens[[0, 9, 19]]), rtol=1e-3
    )


def test_saturating_curve_needs_four_points():
    with pytest.raises(ValueError, match="at least 4 points, got 3"):
        SaturatingCurve.fit([1.0, 2.0, 3.0], [3.0, 2.0, 1.5])


def test_shifted_parabolas_equal_parabolas_through_shifted_points():
    draw = np.random.default_rng(4)
    x, y, shifts = 9 + np.sort(draw.normal(size=9)), draw.normal(size=(5, 9)), 0.1 * draw.normal(size=(300, 9))
    weights = (draw.random((5, 9)) > 0.3).astype(float)
    weights[4, :-2] = 0  # two points carry no parabola
    y[weights == 0] = np.nan
    one_by_one = fit_parabolas(x, y + shifts[:, None], weights)
    at_once = shifted_parabolas(x, y, weights, shifts)
    for part, expected in zip(at_once, one_by_one, strict=True):
        np.testing.assert_allclose(np.broadcast_to(part, expected.shape), expected, rtol=1e-12, atol=1e-13)
    assert np.isnan(at_once.c2[:, 4]).all()


def test_curves_fitted_together_equal_those_fitted_alone():
    draw = np.random.default_rng(5)
    tokens = np.sort(draw.uniform(1e3, 1e6, (20, 12)))
    decays = draw.uniform(0.1, 0.7, (20, 1))
    loss = (1 + 30 * tokens**-decays) * np.exp(0.01 * draw.normal(size=(20, 12)))
    together = fit_saturating_curves(tokens, loss)
    assert together == [SaturatingCurve.fit(*row) for row in zip(tokens, loss, strict=True)]
