"""The table of noises: every sampler that promises a law is held to it for every row."""

import math

import pytest
import torch

from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess

UNIGRAM = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)

PROCESSES = {
    "masked": HybridMixing(4, 3, -math.inf),
    "low-uniform": HybridMixing(4, 3, -2.0),
    "balanced": HybridMixing(4, 3, 0.0),
    "high-uniform": HybridMixing(4, 3, 2.0),
    "uniform": HybridMixing(4, 3, math.inf),
    "unigram-uniform": HybridMixing(4, 3, math.inf, reference=UNIGRAM),
    "unigram-balanced": HybridMixing(4, 3, 0.0, reference=UNIGRAM),
    "mask-first": HybridMixing(4, 0, 1.0, scale=-0.5),
    "zero-scale": HybridMixing(4, 1, 0.5, scale=0.0),
}


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES.keys())
def process(request: pytest.FixtureRequest) -> NoiseProcess:
    return NoiseProcess(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20251210)
