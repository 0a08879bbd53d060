"""The bound's weight, divergences and end terms, against their definitions and against the bounds of other papers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from noiselaw.noise.elbo import (
    WEIGHTINGS,
    BoundTerms,
    bound_weight,
    divergences,
    log_bound_weight,
    prior_divergence,
    reconstruction_loss,
)
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import log_snr_density

LOG_SNR = torch.linspace(-9, 9, 37, dtype=torch.float64)


def random_probs(generator: torch.Generator, ordinary: torch.Tensor, *shape: int) -> torch.Tensor:
    """Predictions [*shape, V] with nothing at the mask."""
    probs = torch.zeros(*shape, len(ordinary) + 1, dtype=torch.float64)
    logits = 2 * torch.randn(*shape, len(ordinary), generator=generator, dtype=torch.float64)
    probs[..., ordinary] = logits.softmax(-1)
    return probs


def possible_pairs(process: NoiseProcess, ordinary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs (noisy, clean) that occur, ids [P]."""
    noisy, clean = torch.cartesian_prod(torch.arange(5), ordinary).T
    occurs = process.marginal_at(noisy, clean, torch.zeros(1, dtype=torch.float64)) > 0
    return noisy[occurs], clean[occurs]


def test_weight_is_its_definition(process, ordinary):
    noisy, clean = possible_pairs(process, ordinary)
    levels, mixing = LOG_SNR[:, None], process.mixing
    pi, slope = mixing.pi_at(levels, noisy), mixing.pi_prime_at(levels, noisy)
    by_definition = (pi - slope) / (pi + levels.exp() * (noisy == clean))
    weight = bound_weight(mixing, levels, noisy, clean)
    assert torch.allclose(weight, by_definition, rtol=1e-9, atol=1e-18)
    assert torch.allclose(log_bound_weight(mixing, levels, noisy, clean).exp(), weight, rtol=1e-12, atol=0)


def test_weight_is_finite_at_every_pair(process):
    noisy, clean = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T
    weight = bound_weight(process.mixing, LOG_SNR[:, None], noisy, clean)
    assert weight.isfinite().all()
    assert (weight >= 0).all()


@given(shift=st.floats(-12, 12), log_snr=st.floats(-9, 9))
def test_closed_form_at_scale_one(shift, log_snr):
    mixing = HybridMixing(11, 10, shift)
    level = torch.tensor(log_snr, dtype=torch.float64)
    share = 1 / (1 + math.exp(-(log_snr + shift)))
    expected = {
        (10, 0): 1 + share,
        (1, 0): share,
        (0, 0): (share**2 / 10) / (share / 10 + math.exp(log_snr)),
    }
    for (noisy, clean), weight in expected.items():
        value = bound_weight(mixing, level, torch.tensor(noisy), torch.tensor(clean))
        assert math.isclose(float(value), weight, rel_tol=1e-12)


@pytest.mark.parametrize("shift", [-math.inf, -2.0, 0.0, 2.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_float32_weight_keeps_its_digits_at_full_vocabulary(shift, scale):
    mixing = HybridMixing(131072, 3, shift, scale)
    noisy, clean = torch.tensor([3, 7, 8]), torch.tensor([8, 8, 8])
    single = torch.linspace(-9, 9, 37)[:, None]
    exact = bound_weight(mixing, single.double(), noisy, clean)
    assert torch.allclose(bound_weight(mixing, single, noisy, clean).double(), exact, rtol=1e-6, atol=0)
    log_weight = log_bound_weight(mixing, single, noisy, clean).double()
    assert torch.allclose(log_weight, exact.log(), rtol=2e-6, atol=2e-7)


def test_log_weight_stays_finite_where_the_weight_underflows():
    mixing = HybridMixing(131072, 3, -60.0)
    same, level = torch.tensor(8), torch.tensor(40.0)
    deep = HybridMixing(131072, 3, -95.0)
    assert bound_weight(deep, torch.tensor(9.0), same, same) == 0
    assert log_bound_weight(deep, torch.tensor(9.0), same, same).isfinite()
    exact = log_bound_weight(mixing, level.double(), same, same)
    assert torch.isclose(log_bound_weight(mixing, level, same, same).double(), exact, rtol=1e-5)


def test_divergences_follow_their_definitions(process, ordinary, generator):
    noisy, clean = possible_pairs(process, ordinary)
    probs = random_probs(generator, ordinary, len(noisy))
    level = torch.tensor(0.7, dtype=torch.float64).expand(len(noisy))
    found = divergences(process.mixing, level, noisy, clean, probs)
    for index, (z, x) in enumerate(zip(noisy.tolist(), clean.tolist(), strict=True)):
        truth = process.marginal(torch.tensor(x), level[index]).tolist()
        model = process.marginal_of(probs[index], level[index]).tolist()
        kl = sum(q * math.log(q / p) for q, p in zip(truth, model, strict=True) if q > 0)
        ratio = truth[z] / model[z]
        assert math.isclose(float(found.kl[index]), kl, rel_tol=1e-12)
        assert math.isclose(float(found.itakura_saito[index]), ratio - math.log(ratio) - 1, abs_tol=1e-14)
    assert torch.equal(found.total, found.kl + found.itakura_saito)


@pytest.mark.parametrize("shift", [-math.inf, -2.0, 0.0, 2.0, math.inf])
@pytest.mark.parametrize("log_snr", [-9.0, 9.0])
def test_float32_divergences_at_the_ends_of_the_range_and_full_vocabulary(shift, log_snr, generator):
    mixing = HybridMixing(131072, 3, shift)
    noisy, clean = torch.tensor([3, 7, 8]), torch.tensor([8, 8, 8])
    occurs = NoiseProcess(mixing).marginal_at(noisy, clean, torch.zeros(3)) > 0
    probs = torch.randn(3, 131072, generator=generator).index_fill(1, torch.tensor(3), -math.inf).double().softmax(-1)
    level = torch.full((3,), log_snr)
    single = divergences(mixing, level, noisy, clean, probs.float())
    exact = divergences(mixing, level.double(), noisy, clean, probs)
    for value, truth in ((single.kl, exact.kl), (single.itakura_saito, exact.itakura_saito)):
        assert torch.allclose(value.double()[occurs], truth[occurs], rtol=2e-6, atol=2e-7)


def test_the_mask_tells_nothing_even_where_it_cannot_occur(process, ordinary, generator):
    level = torch.linspace(-9, 9, 4, dtype=torch.float64)
    noisy = torch.full((4,), process.mixing.mask_id)
    found = divergences(process.mixing, level, noisy, ordinary, random_probs(generator, ordinary, 4))
    assert (found.itakura_saito == 0).all()
    assert found.kl.isfinite().all()


def test_divergences_vanish_for_the_truth_alone(process, ordinary, generator):
    noisy, clean = possible_pairs(process, ordinary)
    level = torch.tensor(-1.0, dtype=torch.float64).expand(len(noisy))
    right = divergences(process.mixing, level, noisy, clean, one_hot(clean, 5).double())
    assert torch.allclose(right.total, torch.zeros_like(right.total), rtol=0, atol=1e-15)
    wrong = divergences(process.mixing, level, noisy, clean, random_probs(generator, ordinary, len(noisy)))
    assert (wrong.kl > 0).all()
    assert (wrong.itakura_saito >= 0).all()


def test_masked_limit_is_the_mdlm_bound(generator):
    """Sahoo et al. 2024 (2406.07524): int dt alpha'/(1 - alpha) log x_theta(x) over masked tokens."""
    mixing, ordinary = HybridMixing(5, 4, -math.inf), torch.arange(4)
    clean = torch.tensor([0, 1, 2, 3])
    probs = random_probs(generator, ordinary, 37, 4)
    levels = LOG_SNR[:, None].expand(37, 4)
    for noisy, masked in ((torch.full((4,), 4), True), (clean, False)):
        noisy_ids, clean_ids = noisy.expand(37, 4), clean.expand(37, 4)
        ours = bound_weight(mixing, levels, noisy_ids, clean_ids)
        ours = ours * divergences(mixing, levels, noisy_ids, clean_ids, probs).total
        share = torch.sigmoid(levels)
        slope = share * (1 - share)  # d alpha / d log_snr
        cross_entropy = -probs.gather(-1, clean_ids[..., None]).squeeze(-1).log()
        mdlm = slope / torch.sigmoid(-levels) * cross_entropy * masked
        assert torch.allclose(ours, mdlm, rtol=1e-10, atol=1e-15)


def test_uniform_limit_is_the_udlm_bound_and_duo_bound(generator):
    """UDLM: Schiff et al. 2024 (2412.10193); its low-variance form, Duo: Sahoo et al. 2025 (2506.10892).

    Both count N = V - 1 symbols: there is no mask. With X = N alpha x + 1 - alpha, Y the same with x_theta, i = z and j
    running over the symbols, UDLM is int dt alpha'/(N alpha) [N/X_i - N/Y_i - sum_j X_j/X_i log(Y_i X_j / (Y_j X_i))].
    """
    num, mask_id = 4, 4
    mixing = HybridMixing(num + 1, mask_id, math.inf)
    noisy, clean = torch.cartesian_prod(torch.arange(num), torch.arange(num)).T
    probs = random_probs(generator, torch.arange(num), 37, len(noisy))
    levels = LOG_SNR[:, None].expand(37, len(noisy))
    noisy_ids, clean_ids = noisy.expand(37, -1), clean.expand(37, -1)
    ours = bound_weight(mixing, levels, noisy_ids, clean_ids)
    ours = ours * divergences(mixing, levels, noisy_ids, clean_ids, probs).total

    share = torch.sigmoid(levels)
    rest = torch.sigmoid(-levels)
    factor = -(share * rest) / (num * share)  # minus: the paper's time runs against the log-SNR
    xbar = num * share[..., None] * one_hot(clean_ids, num) + rest[..., None]
    xbar_theta = num * share[..., None] * probs[..., :num] + rest[..., None]
    at_z = noisy_ids[..., None]
    true_z, theta_z = xbar.gather(-1, at_z), xbar_theta.gather(-1, at_z)
    logs = (xbar / true_z) * (theta_z * xbar / (xbar_theta * true_z)).log()
    udlm = factor * (num / true_z - num / theta_z - logs.sum(-1, keepdim=True)).squeeze(-1)
    assert torch.allclose(ours, udlm, rtol=1e-7, atol=1e-11)

    same, zeta = noisy_ids == clean_ids, rest / (num * share + rest)
    theta_x = xbar_theta.gather(-1, clean_ids[..., None])
    spread = (theta_z / xbar_theta).log().sum(-1)
    at_other = num * share / rest * (theta_z / theta_x).log().squeeze(-1) - zeta.log() / zeta
    at_same = (num - 1) * zeta * zeta.log()
    bracket = num * (1 / true_z - 1 / theta_z).squeeze(-1) - torch.where(
        same, zeta * spread + at_same, spread + at_other
    )
    assert torch.allclose(ours, factor * bracket, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("limit", [-math.inf, math.inf])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_finite_shifts_approach_the_limits(limit, scale, generator):
    sign = math.copysign(1, limit)
    exact, near = HybridMixing(5, 4, limit, scale), HybridMixing(5, 4, sign * 34.0, scale)
    ordinary = torch.arange(4)
    noisy, clean = possible_pairs(NoiseProcess(exact), ordinary)
    probs = random_probs(generator, ordinary, 37, len(noisy))
    levels = LOG_SNR[:, None].expand(37, len(noisy))
    noisy, clean = noisy.expand(37, -1), clean.expand(37, -1)
    values = [
        bound_weight(mixing, levels, noisy, clean) * divergences(mixing, levels, noisy, clean, probs).total
        for mixing in (exact, near)
    ]
    assert torch.allclose(*values, rtol=1e-6, atol=1e-9)


def test_weightings():
    assert set(WEIGHTINGS) == {"snr_density", "elbo"}
    assert torch.equal(WEIGHTINGS["snr_density"](LOG_SNR), torch.ones_like(LOG_SNR))
    by_definition = 1 / (torch.sigmoid(LOG_SNR) * torch.sigmoid(-LOG_SNR))
    assert torch.allclose(WEIGHTINGS["elbo"](LOG_SNR), by_definition, rtol=1e-14)
    single = LOG_SNR.float()
    assert torch.allclose(WEIGHTINGS["elbo"](single).double(), by_definition, rtol=1e-6)
    assert torch.equal(log_snr_density(LOG_SNR), log_snr_density(-LOG_SNR))


@pytest.mark.parametrize("min_log_snr", [-9.0, -1.0, 3.0])
def test_prior_divergence_is_a_kl_divergence(process, ordinary, min_log_snr):
    process = NoiseProcess(process.mixing, min_log_snr, 9.0)
    level = torch.tensor(min_log_snr, dtype=torch.float64)
    start = process.marginal_of(process.mixing.reference_probs(), level)
    for clean in ordinary:
        truth = process.marginal(clean, level)
        kl = (torch.xlogy(truth, truth) - torch.xlogy(truth, start)).sum()
        assert torch.isclose(prior_divergence(process, clean), kl, rtol=1e-9, atol=1e-15)


def test_prior_divergence_is_the_diffusion_term_below_the_range(process, ordinary):
    """Of the model that predicts the reference, whatever it sees: so the prior term loses nothing."""
    process = NoiseProcess(process.mixing, -1.0, 9.0)
    levels = torch.linspace(-40, -1, 6001, dtype=torch.float64)
    noisy, clean = possible_pairs(process, ordinary)
    grid = levels[:, None].expand(-1, len(noisy))
    pairs = (noisy.expand_as(grid), clean.expand_as(grid))
    probs = process.mixing.reference_probs().expand(*grid.shape, -1)
    integrand = process.marginal_at(*pairs, grid) * bound_weight(process.mixing, grid, *pairs)
    integrand = integrand * divergences(process.mixing, grid, *pairs, probs).total
    integral = torch.trapezoid(integrand, levels, dim=0)
    for token in ordinary:
        tail = integral[clean == token].sum()
        assert torch.isclose(prior_divergence(process, token), tail, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("max_log_snr", [-1.0, 3.0, 9.0])
def test_reconstruction_is_minus_log_of_bayes_rule(process, ordinary, generator, max_log_snr):
    process = NoiseProcess(process.mixing, -9.0, max_log_snr)
    noisy, clean = possible_pairs(process, ordinary)
    logits = 2 * torch.randn(len(noisy), 5, generator=generator, dtype=torch.float64)
    others = torch.where(torch.arange(5) == process.mixing.mask_id, -math.inf, logits).softmax(-1)
    level = torch.tensor(max_log_snr, dtype=torch.float64)
    joint = others * process.marginal_at(noisy[:, None], torch.arange(5), level)
    by_bayes = -(joint / joint.sum(-1, keepdim=True)).gather(-1, clean[:, None]).squeeze(-1).log()
    loss = reconstruction_loss(process, logits, noisy, clean)
    assert torch.allclose(loss, by_bayes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [-2.0, 0.0, math.inf])
def test_reconstruction_in_float32_at_full_vocabulary(shift, generator):
    process = NoiseProcess(HybridMixing(131072, 131071, shift))
    logits = 3 * torch.randn(131072, generator=generator)
    logits[5] = 40.0  # as sure as float32 can be
    clean = torch.tensor([5, 7, 5, 7])
    noisy = torch.tensor([5, 5, 7, 7])
    single = reconstruction_loss(process, logits.expand(4, -1), noisy, clean)
    exact = reconstruction_loss(process, logits.double().expand(4, -1), noisy, clean)
    assert torch.allclose(single.double(), exact, rtol=1e-6, atol=1e-6)


def test_terms_add_up():
    terms = BoundTerms(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0))
    assert terms.total == 7.0


def test_inputs_of_the_bound_are_never_mutated(process, ordinary, generator):
    noisy, clean = possible_pairs(process, ordinary)
    probs = random_probs(generator, ordinary, len(noisy))
    level = torch.linspace(-2, 2, len(noisy), dtype=torch.float64)
    inputs = (noisy, clean, probs, level)
    before = [value.clone() for value in inputs]
    bound_weight(process.mixing, level, noisy, clean)
    log_bound_weight(process.mixing, level, noisy, clean)
    divergences(process.mixing, level, noisy, clean, probs)
    reconstruction_loss(process, probs, noisy, clean)
    prior_divergence(process, clean)
    assert all(torch.equal(value, copy) for value, copy in zip(inputs, before, strict=True))
