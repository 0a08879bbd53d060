"""Exactness: with the exact prediction the texts follow the data's law, for every noise and every sampler that says so.

One test computes the law of the samplers' steps without drawing (its error falls like 1 / steps); the others draw
from the samplers themselves and compare counts.
"""

import math
from itertools import pairwise

import pytest
import torch
from denoisers import make_oracle
from scipy import stats

from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling import (
    Canvas,
    LogitsDenoiser,
    OracleDenoiser,
    adaptive,
    ancestral,
    blockwise,
    cosine_grid,
    linear_grid,
)
from noiselaw.sampling.grid import level_pairs

NUM_TEXTS = 10_000


def blanks(num_positions, num_texts=NUM_TEXTS):
    return Canvas.from_prompts([[]] * num_texts, num_positions)


def counts_of(texts, oracle):
    """How often each sequence of the vocabulary was written, in the shape of `oracle.data`."""
    size = oracle.process.mixing.vocab_size
    index = sum(texts[:, t] * size ** (texts.shape[1] - 1 - t) for t in range(texts.shape[1]))
    return torch.bincount(index, minlength=oracle.data.numel()).view(oracle.data.shape)


def p_value(counts, probs):
    possible = probs > 0
    assert int(counts[~possible].sum()) == 0, "an impossible text was written"
    expected = (probs * counts.sum())[possible]
    assert expected.min() > 5
    return float(stats.chisquare(counts[possible].numpy(), expected.numpy()).pvalue)


def law_of_steps(oracle, levels):
    """Exact law of ancestral sampling: probabilities carried from level to level over all sequences, [V, V]."""
    process, noisy = oracle.process, oracle.noisy
    law = torch.outer(process.prior(), process.prior()).flatten()
    for now, following in level_pairs(levels):
        probs = oracle.leave_one_out(noisy, now.expand(len(noisy)))
        token_laws = process.posterior(noisy, probs, now, following)
        law = law @ torch.einsum("na,nb->nab", token_laws[:, 0], token_laws[:, 1]).flatten(1)
    return law.view(oracle.data.shape)


def test_the_law_of_the_steps_approaches_the_data(process):
    """Total variation falls to nothing, about half as much with twice the steps."""
    oracle = make_oracle(process, 2)
    errors = []
    for num_steps in (8, 32, 128):
        law = law_of_steps(oracle, cosine_grid(process, num_steps))
        errors.append(float((law - oracle.data).abs().sum() / 2))
    assert errors[0] > 0.01
    assert errors[2] < 6e-3
    ratios = [before / after for before, after in pairwise(errors)]
    assert min(ratios[1:]) > 2.8, errors


def test_ancestral_texts_follow_the_data(process, generator):
    oracle = make_oracle(process, 2)
    texts = ancestral(OracleDenoiser(oracle), process, blanks(2), cosine_grid(process, 128), generator=generator)
    assert p_value(counts_of(texts, oracle), oracle.data) > 1e-3


def test_few_steps_are_told_from_many(process, generator):
    """The test above can fail: with two steps tokens are written side by side and their dependence is lost."""
    oracle = make_oracle(process, 2)
    texts = ancestral(OracleDenoiser(oracle), process, blanks(2), linear_grid(process, 2), generator=generator)
    assert p_value(counts_of(texts, oracle), oracle.data) < 1e-6


@pytest.mark.parametrize("num_steps", [3, 1])
def test_adaptive_one_at_a_time_is_exact_under_masked_noise(generator, num_steps):
    process = NoiseProcess(HybridMixing(4, 3, -math.inf))
    oracle = make_oracle(process, 3)
    texts = adaptive(OracleDenoiser(oracle), process, blanks(3), linear_grid(process, num_steps), generator=generator)
    exact = p_value(counts_of(texts, oracle), oracle.data) > 1e-3
    assert exact == (num_steps == 3)


def test_blockwise_texts_follow_the_data(process, generator):
    """Blocks of one and of two: each is drawn from what the finished ones make likely."""
    oracle = make_oracle(process, 3)
    for block_length in (1, 2):
        texts = blockwise(
            OracleDenoiser(oracle),
            process,
            blanks(3),
            cosine_grid(process, 96 if block_length == 2 else 24),
            block_length=block_length,
            generator=generator,
        )
        assert p_value(counts_of(texts, oracle), oracle.data) > 1e-3


def test_a_prompt_is_conditioned_on(process, generator):
    oracle = make_oracle(process, 3)
    first = int(oracle.data.sum((1, 2)).argmax())
    canvas = Canvas.from_prompts([[first]] * NUM_TEXTS, 3)
    texts = ancestral(OracleDenoiser(oracle), process, canvas, cosine_grid(process, 128), generator=generator)
    conditional = torch.zeros_like(oracle.data)
    conditional[first] = oracle.data[first] / oracle.data[first].sum()
    assert p_value(counts_of(texts, oracle), conditional) > 1e-3


def test_infilling_is_conditioned_on_both_sides(process, generator):
    oracle = make_oracle(process, 3)
    middle = int(oracle.data.sum((0, 2)).argmax())
    canvas = Canvas.from_rows([[None, middle, None]] * NUM_TEXTS)
    texts = ancestral(
        OracleDenoiser(oracle, given=(1,)), process, canvas, cosine_grid(process, 128), generator=generator
    )
    conditional = torch.zeros_like(oracle.data)
    conditional[:, middle] = oracle.data[:, middle] / oracle.data[:, middle].sum()
    assert p_value(counts_of(texts, oracle), conditional) > 1e-3


def test_any_function_to_logits_is_a_denoiser(generator):
    """Independent tokens: a function that ignores its input already is the exact prediction."""
    process = NoiseProcess(HybridMixing(4, 3, 0.0))
    probs = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    denoiser = LogitsDenoiser(lambda ids, _attention: probs.log().expand(*ids.shape, 4))
    texts = ancestral(denoiser, process, blanks(2, 10_000), cosine_grid(process, 8), generator=generator)
    counts = torch.bincount(texts.flatten(), minlength=4)
    assert p_value(counts, probs) > 1e-3
