"""Intervals of every method hold the truth as often as they say: the trials of benchmarks/coverage.py, fewer tables."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "lawtrials.py"
LEVEL, SURE = 0.95, 0.999


def load_trials():
    """By path: other names in benchmarks/ would hide packages."""
    spec = importlib.util.spec_from_file_location("lawtrials", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lawtrials"] = module  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


lawtrials = load_trials()

NUM_TABLES = {
    "isoflop, 7 runs": 30,
    "isoflop, 42 runs": 20,
    "isoflop, optima resampled": 30,
    "surface by huber, 8 runs": 20,
    "surface by l2, 64 runs": 20,
    "frontier, 12 runs": 15,
    "frontier, raw minima": 60,
    "tokens, 7 runs": 60,
    "repeated data, 15 runs": 6,
    "hyperparameters, runs": 10,
    "cooldown, 8 pairs": 300,
    "cooldown, 5 runs of 3 pairs": 300,
    "cross over flops, 14 runs": 15,
    "cross over tokens, 14 runs": 40,
}
"""What a few seconds allow; the benchmark takes all trials and hundreds of tables."""


@cache
def bounds(num, *, at_least):
    """How often `num` true 95 % intervals may hold the truth."""
    low, high = stats.binom.interval(SURE, num, LEVEL)
    return low, num if at_least else high


@pytest.mark.parametrize("name", NUM_TABLES)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    trial = lawtrials.TRIALS[name]
    for quantity, found in lawtrials.measure(trial, NUM_TABLES[name], seed=1).items():
        assert found.num_intervals > 0.9 * found.num_tables, quantity
        low, high = bounds(found.num_intervals, at_least=quantity in trial.at_least)
        assert low <= found.num_held <= high, f"{quantity}: {found.num_held} of {found.num_intervals}"


def test_the_measure_tells_intervals_that_are_too_narrow():
    """Half-width intervals hold the truth in 67 %: the bounds of this file notice."""

    def run(generator):
        value = generator.standard_normal()
        return {"narrow": (0.0, (value - 0.98, value + 0.98)), "right": (0.0, (value - 1.96, value + 1.96))}

    found = lawtrials.measure(lawtrials.Trial(run), 200)
    low, high = bounds(200, at_least=False)
    assert found["narrow"].num_held < low
    assert low <= found["right"].num_held <= high
    assert found["right"].median_width == pytest.approx(3.92)


def test_tables_repeat_with_the_seed():
    trial = lawtrials.TRIALS["tokens, 7 runs"]
    assert lawtrials.measure(trial, 2, seed=3) == lawtrials.measure(trial, 2, seed=3)
    one, other = (trial.run(np.random.default_rng(seed)) for seed in (1, 2))
    assert one != other
