"""The table of noise processes: every property of the room is tested on every row. A new noise is one more row."""

import math

import pytest
import torch
from own_noise import BoundedMixing

from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess

VOCAB_SIZE = 5
REFERENCE = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
"""Probabilities of the tokens that are not the mask."""


def with_mask(reference: torch.Tensor, mask_id: int) -> torch.Tensor:
    return torch.cat([reference[:mask_id], torch.zeros(1, dtype=torch.float64), reference[mask_id:]])


PROCESSES = {
    "masked": HybridMixing(VOCAB_SIZE, 4, -math.inf),
    "low-uniform": HybridMixing(VOCAB_SIZE, 4, -2.0),
    "balanced": HybridMixing(VOCAB_SIZE, 4, 0.0),
    "high-uniform": HybridMixing(VOCAB_SIZE, 4, 2.0),
    "uniform": HybridMixing(VOCAB_SIZE, 4, math.inf),
    "half-scale": HybridMixing(VOCAB_SIZE, 4, 1.0, scale=0.5),
    "zero-scale": HybridMixing(VOCAB_SIZE, 4, 0.5, scale=0.0),
    "negative-scale": HybridMixing(VOCAB_SIZE, 4, 0.0, scale=-1.0),
    "reference-balanced": HybridMixing(VOCAB_SIZE, 4, 0.0, reference=with_mask(REFERENCE, 4)),
    "reference-uniform": HybridMixing(VOCAB_SIZE, 1, math.inf, reference=with_mask(REFERENCE, 1)),
    "mask-first": HybridMixing(VOCAB_SIZE, 0, 0.0),
    "mask-middle": HybridMixing(VOCAB_SIZE, 2, 0.0),
    "mask-first-reference": HybridMixing(VOCAB_SIZE, 0, 0.0, reference=with_mask(REFERENCE, 0)),
    "own": BoundedMixing(VOCAB_SIZE, 4, limit=2.0),
    "own-reference": BoundedMixing(VOCAB_SIZE, 1, limit=6.0, reference=with_mask(REFERENCE, 1)),
}


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES.keys())
def process(request: pytest.FixtureRequest) -> NoiseProcess:
    return NoiseProcess(request.param)


@pytest.fixture
def ordinary(process: NoiseProcess) -> torch.Tensor:
    """The ids that are not the mask, [V - 1]."""
    ids = torch.arange(process.mixing.vocab_size)
    return ids[ids != process.mixing.mask_id]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20251210)
