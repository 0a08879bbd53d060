"""The chunked head against the full-logit one: values and gradients, every noise, every noise level, every dtype."""

import math
from dataclasses import replace

import pytest
import torch
from headcases import (
    LOG_SNRS,
    MASK_ID,
    NOISES,
    SWAPPING,
    HeadCase,
    logits_case,
    make_targets,
    norm_error,
    product_case,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from noiselaw.head import HeadLoss, TokenTargets, reference_loss, vocabulary_loss
from noiselaw.noise import HybridMixing

FLOAT64, FLOAT32 = torch.float64, torch.float32
NUM_TOKENS = 18


def chunked(case: HeadCase, kernel: str = "auto", chunk_tokens: int = 7) -> HeadLoss:
    result = vocabulary_loss(case.hidden, case.weight, case.multiplier, case.targets, chunk_tokens, kernel=kernel)
    result.loss.backward()
    return result


def full(case: HeadCase) -> HeadLoss:
    result = reference_loss(case.hidden, case.weight, case.multiplier, case.targets)
    result.loss.backward()
    return result


def assert_values_close(got: HeadLoss, want: HeadLoss, rtol: float, atol: float) -> None:
    for name in ("loss", "kl", "itakura_saito", "integrand"):
        actual, expected = getattr(got, name).double(), getattr(want, name).detach().double()
        torch.testing.assert_close(
            actual, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_same(
    case: HeadCase, kernel: str, dtype: torch.dtype, *, value_rtol: float, value_atol: float, gradient: float
) -> None:
    """Chunked in `dtype` against the reference in float64, on the same numbers."""
    exact, tested = case.to(FLOAT64), case.to(dtype)
    want, got = full(exact), chunked(tested, kernel)
    assert got.loss.dtype == got.kl.dtype == dtype
    assert_values_close(got, want, value_rtol, value_atol)
    assert norm_error(tested.hidden.grad, exact.hidden.grad) <= gradient
    assert norm_error(tested.weight.grad, exact.weight.grad) <= gradient


def signal(log_snr: float) -> float:
    return 1 / (1 + math.exp(-log_snr))


@pytest.mark.parametrize("std", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("noise", NOISES)
def test_float64_equals_reference_at_every_noise_level(noise: str, std: float, kernel: str):
    for log_snr in LOG_SNRS:
        case = logits_case(noise, torch.full((NUM_TOKENS,), log_snr), std=std)
        # The definition itself cancels to a few float64 roundings of 1 where noise drowns the signal.
        assert_same(case, kernel, FLOAT64, value_rtol=1e-10, value_atol=2e-14, gradient=1e-10)


@pytest.mark.parametrize("std", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("noise", NOISES)
def test_float32_equals_reference_at_every_noise_level(noise: str, std: float, kernel: str):
    for log_snr in LOG_SNRS:
        case = logits_case(noise, torch.full((NUM_TOKENS,), log_snr), std=std)
        # KL is a difference of terms up to α: a few float32 roundings of α are lost where it is far smaller.
        assert_same(
            case, kernel, FLOAT32, value_rtol=1e-5, value_atol=6e-7 * signal(log_snr) * NUM_TOKENS, gradient=1e-5
        )


@pytest.mark.parametrize("noise", NOISES)
def test_bfloat16_within_its_budget_at_every_noise_level(noise: str, kernel: str):
    """Of matrices rounded alike, in units u = 2^-9 of a rounding: gradients within 5 u, values within 1.5 u."""
    unit = 2.0**-9
    for log_snr in LOG_SNRS:
        low = product_case(noise, torch.full((64,), log_snr), vocab_size=97).to(torch.bfloat16)
        exact = low.to(FLOAT64)
        want, got = full(exact), chunked(low, kernel, 17)
        assert got.loss.dtype == FLOAT32
        assert norm_error(got.integrand, want.integrand) < 1.5 * unit
        assert norm_error(low.hidden.grad, exact.hidden.grad) < 5 * unit
        assert norm_error(low.weight.grad, exact.weight.grad) < 5 * unit


@pytest.mark.parametrize("noise", NOISES)
def test_products_with_the_head(noise: str, kernel: str):
    """A real head and multipliers, powers of two and others, noise levels mixed in one batch."""
    for multiplier in (0.75, 0.5):
        case = replace(product_case(noise, torch.linspace(-9, 9, 75)), multiplier=multiplier)
        assert_same(case, kernel, FLOAT64, value_rtol=1e-10, value_atol=1e-14, gradient=1e-12)
        assert_same(case, kernel, FLOAT32, value_rtol=1e-5, value_atol=2e-6, gradient=1e-6)


@pytest.mark.parametrize("noise", ["masked", "balanced", "uniform", "unigram"])
@pytest.mark.parametrize("std", [0.0, 2.0])
def test_large_vocabulary_in_float32(noise: str, std: float, kernel: str):
    """V = 131072, also with the head of a fresh model, all zeros, where every ratio is tiny and alike."""
    for log_snr in (-9.0, 0.0, 9.0):
        case = product_case(noise, torch.full((4,), log_snr), vocab_size=131072, width=4, std=std)
        exact, tested, plain = case.to(FLOAT64), case.to(FLOAT32), case.to(FLOAT32)
        want, got = full(exact), chunked(tested, kernel)
        full(plain)
        assert_values_close(got, want, rtol=1e-5, atol=2e-6 * signal(log_snr))
        assert norm_error(tested.weight.grad, exact.weight.grad) <= 1e-6
        # A product that sums 131072 terms has errors of its own, some 1e-5: those of full logits in float32.
        allowed = 1e-6 + 2 * norm_error(plain.hidden.grad, exact.hidden.grad)
        assert norm_error(tested.hidden.grad, exact.hidden.grad) <= allowed


@pytest.mark.parametrize("vocab_size", [5, 6, 259, 1024, 1025, 3001])
@pytest.mark.parametrize("noise", NOISES)
def test_every_vocabulary_size(noise: str, vocab_size: int, kernel: str):
    """Odd and even ones, and those around the native kernel's blocks of 1024, at the ends of the noise levels."""
    for log_snr in (-9.0, 9.0):
        case = product_case(noise, torch.full((NUM_TOKENS,), log_snr), vocab_size=vocab_size)
        assert_same(case, kernel, FLOAT64, value_rtol=1e-10, value_atol=2e-14, gradient=1e-10)
        value_atol = 6e-7 * signal(log_snr) * NUM_TOKENS
        assert_same(case, kernel, FLOAT32, value_rtol=1e-5, value_atol=value_atol, gradient=1e-5)


@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram", "autoregressive"])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 29, 30, 1000])
def test_chunk_size_changes_nothing(noise: str, chunk_tokens: int, kernel: str):
    case = product_case(noise, torch.linspace(-9, 9, 30))
    one, other = case.to(FLOAT64), case.to(FLOAT64)
    assert_values_close(chunked(one, kernel, chunk_tokens), full(other), rtol=1e-12, atol=1e-14)
    assert norm_error(one.hidden.grad, other.hidden.grad) < 1e-12
    assert norm_error(one.weight.grad, other.weight.grad) < 1e-12


@pytest.mark.parametrize("noise", NOISES)
def test_gradcheck(noise: str, kernel: str):
    targets = make_targets(noise, 7, torch.tensor([-4.0, -1.0, 0.5, 1.0, 2.0, 3.0]).double())
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(6, 3, generator=generator, dtype=FLOAT64).requires_grad_()
    weight = torch.randn(7, 3, generator=generator, dtype=FLOAT64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, w: vocabulary_loss(h, w, 0.6, targets, 4, kernel=kernel).loss, (hidden, weight)
    )


@pytest.mark.parametrize("noise", NOISES)
def test_logit_gradients_sum_to_zero_and_spare_the_mask(noise: str, kernel: str):
    case = logits_case(noise, torch.linspace(-9, 9, 60)).to(FLOAT64)
    chunked(case, kernel)
    gradient = case.hidden.grad
    assert gradient.abs().sum() > 0
    assert (gradient.sum(1).abs() <= 1e-13 * gradient.abs().sum(1)).all()
    assert (gradient[:, MASK_ID] == 0).all()


def test_masked_noise_is_weighted_cross_entropy_at_masks(kernel: str):
    """Spec section 3: at masked positions α times the cross-entropy without the mask, elsewhere nothing."""
    case = logits_case("masked", torch.linspace(-9, 9, 30)).to(FLOAT64)
    result, targets = chunked(case, kernel), case.targets
    logits = case.hidden.detach().clone()
    logits[:, MASK_ID] = -math.inf
    entropy = cross_entropy(logits, targets.clean, reduction="none")
    is_live = (targets.noisy == MASK_ID) & (targets.weight > 0)
    expected = torch.where(is_live, torch.sigmoid(targets.log_snr.double()) * entropy, 0.0)
    torch.testing.assert_close(result.integrand, expected, rtol=1e-12, atol=1e-15)


def test_autoregressive_is_cross_entropy_without_the_mask(kernel: str):
    case = logits_case("autoregressive", torch.zeros(30)).to(FLOAT64)
    logits = case.hidden.detach().clone()
    logits[:, MASK_ID] = -math.inf
    entropy = cross_entropy(logits, case.targets.clean, reduction="none") * (case.targets.weight > 0)
    torch.testing.assert_close(chunked(case, kernel).integrand, entropy, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("noise", ["masked", "balanced", "autoregressive"])
def test_loss_is_the_weighted_sum_of_the_integrand(noise: str):
    case = product_case(noise, torch.linspace(-9, 9, 30)).to(FLOAT64)
    result = chunked(case)
    torch.testing.assert_close(result.loss.detach(), (case.targets.weight.double() * result.integrand).sum())
    assert not any(part.requires_grad for part in (result.kl, result.itakura_saito, result.integrand))


@pytest.mark.parametrize("shift", [0.0, -100.0])
@pytest.mark.parametrize("noisy", [5, 7, MASK_ID])
def test_extreme_ratios_stay_finite(shift: float, noisy: int, kernel: str):
    """A prediction certain of another token, at hardly any noise: e^d and e^κ overflow float32, their uses do not."""
    mixing = HybridMixing(16, MASK_ID, shift)
    one = torch.ones(1)
    targets = TokenTargets(torch.tensor([5]), torch.tensor([noisy]), 9 * one, one, mixing, MASK_ID)
    logits = torch.zeros(1, 16)
    logits[0, 6] = 300.0
    exact = HeadCase(logits, torch.eye(16), 1.0, targets).to(FLOAT64)
    tested = exact.to(FLOAT32)
    want, got = full(exact), chunked(tested, kernel)
    torch.testing.assert_close(got.integrand.double(), want.integrand, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(tested.hidden.grad.double(), exact.hidden.grad, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("noise", NOISES)
def test_tokens_without_loss_never_reach_the_head(noise: str, kernel: str):
    """Their hidden states may be anything, even NaN; their gradient is zero."""
    case = product_case(noise, torch.linspace(-9, 9, 30)).to(FLOAT64)
    targets = case.targets
    dead = targets.weight == 0
    if noise == "masked":
        dead = dead | (targets.noisy != MASK_ID)
    poisoned = case.to(FLOAT64)
    poisoned.hidden.data[dead] = math.nan
    want, got = chunked(case, kernel), chunked(poisoned, kernel)
    assert_values_close(got, want, rtol=0.0, atol=0.0)
    assert torch.equal(poisoned.weight.grad, case.weight.grad)
    assert (poisoned.hidden.grad[dead] == 0).all()
    assert (got.integrand[dead] == 0).all()
    assert (got.integrand[~dead] > 0).all()


def test_live_tokens_that_are_known_are_not_looked_for():
    targets = product_case("balanced", torch.linspace(-9, 9, 30)).targets
    known = replace(targets, live=torch.tensor([3, 1]))
    assert known.live_tokens().tolist() == [3, 1]
    assert torch.equal(known.at(slice(4)).live_tokens(), targets.at(slice(4)).live_tokens())


@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram", "autoregressive"])
def test_no_live_token(noise: str, kernel: str):
    case = product_case(noise, torch.zeros(6)).to(FLOAT32)
    case.targets.weight.zero_()
    result = chunked(case, kernel)
    assert float(result.loss.detach()) == 0.0
    assert result.kl.shape == (6,)
    assert torch.equal(case.hidden.grad, torch.zeros_like(case.hidden))
    assert torch.equal(case.weight.grad, torch.zeros_like(case.weight))


@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram", "autoregressive"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, FLOAT64])
def test_a_logit_that_is_no_number_shows_in_the_loss(noise: str, dtype: torch.dtype, kernel: str):
    """Training stops at such a loss; a kernel that skipped it would go on with a broken model."""
    for position in (0, 4, 63):
        case = logits_case(noise, torch.zeros(NUM_TOKENS)).to(dtype)
        case.hidden.data[1, position] = math.nan
        case.targets.weight.fill_(1.0)
        result = vocabulary_loss(case.hidden, case.weight, case.multiplier, case.targets, 7, kernel=kernel)
        assert result.loss.isnan()


@pytest.mark.parametrize(("by_hidden", "by_weight"), [(True, False), (False, True), (False, False)])
def test_only_wanted_gradients(by_hidden: bool, by_weight: bool):
    case = product_case("balanced", torch.linspace(-9, 9, 30)).to(FLOAT64)
    wanted = case.to(FLOAT64)
    chunked(wanted)
    case.hidden.requires_grad_(by_hidden)
    case.weight.requires_grad_(by_weight)
    result = vocabulary_loss(case.hidden, case.weight, case.multiplier, case.targets, 7)
    assert result.loss.requires_grad == (by_hidden or by_weight)
    if not result.loss.requires_grad:
        return
    result.loss.backward()
    for leaf, complete, is_wanted in ((case.hidden, wanted.hidden, by_hidden), (case.weight, wanted.weight, by_weight)):
        assert (leaf.grad is not None) == is_wanted
        assert leaf.grad is None or torch.equal(leaf.grad, complete.grad)


def test_backward_scales_and_repeats():
    case = product_case("balanced", torch.linspace(-9, 9, 30)).to(FLOAT64)
    single = case.to(FLOAT64)
    chunked(single)
    loss = vocabulary_loss(case.hidden, case.weight, case.multiplier, case.targets, 7).loss
    (0.25 * loss).backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(case.weight.grad, 1.25 * single.weight.grad)
    torch.testing.assert_close(case.hidden.grad, 1.25 * single.hidden.grad)


@pytest.mark.parametrize("noise", NOISES)
def test_bfloat16_within_its_budget(noise: str, kernel: str):
    """Matrices in bfloat16, sums in float32: the error is the rounding of the logits and of their gradient.

    Budget, per noise level: a logit is off by half a unit in its last place, 2^-9 of the largest logit, so a token's
    loss by at most that times the 1-norm of its logit gradient (twice that, for curvature); gradients by 1.5 % in norm.
    """
    for log_snr in LOG_SNRS:
        case = product_case(noise, torch.full((NUM_TOKENS,), log_snr))
        rounded = case.to(torch.bfloat16)
        exact = rounded.to(FLOAT64)
        got, want = chunked(rounded, kernel), full(exact)
        assert got.loss.dtype == FLOAT32
        assert rounded.hidden.grad.dtype == rounded.weight.grad.dtype == torch.bfloat16
        logits = exact.multiplier * exact.hidden.detach() @ exact.weight.detach().T
        budget = 2 * 2**-9 * float(logits.abs().max()) * _logit_gradient(logits, exact.targets).abs().sum(1)
        assert ((got.integrand.double() - want.integrand).abs() <= budget + 1e-6 * signal(log_snr)).all()
        assert norm_error(rounded.hidden.grad, exact.hidden.grad) < 0.015
        assert norm_error(rounded.weight.grad, exact.weight.grad) < 0.015


def _logit_gradient(logits: Tensor, targets: TokenTargets) -> Tensor:
    """Gradient of each token's integrand by its logits."""
    unweighted = TokenTargets(
        targets.clean,
        targets.noisy,
        targets.log_snr,
        (targets.weight > 0).double(),
        mixing=targets.mixing,
        mask_id=targets.mask_id,
    )
    leaf = logits.clone().requires_grad_()
    reference_loss(leaf, torch.eye(logits.shape[1], dtype=FLOAT64), 1.0, unweighted).loss.backward()
    return leaf.grad


def test_low_precision_head_gradient_is_summed_in_float32(kernel: str):
    """float32 master weights under bfloat16 hidden states: many chunks lose no more than one."""
    case = product_case("balanced", torch.linspace(-9, 9, 512), std=0.5)
    grads = []
    for chunk_tokens in (4, 512):
        hidden = case.hidden.bfloat16().requires_grad_()
        weight = case.weight.float().requires_grad_()
        vocabulary_loss(hidden, weight, case.multiplier, case.targets, chunk_tokens, kernel=kernel).loss.backward()
        assert weight.grad.dtype == FLOAT32
        grads.append(weight.grad)
    exact = case.to(FLOAT64)
    exact.hidden.data.copy_(case.hidden.bfloat16())
    exact.weight.data.copy_(case.weight.bfloat16())
    full(exact)
    assert norm_error(grads[0], exact.weight.grad) < 0.005
    assert norm_error(grads[0], grads[1]) < 0.005


def test_autocast_changes_nothing():
    case = product_case("balanced", torch.linspace(-9, 9, 30))
    plain, under = case.to(FLOAT32), case.to(FLOAT32)
    want = chunked(plain)
    with torch.autocast("cpu", torch.bfloat16):
        got = vocabulary_loss(under.hidden, under.weight, under.multiplier, under.targets, 7)
    got.loss.backward()
    assert torch.equal(got.integrand, want.integrand)
    assert torch.equal(under.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("noise", SWAPPING)
def test_inputs_are_not_touched(noise: str):
    case = product_case(noise, torch.linspace(-9, 9, 30)).to(FLOAT32)
    targets = case.targets
    inputs = (case.hidden, case.weight, targets.clean, targets.noisy, targets.log_snr, targets.weight)
    before = [part.detach().clone() for part in inputs]
    chunked(case)
    assert all(torch.equal(part.detach(), copy) for part, copy in zip(inputs, before, strict=True))


def test_targets_that_do_not_fit_are_refused():
    targets = make_targets("balanced", 16, torch.zeros(4))
    with pytest.raises(AssertionError, match="flat and equally long"):
        TokenTargets(targets.clean, targets.noisy, torch.zeros(2, 2), targets.weight, targets.mixing, MASK_ID)
    with pytest.raises(AssertionError, match="does not fit"):
        vocabulary_loss(torch.zeros(3, 8), torch.zeros(16, 8), 1.0, targets, 4)
