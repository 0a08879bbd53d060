"""The referee: with the best prediction the bound is the likelihood, for every noise; with any other it is larger."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from noiselaw.noise.elbo import WEIGHTINGS
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.oracle import Denoiser, Oracle
from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import log_snr_from_time, sample_log_snr, time_from_log_snr


def random_data(process: NoiseProcess, num_positions: int, seed: int, *, sparse: bool = False) -> torch.Tensor:
    """A joint distribution with strong dependence between positions."""
    generator = torch.Generator().manual_seed(seed)
    shape = [process.mixing.vocab_size] * num_positions
    data = torch.rand(shape, generator=generator, dtype=torch.float64) ** 3 + 1e-3
    if sparse:
        data *= torch.rand(shape, generator=generator) < 0.4
    for axis in range(num_positions):
        data.select(axis, process.mixing.mask_id).zero_()
    return data / data.sum()


def wide(process: NoiseProcess) -> NoiseProcess:
    return replace(process, min_log_snr=-20.0, max_log_snr=20.0)


@pytest.fixture
def oracle(process: NoiseProcess) -> Oracle:
    return Oracle(wide(process), random_data(process, 2, seed=1))


def test_leave_one_out_bound_is_the_negative_log_likelihood(oracle):
    terms = oracle.bound(oracle.leave_one_out)
    assert torch.allclose(terms.total, oracle.negative_log_likelihood(), rtol=0, atol=1e-6)
    assert torch.isclose(oracle.expected_bound(oracle.leave_one_out), oracle.entropy(), rtol=0, atol=1e-7)
    assert min(terms.reconstruction.min(), terms.diffusion.min(), terms.prior.min()) > -1e-12


@pytest.mark.parametrize(
    "mixing",
    [HybridMixing(5, 4, -math.inf), HybridMixing(5, 0, 0.0), HybridMixing(5, 2, math.inf)],
    ids=["masked", "balanced", "uniform"],
)
def test_tight_at_the_largest_size_the_oracle_takes(mixing):
    process = wide(NoiseProcess(mixing))
    oracle = Oracle(process, random_data(process, 3, seed=2))
    gap = oracle.bound(oracle.leave_one_out).total - oracle.negative_log_likelihood()
    assert gap.abs().max() < 1e-6


def test_tight_for_data_with_impossible_sequences(process):
    oracle = Oracle(wide(process), random_data(process, 2, seed=3, sparse=True))
    assert len(oracle.clean) < (process.mixing.vocab_size - 1) ** 2
    gap = oracle.bound(oracle.leave_one_out).total - oracle.negative_log_likelihood()
    assert gap.abs().max() < 1e-6


def test_tight_for_a_single_position(process):
    oracle = Oracle(wide(process), random_data(process, 1, seed=4))
    gap = oracle.bound(oracle.leave_one_out).total - oracle.negative_log_likelihood()
    assert gap.abs().max() < 1e-6


def test_ordinary_posterior_is_tight_for_masked_noise_only(oracle):
    gap = float(oracle.expected_bound(oracle.posterior) - oracle.entropy())
    if oracle.process.mixing.is_masked:
        assert abs(gap) < 1e-6
    else:
        assert gap > 0.05


def smoothed(denoiser: Denoiser, oracle: Oracle) -> Denoiser:
    reference = oracle.process.mixing.reference_probs()
    return lambda noisy, log_snr: 0.9 * denoiser(noisy, log_snr) + 0.1 * reference


def sharpened(denoiser: Denoiser) -> Denoiser:
    def predict(noisy, log_snr):
        weights = denoiser(noisy, log_snr) ** 1.2
        return weights / weights.sum(-1, keepdim=True)

    return predict


def test_any_other_model_gives_a_larger_bound(oracle):
    others = [
        smoothed(oracle.leave_one_out, oracle),
        sharpened(oracle.leave_one_out),
        lambda noisy, log_snr: oracle.leave_one_out(noisy, log_snr + 0.5 * torch.sin(log_snr) + 0.7),
        lambda noisy, log_snr: oracle.leave_one_out(noisy, log_snr).mean(0).expand(*noisy.shape, -1),
    ]
    gaps = [float(oracle.expected_bound(other) - oracle.entropy()) for other in others]
    if oracle.process.mixing.is_masked:
        # What masked noise shows does not depend on the noise level, so mistaking the level costs nothing.
        assert abs(gaps.pop(2)) < 1e-6
    assert min(gaps) > 1e-4, gaps


@pytest.mark.parametrize("seed", range(4))
def test_models_that_know_nothing_of_the_noise_give_larger_bounds(oracle, seed):
    """A random distribution for every noisy sequence and position, pulled towards the best by a random amount."""
    generator = torch.Generator().manual_seed(seed)
    mixing = oracle.process.mixing
    logits = 3 * torch.randn(*oracle.noisy.shape, mixing.vocab_size, generator=generator, dtype=torch.float64)
    guess = logits.index_fill(-1, torch.tensor(mixing.mask_id), -math.inf).softmax(-1)
    share = float(torch.rand(1, generator=generator))

    def predict(noisy, log_snr):
        rows = noisy @ torch.tensor([mixing.vocab_size, 1])
        return share * guess[rows] + (1 - share) * oracle.leave_one_out(noisy, log_snr)

    assert torch.equal(oracle.noisy @ torch.tensor([mixing.vocab_size, 1]), torch.arange(len(oracle.noisy)))
    assert oracle.expected_bound(predict) > oracle.entropy() + 1e-3


@pytest.mark.parametrize("ends", [(-4.0, 4.0), (-1.0, 0.5)])
def test_the_bound_holds_on_any_range(process, ends):
    process = replace(process, min_log_snr=ends[0], max_log_snr=ends[1])
    oracle = Oracle(process, random_data(process, 2, seed=5))
    assert oracle.expected_bound(oracle.leave_one_out) > oracle.entropy()
    assert oracle.expected_bound(smoothed(oracle.posterior, oracle)) > oracle.entropy()


def test_posteriors_are_bayes_rule_by_hand():
    process = NoiseProcess(HybridMixing(4, 1, 0.5))
    oracle = Oracle(process, random_data(process, 3, seed=6))
    noisy, log_snr = torch.tensor([[0, 1, 3], [2, 2, 0]]), torch.tensor([-0.3, 1.2], dtype=torch.float64)
    leave_one_out, posterior = oracle.leave_one_out(noisy, log_snr), oracle.posterior(noisy, log_snr)
    for row, position in product(range(2), range(3)):
        beliefs = {True: [0.0] * 4, False: [0.0] * 4}
        for clean in product(range(4), repeat=3):
            factors = [
                float(process.marginal_at(noisy[row, t], torch.tensor(clean[t]), log_snr[row])) for t in range(3)
            ]
            others = math.prod(factors[:position] + factors[position + 1 :])
            beliefs[False][clean[position]] += float(oracle.data[clean]) * others
            beliefs[True][clean[position]] += float(oracle.data[clean]) * others * factors[position]
        for belief, found in ((beliefs[False], leave_one_out), (beliefs[True], posterior)):
            expected = torch.tensor(belief, dtype=torch.float64)
            assert torch.allclose(found[row, position], expected / expected.sum(), rtol=1e-12, atol=0)


def test_entropy_and_likelihood_by_hand():
    data = torch.zeros(3, 3, dtype=torch.float64)
    data[0, 0], data[1, 0] = 0.25, 0.75
    oracle = Oracle(NoiseProcess(HybridMixing(3, 2, 0.0)), data)
    assert oracle.clean.tolist() == [[0, 0], [1, 0]]
    assert oracle.negative_log_likelihood().tolist() == pytest.approx([-math.log(0.25) / 2, -math.log(0.75) / 2])
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2
    assert float(oracle.entropy()) == pytest.approx(expected, rel=1e-14)


SCHEDULES = {
    "linear": lambda time: 1 - time,
    "cosine": lambda time: 0.5 + 0.5 * torch.cos(math.pi * time),
    "cubic": lambda time: (1 - time) ** 3,
}
"""The share of signal at time t in (0, 1)."""


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_bound_does_not_depend_on_the_schedule(process, schedule):
    """The diffusion term integrated over the time of another clock, imperfect prediction."""
    low, high = -5.0, 5.0
    process = replace(process, min_log_snr=low, max_log_snr=high)
    oracle = Oracle(process, random_data(process, 1, seed=7))
    denoiser = smoothed(oracle.posterior, oracle)

    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(6))
    first, last = (_time_of(schedule, level) for level in (high, low))
    edges = torch.linspace(first, last, 401, dtype=torch.float64)
    half, middle = edges.diff()[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    time = (middle + half * nodes).flatten().requires_grad_()
    log_snr = torch.logit(schedule(time))
    (slope,) = torch.autograd.grad(log_snr.sum(), time)
    integrand = oracle.integrand(denoiser, log_snr.detach())
    integral = ((half * weights).flatten() * -slope) @ integrand
    assert torch.allclose(integral, oracle.bound(denoiser).diffusion, rtol=1e-8, atol=1e-12)


def _time_of(schedule, log_snr: float) -> float:
    """The time at which `schedule` reaches `log_snr`, by bisection."""
    low, high, target = 0.0, 1.0, 1 / (1 + math.exp(-log_snr))
    for _ in range(200):
        middle = (low + high) / 2
        above = float(schedule(torch.tensor(middle, dtype=torch.float64))) > target
        low, high = (middle, high) if above else (low, middle)
    return low


@pytest.mark.parametrize("stratified", [False, True])
def test_drawn_levels_with_elbo_weights_estimate_the_integral(stratified, generator):
    process = NoiseProcess(HybridMixing(4, 3, 0.0), -6.0, 6.0)
    oracle = Oracle(process, random_data(process, 1, seed=8))
    exact = oracle.probabilities @ oracle.bound(oracle.posterior).diffusion
    num = 4000
    levels = sample_log_snr(num, -6.0, 6.0, generator=generator, stratified=stratified, dtype=torch.float64)
    values = (oracle.integrand(oracle.posterior, levels) @ oracle.probabilities) * WEIGHTINGS["elbo"](levels)
    length = float(torch.sigmoid(torch.tensor(6.0).double()) - torch.sigmoid(torch.tensor(-6.0).double()))
    error = float(values.mean() * length - exact)
    standard_error = float(values.std()) / math.sqrt(num)
    assert abs(error) < (0.1 if stratified else 4.0) * standard_error


def test_time_ends_match_the_range():
    ends = log_snr_from_time(time_from_log_snr(torch.tensor([-9.0, 9.0], dtype=torch.float64)))
    assert torch.allclose(ends, torch.tensor([-9.0, 9.0], dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.full((4, 4, 4, 4), 1 / 256), r"data has shape \(4, 4, 4, 4\)"),
        (torch.full((4, 3), 1 / 12), r"data has shape \(4, 3\); give one axis of 4 per position"),
        (torch.full((4,), 0.25), r"sequences with the mask \(id 3\) a probability"),
        (torch.tensor([0.5, 0.25, 0.0, 0.0]), r"data sums to 0\.75"),
        (torch.tensor([1.5, -0.5, 0.0, 0.0]), "has negative entries"),
    ],
)
def test_data_that_is_no_distribution_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Oracle(NoiseProcess(HybridMixing(4, 3, 0.0)), data.double())
