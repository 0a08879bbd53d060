"""The held-out estimate against exact enumeration: unbiased, and with an honest standard error."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.noise.oracle import Oracle
from noiselaw.noise.process import build_process
from noiselaw.specs import (
    NOISE_SHIFTS,
    AutoregressiveSpec,
    DiffusionSpec,
    InitSpec,
    ModelSpec,
    NoiseSpec,
    ValidationSpec,
)
from noiselaw.train.objective import AutoregressiveObjective, DiffusionObjective
from noiselaw.train.step import HeadSettings, Precision
from noiselaw.train.validation import Validator

V, T, MASK = 4, 2, 3
FLOAT32 = Precision("float32")
HEAD = HeadSettings(4096, "auto")


@dataclass(frozen=True)
class Sequences:
    """A stand-in for the validation split: given sequences."""

    tokens: np.ndarray

    def num_sequences(self, sequence_length):
        assert sequence_length == self.tokens.shape[1]
        return len(self.tokens)

    def sequences(self, indices, sequence_length):
        return self.tokens[indices]


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(num_layers=1, width=8, num_heads=1)
    model = Transformer(spec, V)
    initialise(model, InitSpec(head_std=0.05), torch.Generator().manual_seed(3))
    return model


@pytest.fixture(scope="module")
def data_distribution():
    joint = torch.zeros(V, V, dtype=torch.float64)
    joint[:3, :3] = torch.tensor([[0.30, 0.05, 0.05], [0.10, 0.20, 0.05], [0.05, 0.10, 0.10]], dtype=torch.float64)
    return joint


def denoiser(model):
    def predict(noisy, log_snr):
        logits = model.logits(model(noisy)).double()
        logits[..., MASK] = -torch.inf
        return logits.softmax(-1)

    return predict


@pytest.mark.parametrize("name", ["masked", "balanced", "uniform"])
@torch.no_grad()
def test_estimate_equals_the_exact_bound_within_its_standard_error(name, model, data_distribution):
    noise = NoiseSpec(shift=NOISE_SHIFTS[name])
    process = build_process(noise, V, MASK, -9.0, 9.0)
    exact = Oracle(process, data_distribution).expected_bound(denoiser(model))
    draw = torch.multinomial(data_distribution.flatten(), 20_000, True, generator=torch.Generator().manual_seed(0))
    tokens = torch.stack([draw // V, draw % V], 1).numpy()
    objective = DiffusionObjective(DiffusionSpec(noise=noise), process, empty_id=0)
    estimate = Validator(
        objective, Sequences(tokens), T, ValidationSpec(num_sequences=20_000, draws=4), batch_sequences=5000
    ).estimate(model, FLOAT32, HEAD)
    assert 0 < estimate.standard_error < 0.1
    assert abs(estimate.loss - float(exact)) < 4 * estimate.standard_error
    assert estimate.loss == pytest.approx(estimate.diffusion + estimate.reconstruction + estimate.prior)


@torch.no_grad()
def test_reconstruction_and_prior_equal_the_exact_terms(model, data_distribution):
    # A short range of log-SNR, where both end terms are large.
    noise = NoiseSpec(shift=1.0)
    process = build_process(noise, V, MASK, -1.0, 1.0)
    oracle = Oracle(process, data_distribution)
    exact = oracle.bound(denoiser(model))
    draw = torch.multinomial(data_distribution.flatten(), 40_000, True, generator=torch.Generator().manual_seed(0))
    tokens = torch.stack([draw // V, draw % V], 1).numpy()
    objective = DiffusionObjective(DiffusionSpec(noise=noise, min_log_snr=-1, max_log_snr=1), process, empty_id=0)
    spec = ValidationSpec(num_sequences=40_000)
    estimate = Validator(objective, Sequences(tokens), T, spec, batch_sequences=5000).estimate(model, FLOAT32, HEAD)
    weights = oracle.probabilities
    assert estimate.reconstruction == pytest.approx(float((weights * exact.reconstruction).sum()), rel=0.03)
    assert estimate.prior == pytest.approx(float((weights * exact.prior).sum()), rel=0.02)


@torch.no_grad()
def test_standard_error_is_the_spread_over_repeated_draws(model, data_distribution, monkeypatch):
    from noiselaw.train import validation

    process = build_process(NoiseSpec(shift=0.0), V, MASK, -9.0, 9.0)
    objective = DiffusionObjective(DiffusionSpec(noise=NoiseSpec(shift=0.0)), process, empty_id=0)
    estimates = []
    for seed in range(60):
        monkeypatch.setattr(validation, "VALIDATION_SEED", seed)
        generator = torch.Generator().manual_seed(seed)
        draw = torch.multinomial(data_distribution.flatten(), 400, True, generator=generator)
        tokens = torch.stack([draw // V, draw % V], 1).numpy()
        validator = Validator(objective, Sequences(tokens), T, ValidationSpec(num_sequences=400, draws=2), 400)
        estimates.append(validator.estimate(model, FLOAT32, HEAD))
    spread = np.std([estimate.diffusion for estimate in estimates], ddof=1)
    reported = np.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    assert reported == pytest.approx(spread, rel=0.35)


@torch.no_grad()
def test_autoregressive_estimate_is_the_exact_log_likelihood(model, data_distribution):
    tokens = np.array([[0, 1], [2, 2], [1, 0]])
    objective = AutoregressiveObjective(MASK, end_of_text_id=0)
    validator = Validator(objective, Sequences(tokens), T, ValidationSpec(num_sequences=3), 2)
    estimate = validator.estimate(model, FLOAT32, HEAD)
    shifted = torch.tensor([[0, 0], [0, 2], [0, 1]])
    from noiselaw.model.attention import Attention

    logits = model.logits(model(shifted, Attention.causal()))
    logits[..., MASK] = -torch.inf
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens).flatten())
    assert estimate.loss == pytest.approx(float(expected), rel=1e-5)
    assert AutoregressiveSpec().name == "autoregressive"


def test_too_little_validation_text_is_named():
    process = build_process(NoiseSpec(shift=0.0), V, MASK, -9.0, 9.0)
    objective = DiffusionObjective(DiffusionSpec(noise=NoiseSpec(shift=0.0)), process, empty_id=0)
    with pytest.raises(ValueError, match="num_sequences is 9 but the validation split holds only 3"):
        Validator(objective, Sequences(np.zeros((3, T), int)), T, ValidationSpec(num_sequences=9), 2)
