"""The Triton kernels against the full-logit oracle: what test_head_triton.py runs in a process of its own."""

import pytest
import torch
from headcases import LOG_SNRS, NOISES, HeadCase, norm_error, product_case

from noiselaw.head import HeadLoss, TokenTargets, kernels, reference_loss, vocabulary_loss
from noiselaw.head import triton as triton_kernels

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture(autouse=True)
def triton_on_this_device(monkeypatch):
    """Triton is the native kernel of `DEVICE`, and takes rows in several blocks."""
    monkeypatch.setattr(kernels, "_find_native", lambda _: kernels._triton_kernel())
    monkeypatch.setattr(triton_kernels, "MAX_BLOCK", 16)
    kernels._native.cache_clear()
    yield
    kernels._native.cache_clear()


def run(case: HeadCase, dtype: torch.dtype) -> tuple[HeadLoss, torch.Tensor, torch.Tensor]:
    """Loss by the kernels and its gradients by hidden states and head."""
    given = case.targets
    parts = (part.to(DEVICE) for part in (given.clean, given.noisy, given.log_snr, given.weight))
    targets = TokenTargets(*parts, mixing=given.mixing, mask_id=given.mask_id)
    hidden, weight = (part.detach().to(DEVICE, dtype).requires_grad_() for part in (case.hidden, case.weight))
    result = vocabulary_loss(hidden, weight, case.multiplier, targets, 7, kernel="native")
    result.loss.backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return result, hidden.grad.cpu(), weight.grad.cpu()


def oracle(case: HeadCase, dtype: torch.dtype) -> tuple[HeadLoss, torch.Tensor, torch.Tensor]:
    """The same of full logits in float64, from inputs rounded to `dtype`."""
    exact = case.to(dtype).to(torch.float64)
    result = reference_loss(exact.hidden, exact.weight, exact.multiplier, exact.targets)
    result.loss.backward()
    return result, exact.hidden.grad, exact.weight.grad


@pytest.mark.parametrize("vocab_size", [5, 70])
@pytest.mark.parametrize("noise", NOISES)
def test_float32_equals_reference(noise: str, vocab_size: int):
    case = product_case(noise, torch.tensor(LOG_SNRS).double(), vocab_size=vocab_size)
    got, want = run(case, torch.float32), oracle(case, torch.float32)
    for name in ("loss", "kl", "itakura_saito", "integrand"):
        actual, expected = getattr(got[0], name).cpu().double(), getattr(want[0], name)
        # Roundings of α are lost in KL, as with the other kernels.
        torch.testing.assert_close(actual.detach(), expected.detach(), rtol=1e-5, atol=2e-6)
    assert norm_error(got[1], want[1]) < 1e-5
    assert norm_error(got[2], want[2]) < 1e-5


@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram"])
def test_bfloat16_within_its_budget(noise: str):
    case = product_case(noise, torch.tensor(LOG_SNRS).double())
    got, want = run(case, torch.bfloat16), oracle(case, torch.bfloat16)
    assert got[0].loss.dtype == torch.float32
    assert norm_error(got[0].integrand.cpu(), want[0].integrand) < 0.015
    assert norm_error(got[1], want[1]) < 0.015
    assert norm_error(got[2], want[2]) < 0.015


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter's numpy
@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram", "autoregressive"])
def test_a_logit_that_is_no_number_shows_in_the_loss(noise: str):
    case = product_case(noise, torch.zeros(8).double())
    case.targets.weight.fill_(1.0)
    case.hidden[1] = torch.nan
    assert run(case, torch.float32)[0].loss.isnan()


@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU; the interpreter stands in for one at small vocabularies only")
@pytest.mark.parametrize("noise", NOISES)
def test_large_vocabulary_on_a_gpu(noise: str, monkeypatch):
    monkeypatch.setattr(triton_kernels, "MAX_BLOCK", 4096)
    for log_snr in (-9.0, 0.0, 9.0):
        case = product_case(noise, torch.full((4,), log_snr), vocab_size=131072, width=4)
        got, want = run(case, torch.float32), oracle(case, torch.float32)
        torch.testing.assert_close(got[0].integrand.cpu().double(), want[0].integrand, rtol=1e-5, atol=2e-6)
        assert norm_error(got[2], want[2]) < 1e-5
