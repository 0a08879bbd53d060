"""Golden numbers of the published code (noise.npz, loss.npz), within the tolerances their README gives.

Their shifts of -1000 and +1000 are ours of -inf and +inf. Left out are pairs (noisy, clean) that cannot occur. Weights
on which their 1e-8 floor acts, and losses on which their cut of log-probabilities acts, are compared with what floor
and cut make of ours.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from noiselaw.noise.elbo import WEIGHTINGS, bound_weight, divergences
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.noise.rate import alpha, log_snr_density, log_snr_from_time, time_from_log_snr

SHIFTS = [-1000, -2, 0, 2, 1000]
SMALL = {"V17m3": (17, 3), "V64m3": (64, 3), "V17m16": (17, 16)}
LARGE = {"V131072m3": (131072, 3)}
LOSSES = {"V64m3": (64, 3), "V41m40": (41, 40)}
FLOOR = 1e-8
"""Below this the published code cuts the denominator of its weights."""
LOG_PROB_FLOOR = math.log(np.finfo(np.float32).tiny)
"""Below this the published loss cuts log-probabilities."""


class Golden:
    """Arrays of one file as float32 or int64 tensors."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path)

    def __getitem__(self, key: str) -> torch.Tensor:
        values = torch.from_numpy(self._arrays[key])
        return values if values.is_floating_point() else values.long()


@pytest.fixture(scope="module")
def noise(reference_dir: Path) -> Golden:
    return Golden(reference_dir / "noise.npz")


@pytest.fixture(scope="module")
def loss(reference_dir: Path) -> Golden:
    return Golden(reference_dir / "loss.npz")


def hybrid(size: tuple[int, int], shift: float, scale: float = 1.0) -> HybridMixing:
    return HybridMixing(*size, math.copysign(math.inf, shift) if abs(shift) == 1000 else shift, scale)


def reachable(mixing: HybridMixing, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Pairs the noise can produce: no swaps under masked noise, no mask under uniform noise."""
    if mixing.is_masked:
        return (noisy == clean) | (noisy == mixing.mask_id)
    return noisy != mixing.mask_id if mixing.is_uniform else torch.ones_like(noisy, dtype=torch.bool)


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=atol)


def test_clock(noise):
    log_snr = noise["log_snr"]
    # The published code evaluates alpha, and time, on the log-SNR clipped to its range; we never clip.
    clipped = log_snr.clamp(-9, 9)
    for shift in SHIFTS:
        prefix = f"V17m3/b{shift}/"
        assert_near(alpha(clipped), noise[prefix + "alpha"], atol=1e-7)
        assert_near(time_from_log_snr(clipped), noise[prefix + "time"], atol=1e-7)
        assert_near(log_snr_density(log_snr), noise[prefix + "p_log_snr"], atol=1e-7)
    time = noise["t_grid"].double()
    assert_near(time_from_log_snr(torch.tensor([9.0, -9.0])), noise["t_min_max"], atol=1e-7)
    error = (log_snr_from_time(time).clamp(-9, 9) - noise["log_snr_from_time"]).abs()
    # Theirs goes through float32 alpha and 1 - alpha by subtraction: 6e-8 out of the smaller of the two.
    assert (error < 1e-6 + 6e-8 / torch.minimum(time, 1 - time)).all()


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("case", SMALL)
def test_distributions(noise, case, shift):
    mixing = hybrid(SMALL[case], shift)
    log_snr, prefix = noise["log_snr"], f"{case}/b{shift}/"
    assert_near(mixing.pi(log_snr), noise[prefix + "pi"], atol=1e-7)
    assert_near(mixing.pi_prime(log_snr), noise[prefix + "pi_prime"], atol=1e-7)
    assert_near(mixing.pi_prime(log_snr), noise[prefix + "pi_prime_autograd"], atol=1e-7)
    inside = log_snr.abs() <= 9  # outside, theirs mixes a clipped alpha with an unclipped pi
    # In float64, because the rounding of theirs (1.03e-7) fills the tolerance.
    levels = log_snr[inside][:, None].double()
    marginal = NoiseProcess(mixing).marginal_of(noise[f"{case}/x_hat"], levels)
    assert_near(marginal, noise[prefix + "marginal_probs"][inside], atol=1.1e-7)
    from_ids = noise[prefix + "marginal_probs_from_ids"][inside]
    clean = from_ids[levels[:, 0].argmax()].argmax(-1)  # the file does not name the two ids
    assert_near(NoiseProcess(mixing).marginal(clean, levels.expand(-1, 2)), from_ids, atol=1.1e-7)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("case", SMALL | LARGE)
def test_values_and_weights_at_ids(noise, case, shift):
    mixing = hybrid((SMALL | LARGE)[case], shift)
    log_snr, prefix = noise["log_snr"][:, None], f"{case}/b{shift}/"
    noisy, clean = noise[f"{case}/input_ids"], noise[f"{case}/labels"]
    assert_near(mixing.pi_at(log_snr, noisy), noise[prefix + "pi_at_ids"], atol=1e-7)
    assert_near(mixing.pi_prime_at(log_snr, noisy), noise[prefix + "pi_prime_at_ids"], atol=1e-7)

    weight = bound_weight(mixing, log_snr, noisy, clean)
    denominator = mixing.pi_at(log_snr, noisy) + log_snr.exp() * (noisy == clean)
    floored = denominator < FLOOR
    compared = reachable(mixing, noisy, clean) & ~floored
    assert compared.any()
    assert_near(weight[compared], noise[prefix + "loss_weights"][compared], atol=4e-7)
    inside = compared & (log_snr.abs() <= 9)
    elbo_weight = weight * WEIGHTINGS["elbo"](log_snr)
    assert_near(elbo_weight[inside], noise[prefix + "elbo_weights"][inside], rtol=2e-4, atol=3e-3)
    # Where the floor acts on a pair that occurs, theirs is ours scaled down by denominator / floor.
    lost = reachable(mixing, noisy, clean) & floored
    assert_near((weight * denominator / FLOOR)[lost], noise[prefix + "loss_weights"][lost], atol=4e-7)


def test_other_scale(noise):
    mixing, prefix = hybrid((17, 3), 1.0, 0.5), "V17m3/scale0.5_b1/"
    log_snr, noisy, clean = noise["log_snr"], noise["V17m3/input_ids"], noise["V17m3/labels"]
    weight = bound_weight(mixing, log_snr[:, None], noisy, clean)
    assert_near(mixing.pi(log_snr), noise[prefix + "pi"], atol=1e-7)
    assert_near(mixing.pi_prime_at(log_snr[:, None], noisy), noise[prefix + "pi_prime_at_ids"], atol=1e-7)
    assert_near(weight, noise[prefix + "loss_weights"], atol=4e-7)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("case", SMALL)
def test_weights_in_float64(noise, case, shift):
    """Against closed forms written for the data set in float64: fifteen digits, not seven."""
    mixing, prefix = hybrid(SMALL[case], shift), f"f64ref/{case}/b{shift}/"
    log_snr = noise["log_snr"].double()[:, None]
    noisy, clean = noise[f"{case}/input_ids"], noise[f"{case}/labels"]
    compared = reachable(mixing, noisy, clean).expand(len(log_snr), -1)
    weight = bound_weight(mixing, log_snr, noisy, clean)
    assert_near(weight[compared], noise[prefix + "loss_weights"][compared], rtol=1e-9, atol=1e-15)


def golden_terms(loss: Golden, mixing: HybridMixing, case: str, prefix: str, level_key: str) -> dict[str, torch.Tensor]:
    """Our loss, bound and its two parts in float64 for one case of the file, and what tells its pairs apart."""
    noisy, clean = loss[prefix + "input_ids"], loss[f"{case}/labels"]
    level = loss[level_key].double().expand(noisy.shape)
    logits = loss[f"{case}/logits"].double()
    logits[..., mixing.mask_id] = -math.inf
    log_probs = logits.log_softmax(-1)
    weight = bound_weight(mixing, level, noisy, clean)
    distance = divergences(mixing, level, noisy, clean, log_probs.exp())
    return {
        "loss": weight * distance.total,
        "elbo": weight * distance.total * WEIGHTINGS["elbo"](level),
        "kl_loss": weight * distance.kl,
        "is_loss": weight * distance.itakura_saito,
        "alpha": alpha(level),
        "log_prob": log_probs.gather(-1, clean[..., None]).squeeze(-1),
        "reachable": reachable(mixing, noisy, clean),
        "is_mask": noisy == mixing.mask_id,
    }


def assert_losses_match(loss: Golden, ours: dict[str, torch.Tensor], prefix: str, compared: torch.Tensor) -> None:
    for name, atol in {"loss": 5e-7, "elbo": 2e-3, "kl_loss": 5e-7}.items():
        assert_near(ours[name][compared], loss[prefix + name][compared], rtol=1e-3, atol=atol)
    # At the mask the Itakura-Saito divergence is zero; theirs is rounding there, down to -1e-3.
    assert (ours["is_loss"][compared & ours["is_mask"]] == 0).all()
    compared = compared & ~ours["is_mask"]
    assert_near(ours["is_loss"][compared], loss[prefix + "is_loss"][compared], rtol=1e-3, atol=5e-7)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("case", LOSSES)
def test_losses(loss, case, shift):
    mixing, prefix = hybrid(LOSSES[case], shift), f"{case}/b{shift}/"
    ours = golden_terms(loss, mixing, case, prefix, prefix + "log_snr")
    assert ours["reachable"].all()
    # Theirs cuts log p(x); p >= (1 - alpha) pi(x) keeps clear of it unless the noise is masked.
    cut = (ours["alpha"].log() + ours["log_prob"] < LOG_PROB_FLOOR) & mixing.is_masked
    assert_losses_match(loss, ours, prefix, ~cut)
    at_the_cut = ours["alpha"] * (ours["alpha"].log() - LOG_PROB_FLOOR)
    costly = cut & ours["is_mask"]
    assert_near(at_the_cut[costly], loss[prefix + "loss"][costly], rtol=1e-5)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("pair", ["input_mask", "input_other", "input_label"])
def test_losses_at_the_edges(loss, shift, pair):
    mixing, prefix = hybrid((64, 3), shift), f"edge/b{shift}/{pair}/"
    ours = golden_terms(loss, mixing, "edge", prefix, "edge/log_snr")
    impossible = (mixing.is_masked and pair == "input_other") or (mixing.is_uniform and pair == "input_mask")
    assert bool(ours["reachable"].any()) != impossible
    assert_losses_match(loss, ours, prefix, ours["reachable"])
