"""The mixing distribution: a distribution everywhere, its derivative, its exact limits, its accuracy, its errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_noise import BoundedMixing

from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import noise_spec
from noiselaw.specs import NoiseSpec

LOG_SNR = torch.linspace(-12, 12, 49, dtype=torch.float64)


def test_pi_is_a_distribution_and_its_derivative_sums_to_zero(process):
    pi, slope = process.mixing.pi(LOG_SNR), process.mixing.pi_prime(LOG_SNR)
    assert (pi >= 0).all()
    assert torch.allclose(pi.sum(-1), torch.ones_like(LOG_SNR), rtol=0, atol=1e-15)
    assert torch.allclose(slope.sum(-1), torch.zeros_like(LOG_SNR), rtol=0, atol=1e-16)


def test_pi_prime_is_the_derivative_of_pi(process):
    def total_over_levels(log_snr):
        return process.mixing.pi(log_snr).sum(0)

    derivative = torch.autograd.functional.jacobian(total_over_levels, LOG_SNR).T
    # Autograd forms u (1 - u) by subtraction: good to a few 1e-16, not to 16 digits.
    assert torch.allclose(process.mixing.pi_prime(LOG_SNR), derivative, rtol=1e-12, atol=5e-16)


def test_values_at_ids_equal_the_columns(process):
    mixing = process.mixing
    ids = torch.arange(mixing.vocab_size)
    levels = LOG_SNR[:, None]
    assert torch.equal(mixing.pi_at(levels, ids), mixing.pi(LOG_SNR))
    assert torch.equal(mixing.pi_prime_at(levels, ids), mixing.pi_prime(LOG_SNR))
    assert torch.allclose(mixing.log_pi_at(levels, ids).exp(), mixing.pi(LOG_SNR), rtol=1e-13, atol=0)
    assert torch.allclose(mixing.log_reference(ids, torch.float64).exp(), mixing.reference_probs(), rtol=1e-15, atol=0)


def test_arrival_is_pi_minus_its_derivative_over_pi(process):
    mixing, ids = process.mixing, torch.arange(process.mixing.vocab_size)
    pi, slope = mixing.pi(LOG_SNR), mixing.pi_prime(LOG_SNR)
    arrival = mixing.arrival_at(LOG_SNR[:, None], ids)
    assert (arrival >= 0).all()
    assert torch.allclose(arrival * pi, pi - slope, rtol=1e-10, atol=1e-16)


@given(
    shift=st.floats(-12, 12),
    scale=st.floats(-1, 1),
    log_snr=st.floats(-12, 12),
    mask_id=st.integers(0, 6),
)
def test_any_valid_parameters_give_a_process(shift, scale, log_snr, mask_id):
    mixing = HybridMixing(7, mask_id, shift, scale)
    level = torch.tensor(log_snr, dtype=torch.float64)
    pi, slope = mixing.pi(level), mixing.pi_prime(level)
    assert (pi >= 0).all()
    assert abs(float(pi.sum()) - 1) < 1e-14
    assert (pi - slope >= -1e-16).all(), "noise may only arrive"


def test_infinite_shifts_are_exact(process):
    mixing = process.mixing
    share, levels = mixing.uniform_share(LOG_SNR), LOG_SNR[:, None]
    if mixing.is_masked:
        assert (share == 0).all()
        assert (mixing.pi(LOG_SNR)[:, mixing.mask_id] == 1).all()
    elif mixing.is_uniform:
        assert (share == 1).all()
        assert (mixing.pi(LOG_SNR)[:, mixing.mask_id] == 0).all()
    else:
        assert ((share > 0) & (share < 1)).all()
    for values in (mixing.pi(LOG_SNR), mixing.pi_prime(LOG_SNR), mixing.arrival_at(levels, torch.arange(5))):
        assert values.isfinite().all()


@pytest.mark.parametrize("shift", [-math.inf, -2.0, 0.0, 2.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_float32_keeps_its_digits_at_the_ends_of_the_range_and_full_vocabulary(shift, scale):
    mixing = HybridMixing(131072, 3, shift, scale)
    single = torch.tensor([[-9.0], [0.0], [9.0]])
    double = single.double()
    ids = torch.tensor([3, 0, 131071])
    for function in (mixing.pi_at, mixing.pi_prime_at, mixing.arrival_at, mixing.log_pi_at):
        value = function(single, ids)
        assert value.dtype == torch.float32
        assert torch.allclose(value.double(), function(double, ids), rtol=2e-6, atol=0), function.__name__
    value, exact = mixing.log_uniform_share(single), mixing.log_uniform_share(double)
    assert torch.allclose(value.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shift", [-math.inf, -95.0, -2.0, 0.0, 12.0, 95.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0, -1.0])
@pytest.mark.parametrize("levels", [(-60.0, 60.0), (-9.0, 9.0), (-9.0, -8.99), (0.0, 0.001), (8.9, 9.0)])
def test_arrived_shares_keep_their_digits_in_float32(shift, scale, levels):
    mixing = HybridMixing(5, 3, shift, scale)
    t, s = (torch.tensor(level) for level in levels)
    by_definition = mixing.pi(t.double()) - (t.double() - s.double()).exp() * mixing.pi(s.double())
    exact = mixing.arrived_shares(t.double(), s.double())
    assert torch.allclose(mixing.spread(*exact), by_definition, rtol=1e-9, atol=1e-15)
    for single, double in zip(mixing.arrived_shares(t, s), exact, strict=True):
        assert torch.allclose(single.double(), double, rtol=1.5e-6, atol=1e-37)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_noise_arrived_since_the_clean_text(process, dtype):
    levels = LOG_SNR.to(dtype)
    swapped, masked = process.mixing.arrived_shares(levels, torch.full_like(levels, math.inf))
    assert torch.equal(swapped, process.mixing.uniform_share(levels))
    assert torch.equal(masked, process.mixing.mask_share(levels))


def test_an_explicit_uniform_reference_changes_nothing():
    reference = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25])
    plain, explicit = HybridMixing(5, 2, 0.5), HybridMixing(5, 2, 0.5, reference=reference)
    ids = torch.arange(5)
    assert torch.allclose(plain.pi(LOG_SNR), explicit.pi(LOG_SNR), rtol=1e-15, atol=0)
    assert torch.allclose(plain.log_reference(ids), explicit.log_reference(ids), rtol=1e-6, atol=0)


def test_the_reference_is_copied_and_normalised_to_the_last_digit():
    given_probs = torch.tensor([0.0, 0.1, 0.2, 0.7])  # float32: sums to one to 1e-8
    mixing = HybridMixing(4, 0, 0.0, reference=given_probs)
    given_probs[1] = 0.5
    assert mixing.reference is not None
    assert mixing.reference.dtype == torch.float64
    assert abs(float(mixing.reference.sum()) - 1) < 1e-15
    assert abs(float(mixing.reference[1]) - 0.1) < 1e-7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": math.nan}, "shift is NaN"),
        ({"scale": 1.5}, r"scale 1\.5 is outside \[-1, 1\]"),
        ({"scale": -1.01}, r"scale -1\.01 is outside"),
        ({"scale": math.nan}, "scale nan is outside"),
        ({"vocab_size": 1, "mask_id": 0}, "vocab_size 1 leaves no token"),
        ({"mask_id": 4}, r"mask_id 4 is outside the vocabulary; give one of 0\.\.3"),
        ({"mask_id": -1}, "mask_id -1 is outside"),
        ({"reference": torch.tensor([0.0, 0.5, 0.5])}, r"reference has shape \(3,\)"),
        ({"reference": torch.tensor([0.1, 0.3, 0.3, 0.3])}, r"gives the mask \(id 0\) probability 0\.1"),
        ({"reference": torch.tensor([0.0, 0.5, 0.0, 0.5])}, "gives token 2 probability 0; every token"),
        ({"reference": torch.tensor([0.0, 1.5, -1.0, 0.5])}, "gives token 2 probability -1"),
        ({"reference": torch.tensor([0.0, 0.5, math.nan, 0.5])}, "gives token 2 probability nan"),
        ({"reference": torch.tensor([0.0, 0.5, 0.5, 0.5])}, r"sums to 1\.5; divide"),
    ],
)
def test_parameters_that_describe_no_process_are_refused(arguments, message):
    valid = {"vocab_size": 4, "mask_id": 0, "shift": 0.0}
    HybridMixing(**valid)
    with pytest.raises(ValueError, match=message):
        HybridMixing(**{**valid, **arguments})


class SteepMixing(BoundedMixing):
    """Noise whose swaps turn back into masks faster than noise arrives."""

    __slots__ = ()

    def share_logit(self, log_snr):
        return 2 * log_snr

    def share_logit_slope(self, log_snr):
        return torch.full_like(log_snr, 2.0)


def test_a_noise_that_is_no_markov_chain_is_refused():
    with pytest.raises(ValueError, match=r"share_logit_slope is 2 at log-SNR -30: such noise is no Markov chain"):
        SteepMixing(5, 4)
    with pytest.raises(ValueError, match="mask_id 5 is outside the vocabulary"):
        BoundedMixing(5, 5)


def test_only_hybrid_noise_has_settings():
    assert noise_spec(HybridMixing(5, 4, 1.5, 0.5)) == NoiseSpec(shift=1.5, scale=0.5)
    with pytest.raises(ValueError, match="BoundedMixing has no settings in a spec; use a HybridMixing"):
        noise_spec(BoundedMixing(5, 4))
