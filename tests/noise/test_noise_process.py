"""The process: a Markov chain whose marginals, transitions and posteriors agree, and a sampler of just its density."""

import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from noiselaw.noise.elbo import bound_weight, log_bound_weight
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess, build_process
from noiselaw.specs import NoiseSpec

LEVELS = [(-9.0, 9.0), (-9.0, -8.9), (-2.0, 1.0), (0.0, 0.01), (3.0, 9.0)]
"""Pairs (noisier t, cleaner s)."""


def level(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def all_ids(process: NoiseProcess) -> torch.Tensor:
    return torch.arange(process.mixing.vocab_size)


def assert_counts_follow(counts: torch.Tensor, probs: torch.Tensor) -> None:
    possible = probs > 1e-12
    assert counts[~possible].sum() == 0, "an impossible value was drawn"
    expected = probs[possible] / probs[possible].sum() * counts.sum()
    if len(expected) > 1:
        assert stats.chisquare(counts[possible].numpy(), expected.numpy()).pvalue > 1e-4


def test_marginals_are_distributions_and_agree_with_each_other(process):
    ids = all_ids(process)
    log_snr = torch.linspace(-9, 9, 13, dtype=torch.float64)[:, None]
    marginal = process.marginal(ids, log_snr.expand(-1, len(ids)))
    assert torch.allclose(marginal.sum(-1), torch.ones_like(marginal[..., 0]), rtol=0, atol=1e-15)
    pairs = process.marginal_at(ids, ids[:, None], log_snr[..., None])
    assert torch.allclose(marginal, pairs, rtol=1e-15, atol=0)
    by_hand = torch.sigmoid(log_snr)[..., None] * one_hot(ids) + torch.sigmoid(-log_snr)[..., None] * process.mixing.pi(
        log_snr
    )
    assert torch.allclose(marginal, by_hand, rtol=1e-15, atol=0)


def test_marginal_of_a_prediction_averages_over_clean_tokens(process, ordinary):
    probs = torch.zeros(5, dtype=torch.float64)
    probs[ordinary] = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    log_snr = level(-0.7)
    average = (probs[:, None] * process.marginal(all_ids(process), log_snr.expand(5))).sum(0)
    assert torch.allclose(process.marginal_of(probs, log_snr), average, rtol=1e-14, atol=0)


@pytest.mark.parametrize("levels", LEVELS)
def test_transitions_are_stochastic_and_follow_their_formula(process, levels):
    t, s = map(level, levels)
    transition = process.transition(t, s)
    assert (transition >= 0).all()
    assert torch.allclose(transition.sum(-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-15)
    ratio = torch.sigmoid(t) / torch.sigmoid(s)
    noise_t, noise_s = (torch.sigmoid(-x) * process.mixing.pi(x) for x in (t, s))
    by_formula = ratio * torch.eye(5, dtype=torch.float64) + (noise_t - ratio * noise_s)
    assert torch.allclose(transition, by_formula, rtol=1e-12, atol=1e-15)
    ids = all_ids(process)
    assert torch.equal(process.transition_at(ids, ids[:, None], t, s), transition)


def test_chapman_kolmogorov(process):
    for middle in (-3.0, 0.5, 2.0):
        direct = process.transition(level(-4.0), level(3.0))
        in_two_steps = process.transition(level(middle), level(3.0)) @ process.transition(level(-4.0), level(middle))
        assert torch.allclose(direct, in_two_steps, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("levels", LEVELS)
def test_transitions_carry_marginals_to_marginals(process, levels):
    t, s = map(level, levels)
    ids = all_ids(process)
    carried = process.marginal(ids, s.expand(5)) @ process.transition(t, s)
    assert torch.allclose(carried, process.marginal(ids, t.expand(5)), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("levels", LEVELS)
def test_posterior_is_bayes_rule(process, ordinary, levels):
    t, s = map(level, levels)
    forward = process.transition(t, s)  # [z_s, z_t]
    predictions = torch.zeros(5, 5, dtype=torch.float64)
    predictions[:4, ordinary] = torch.eye(4, dtype=torch.float64)
    predictions[4, ordinary] = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    for probs in predictions:
        joint = process.marginal_of(probs, s)[:, None] * forward
        evidence = joint.sum(0)
        possible = (evidence > 0).nonzero()[:, 0]
        posterior = process.posterior(possible, probs.expand(len(possible), 5), t, s)
        by_bayes = (joint[:, possible] / evidence[possible]).T
        assert torch.allclose(posterior, by_bayes, rtol=1e-11, atol=1e-16)
        assert torch.allclose(posterior.sum(-1), torch.ones_like(posterior[:, 0]), rtol=0, atol=1e-14)
        marginalised = (process.marginal_of(probs, t)[possible, None] * posterior).sum(0)
        assert torch.allclose(marginalised, process.marginal_of(probs, s), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("levels", LEVELS)
def test_the_mixture_is_the_posterior(process, ordinary, levels):
    t, s = map(level, levels)
    probs = torch.zeros(5, dtype=torch.float64)
    probs[ordinary] = torch.tensor([0.4, 0.3, 0.2999, 0.0001], dtype=torch.float64)
    possible = (process.marginal_of(probs, t) > 0).nonzero()[:, 0]
    mixture = process.posterior_mixture(possible, probs[possible], t, s)
    events = torch.stack([mixture.clean, mixture.noise, mixture.stay])
    assert torch.allclose(events.sum(0), torch.ones(len(possible), dtype=torch.float64), rtol=0, atol=1e-15)
    assert events.min() >= 0
    whole = mixture.clean[:, None] * probs + mixture.noise[:, None] * process.mixing.pi(s)
    whole += mixture.stay[:, None] * torch.eye(5, dtype=torch.float64)[possible]
    assert torch.allclose(whole, process.posterior(possible, probs.expand(len(possible), 5), t, s), rtol=0, atol=1e-15)


def test_the_mixture_at_the_clean_text_is_the_belief(process, ordinary):
    """From any level straight to the clean text: x(v) q(z | v), normalised (eq. 15)."""
    t, clean = level(-1.0), level(math.inf)
    probs = torch.zeros(5, dtype=torch.float64)
    probs[ordinary] = torch.tensor([0.4, 0.3, 0.2999, 0.0001], dtype=torch.float64)
    possible = (process.marginal_of(probs, t) > 0).nonzero()[:, 0]
    mixture = process.posterior_mixture(possible, probs[possible], t, clean)
    found = mixture.clean[:, None] * probs + mixture.stay[:, None] * torch.eye(5, dtype=torch.float64)[possible]
    joint = probs * process.marginal_at(possible[:, None], torch.arange(5), t)
    belief = joint / joint.sum(-1, keepdim=True)
    is_mask = possible == process.mixing.mask_id
    assert torch.equal(mixture.noise, torch.zeros_like(mixture.noise))
    assert torch.allclose(found, torch.where(is_mask[:, None], probs, belief), rtol=0, atol=1e-15)
    at_noisy = process.belief_at(possible, probs[possible], t)
    assert torch.allclose(
        at_noisy, torch.where(is_mask, 0.0, belief[torch.arange(len(possible)), possible]), rtol=0, atol=1e-15
    )


def test_posterior_keeps_a_value_the_prediction_rules_out():
    process = NoiseProcess(HybridMixing(4, 3, -math.inf))
    probs = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    posterior = process.posterior(torch.tensor(2), probs, level(-1.0), level(1.0))
    assert posterior.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_transitions_keep_their_digits_in_float32_for_near_levels(process):
    t = torch.tensor(1.0)
    s = t + torch.tensor([0.0003, 0.0007, 0.0011, 0.0017])
    single, exact = process.transition(t, s).double(), process.transition(t.double(), s.double())
    assert torch.allclose(single, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shift", [-math.inf, -2.0, 0.0, 2.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_float32_keeps_its_digits_at_the_ends_of_the_range_and_full_vocabulary(shift, scale):
    process = NoiseProcess(HybridMixing(131072, 3, shift, scale))
    noisy, clean = torch.tensor([3, 7, 8]), torch.tensor([8, 8, 8])
    logits = torch.randn(3, 131072, generator=torch.Generator().manual_seed(0))
    probs = logits.index_fill(1, torch.tensor(3), -math.inf).double().softmax(-1)
    for noisier, cleaner in ((-9.0, -8.5), (-9.0, 9.0), (8.5, 9.0)):
        results = []
        for dtype in (torch.float32, torch.float64):
            t, s = torch.tensor(noisier, dtype=dtype).expand(3), torch.tensor(cleaner, dtype=dtype).expand(3)
            at_pairs = (process.marginal_at(noisy, clean, s), process.transition_at(noisy, clean, t, s))
            results.append([*at_pairs, process.posterior(noisy, probs.to(dtype), t, s)])
        for single, exact in zip(*results, strict=True):
            assert single.dtype == torch.float32
            assert torch.allclose(single.double(), exact, rtol=2e-6, atol=1e-37)


def test_results_follow_the_dtype_of_the_log_snr(process, ordinary):
    probs = process.mixing.reference_probs(torch.float32)
    for dtype in (torch.float32, torch.float64):
        t, s = torch.tensor(-1.0, dtype=dtype), torch.tensor(1.0, dtype=dtype)
        values = [
            process.marginal(ordinary, t.expand(4)),
            process.marginal_of(probs, t),
            process.marginal_at(ordinary, ordinary, t),
            process.transition(t, s),
            process.transition_at(ordinary, ordinary, t, s),
            process.posterior(ordinary, probs.expand(4, 5), t, s),
            process.mixing.pi_at(t, ordinary),
            process.mixing.pi_prime_at(t, ordinary),
            process.mixing.log_pi_at(t, ordinary),
            bound_weight(process.mixing, t, ordinary, ordinary),
            log_bound_weight(process.mixing, t, ordinary, ordinary),
        ]
        assert [value.dtype for value in values] == [dtype] * len(values)


@pytest.mark.parametrize("log_snr", [-9.0, -1.0, 1.0, 3.0])
def test_corruption_draws_from_the_marginal(process, ordinary, generator, log_snr):
    num = 20_000
    for clean in ordinary:
        ids = clean.expand(num)
        noisy = process.corrupt(ids, torch.tensor([log_snr]).expand(num), generator)
        assert_counts_follow(torch.bincount(noisy, minlength=5), process.marginal(clean, level(log_snr)))


def test_corruption_broadcasts_one_level_per_sequence(process, ordinary, generator):
    clean = ordinary[torch.randint(4, (2, 3000), generator=generator)]
    noisy = process.corrupt(clean, torch.tensor([[-30.0], [30.0]]), generator)
    assert torch.equal(noisy[1], clean[1])
    assert_counts_follow(torch.bincount(noisy[0], minlength=5), process.mixing.pi(level(-30.0)))


def test_a_swapped_token_is_never_the_mask(generator):
    for mask_id in (0, 3, 7):
        process = NoiseProcess(HybridMixing(8, mask_id, math.inf))
        noisy = process.sample_noise(torch.zeros(50_000), generator)
        counts = torch.bincount(noisy, minlength=8)
        assert counts[mask_id] == 0
        assert_counts_follow(counts, process.mixing.pi(level(0.0)))


def test_sampling_touches_the_last_token_of_a_skewed_reference(generator):
    reference = torch.tensor([0.9, 0.0, 0.0999, 1e-4], dtype=torch.float64)
    process = NoiseProcess(HybridMixing(4, 1, math.inf, reference=reference))
    counts = torch.bincount(process.sample_noise(torch.zeros(200_000), generator), minlength=4)
    assert_counts_follow(counts, reference)


def test_prior_is_pi_at_the_noisiest_level(process, generator):
    prior = process.prior()
    assert torch.equal(prior, process.mixing.pi(level(process.min_log_snr)))
    draws = process.sample_prior((100, 200), generator)
    assert draws.shape == (100, 200)
    assert_counts_follow(torch.bincount(draws.flatten(), minlength=5), prior)


def test_draws_repeat_with_the_generator(process, ordinary):
    clean, log_snr = ordinary.repeat(50), torch.linspace(-4, 4, 200)
    first, again = (process.corrupt(clean, log_snr, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)


def test_inputs_are_never_mutated(process, ordinary, generator):
    clean, noisy = ordinary.clone(), ordinary.roll(1)
    probs = torch.softmax(torch.randn(4, 5, generator=generator), -1)
    log_snr_t, log_snr_s = torch.linspace(-3, 0, 4), torch.linspace(1, 3, 4)
    inputs = (clean, noisy, probs, log_snr_t, log_snr_s)
    before = [(value.clone(), value._version) for value in inputs]
    process.marginal(clean, log_snr_t)
    process.marginal_of(probs, log_snr_t)
    process.marginal_at(noisy, clean, log_snr_t)
    process.corrupt(clean, log_snr_t, generator)
    process.transition(log_snr_t, log_snr_s)
    process.transition_at(noisy, clean, log_snr_t, log_snr_s)
    process.posterior(noisy, probs, log_snr_t, log_snr_s)
    for value, (copy, version) in zip(inputs, before, strict=True):
        assert torch.equal(value, copy)
        assert value._version == version


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, -2.0), (-math.inf, 9.0), (-9.0, math.nan)])
def test_a_range_that_is_no_interval_is_refused(ends):
    with pytest.raises(ValueError, match=r"log-SNR range .* give min_log_snr < max_log_snr"):
        NoiseProcess(HybridMixing(4, 0, 0.0), *ends)


def test_build_process_follows_the_specification():
    frequencies = torch.tensor([0.0, 0.5, 0.25, 0.25], dtype=torch.float64)
    plain = build_process(NoiseSpec(shift=-2.0, scale=0.5), 4, 0, -8.0, 7.0)
    assert (plain.mixing.shift, plain.mixing.scale, plain.mixing.reference) == (-2.0, 0.5, None)
    assert (plain.min_log_snr, plain.max_log_snr) == (-8.0, 7.0)
    unigram = NoiseSpec(shift=0.0, reference="unigram")
    built = build_process(unigram, 4, 0, -9.0, 9.0, token_frequencies=frequencies)
    assert torch.equal(built.mixing.reference_probs(), frequencies)
    with pytest.raises(ValueError, match="'unigram' without token frequencies"):
        build_process(unigram, 4, 0, -9.0, 9.0)
