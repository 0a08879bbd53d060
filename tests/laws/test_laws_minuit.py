"""A second opinion on the surface: MINUIT, which shares nothing with our descent, finds the same bottom."""

import math

import numpy as np
from iminuit import Minuit

from noiselaw.laws.surface import fit_surface


def test_minuit_finds_the_same_surface():
    generator = np.random.default_rng(5)
    size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e10, 12), np.geomspace(1e9, 1e12, 12)))
    exact = 1.8 + 480 * size**-0.35 + 2100 * tokens**-0.37
    loss = exact * np.exp(0.003 * generator.standard_normal(size.size))
    fit = fit_surface(size, tokens, loss, delta=math.inf)

    def objective(log_e, log_a, alpha, log_b, beta):
        predicted = np.exp(log_e) + np.exp(log_a - alpha * np.log(size)) + np.exp(log_b - beta * np.log(tokens))
        return 0.5 * float(((np.log(predicted) - np.log(loss)) ** 2).sum())

    minuit = Minuit(objective, log_e=0.5, log_a=6.0, alpha=0.3, log_b=7.0, beta=0.3)
    minuit.errordef, minuit.tol, minuit.strategy = Minuit.LEAST_SQUARES, 1e-6, 2
    minuit.migrad(ncall=20_000)
    ours = np.array([math.log(fit.E), math.log(fit.A), fit.alpha, math.log(fit.B), fit.beta])
    assert objective(*ours) <= minuit.fval * (1 + 1e-9)
    np.testing.assert_allclose(ours, np.array(minuit.values), rtol=2e-3)
