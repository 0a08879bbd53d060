"""Scarce data: the optimum against a second optimiser, Muennighoff's own choice, and where scarcity begins."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from synthetic_runs import make_tables, surface

from noiselaw.laws import PowerLaw, fit_tables
from noiselaw.laws.isoflop import IsoflopFit, LawFit
from noiselaw.laws.scarce import MUENNIGHOFF, RepeatValue, best_scarce_size

EXPONENT = 0.3526596
CONSTANTS = {"E": math.exp(0.6254804), "A": math.exp(6.255414), "B": math.exp(7.3049974)}
"""Muennighoff et al., appendix A, sizes in parameters; C = 6 N D."""


@pytest.fixture(scope="module")
def fit() -> IsoflopFit:
    return fit_tables(make_tables(surface, scatter=0.001), num_draws=2)["masked"]


@pytest.fixture(scope="module")
def muennighoff_fit(fit) -> IsoflopFit:
    """Their surface over M = 6 N, and isoFLOP laws that are its optimum."""
    constants = {**CONSTANTS, "A": CONSTANTS["A"] * 6**EXPONENT}
    law = replace(fit.surface, **constants, alpha=EXPONENT, beta=EXPONENT)
    size = law.optimal_size()
    laws = {
        "flops_per_token": LawFit(size, None, None),
        "tokens": LawFit(PowerLaw(1 / size.coefficient, 1 - size.exponent), None, None),
    }
    return replace(fit, laws=laws, surface=law)


def their_loss(params: float, tokens: float, unique: float) -> float:
    """Equations 5 and 6, written out."""
    repeats = tokens / unique - 1
    data = unique + unique * 15.387756 * (1 - math.exp(-repeats / 15.387756))
    enough = min((CONSTANTS["A"] / CONSTANTS["B"]) ** (1 / EXPONENT) * unique, params)
    size = enough + enough * 5.309743 * (1 - math.exp(-(params / enough - 1) / 5.309743))
    return CONSTANTS["E"] + CONSTANTS["A"] / size**EXPONENT + CONSTANTS["B"] / data**EXPONENT


@pytest.mark.parametrize(("flops", "unique"), [(9.3e21, 25e9), (1e21, 5e9), (1e20, 1e9)])
def test_the_optimum_is_that_of_the_formula(muennighoff_fit, flops, unique):
    found = best_scarce_size(muennighoff_fit, flops, unique, MUENNIGHOFF)

    def loss(log_params: float) -> float:
        return their_loss(math.exp(log_params), flops / 6 / math.exp(log_params), unique)

    best = optimize.minimize_scalar(loss, bounds=(math.log(1e7), math.log(flops / 6 / unique)), method="bounded")
    assert found.size / 6 == pytest.approx(math.exp(best.x), rel=5e-3)
    assert found.epochs == pytest.approx(flops / found.size / unique, rel=1e-12)
    # Both terms shrink alike, so for fresh data N* / D* is that of the constants, with N D = C / 6.
    ratio = (CONSTANTS["A"] / CONSTANTS["B"]) ** (1 / EXPONENT)
    fresh_tokens = math.sqrt(flops / 6 / ratio)
    fresh = their_loss(ratio * fresh_tokens, fresh_tokens, fresh_tokens)
    assert found.penalty == pytest.approx(best.fun / fresh, rel=1e-6)
    assert found.penalty > 1


def test_muennighoffs_own_choice_is_as_good(muennighoff_fit):
    """At 9.3e21 FLOPs on 25 billion tokens they train 6.34 billion parameters, 27 % fewer than for fresh data."""
    found = best_scarce_size(muennighoff_fit, 9.3e21, 25e9, MUENNIGHOFF)
    assert 0.7 < found.size / float(muennighoff_fit.law("flops_per_token")(9.3e21)) < 0.8
    ours = their_loss(found.size / 6, 9.3e21 / found.size, 25e9)
    theirs = their_loss(6.34e9, 9.3e21 / 6 / 6.34e9, 25e9)
    assert ours <= theirs <= ours * 1.0005


def test_plenty_of_data_changes_nothing(fit):
    flops = 4e12
    optimal = float(fit.law("flops_per_token")(flops))
    found = best_scarce_size(fit, flops, flops / optimal, MUENNIGHOFF)
    assert (found.size, found.penalty) == (optimal, 1.0)
    assert found.epochs == pytest.approx(1.0)
    assert best_scarce_size(fit, flops, 1e30, MUENNIGHOFF).penalty == 1.0


def test_scarcity_begins_without_a_jump_and_costs_more_and_more(fit):
    flops = 4e12
    optimal = float(fit.law("flops_per_token")(flops))
    found = [best_scarce_size(fit, flops, flops / optimal / share, MUENNIGHOFF) for share in (1.001, 2, 5, 20, 100)]
    assert found[0].size == pytest.approx(optimal, rel=2e-3)
    penalties = [optimum.penalty for optimum in found]
    assert penalties[0] == pytest.approx(1.0, abs=1e-5)
    assert all(np.diff(penalties) > 0)
    assert all(np.diff([optimum.epochs for optimum in found]) > 0)


def test_repeats_that_keep_their_value_cost_nothing(fit):
    forever = RepeatValue(0.0, 0.0, "here", "diffusion")
    flops = 4e12
    optimal = float(fit.law("flops_per_token")(flops))
    found = best_scarce_size(fit, flops, flops / optimal / 50, forever)
    assert found.size == pytest.approx(optimal, rel=5e-3)
    assert found.penalty == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("unique", [0.0, -1.0, math.nan])
def test_impossible_stocks_are_refused(fit, unique):
    with pytest.raises(ValueError, match="unique_tokens"):
        best_scarce_size(fit, 4e12, unique, MUENNIGHOFF)


def test_without_a_surface_repeats_cannot_be_weighed(fit):
    with pytest.raises(ValueError, match="no loss surface"):
        best_scarce_size(replace(fit, surface=None), 4e12, 10.0, MUENNIGHOFF)
