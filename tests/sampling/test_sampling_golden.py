"""The published sampler's own numbers: matrices of the ancestral step, positions and tokens of the adaptive one."""

import json
import math

import numpy as np
import pytest
import torch
from denoisers import Says

from noiselaw.model.attention import Attention
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling import GREEDY, NO_FILTERS, Canvas, linear_grid
from noiselaw.sampling.adaptive import improvability, self_correct
from noiselaw.sampling.filters import draw
from noiselaw.sampling.predictions import Predictions

SHIFTS = {"-1000": -math.inf, "-2": -2.0, "0": 0.0, "2": 2.0, "1000": math.inf}
VOCABULARIES = {"V64m3": (64, 3), "V41m40": (41, 40)}


@pytest.fixture(scope="module")
def golden(reference_dir):
    return np.load(reference_dir / "sampler.npz")


@pytest.fixture(scope="module")
def level_pairs(reference_dir):
    return json.loads((reference_dir / "sampler.json").read_text())["log_snr_pairs_t_s"]


@pytest.fixture(params=VOCABULARIES)
def vocabulary(request):
    return request.param


@pytest.fixture(params=SHIFTS)
def shift(request):
    return request.param


def case(golden, vocabulary, shift):
    """Process, logits without the mask, noisy ids, and which positions are noisy."""
    size, mask_id = VOCABULARIES[vocabulary]
    process = NoiseProcess(HybridMixing(size, mask_id, SHIFTS[shift]))
    logits = torch.from_numpy(golden[f"{vocabulary}/logits"]).double()
    ids = torch.from_numpy(golden[f"{vocabulary}/b{shift}/input_ids"]).long()
    return process, logits, ids, torch.from_numpy(golden[f"{vocabulary}/noise_mask"])


def by_formula(process, logits, ids, pair, dtype):
    """p(z_s | z_t) as spec section 8 writes it, [.., V] matrices and all, every 1 - x formed by subtraction."""
    mixing = process.mixing
    probs = logits.to(dtype).index_fill(-1, torch.tensor(mixing.mask_id), -math.inf).softmax(-1)
    alpha_t, alpha_s = torch.tensor(pair, dtype=dtype).sigmoid()
    pi_t, pi_s = (pi_by_formula(mixing, level, dtype) for level in pair)
    arrived = (1 - alpha_t) * pi_t - alpha_t / alpha_s * (1 - alpha_s) * pi_s
    identity = torch.eye(mixing.vocab_size, dtype=dtype)
    forward = alpha_t / alpha_s * identity[ids] + arrived[ids][..., None]
    q_s, q_t = alpha_s * probs + (1 - alpha_s) * pi_s, alpha_t * probs + (1 - alpha_t) * pi_t
    return forward * q_s / q_t.gather(-1, ids[..., None])


def pi_by_formula(mixing, log_snr, dtype):
    share = torch.sigmoid(torch.tensor(log_snr + mixing.shift, dtype=dtype))
    pi = (share / (mixing.vocab_size - 1)).repeat(mixing.vocab_size)
    pi[mixing.mask_id] = 1 - share
    return pi


def predictions_of(process, logits, ids):
    found = Predictions(Says(logits), Attention.full(), process.mixing, ids)
    found.look(ids, 0.0)
    return found


def test_the_mixture_is_the_published_matrix(golden, level_pairs, vocabulary, shift):
    """Their float32 keeps three digits of 1 - α near the clean end, so there the way leads over their own formula."""
    process, logits, ids, _ = case(golden, vocabulary, shift)
    present = (
        predictions_of(process, logits, ids).statistics(torch.ones_like(ids, dtype=torch.bool), NO_FILTERS).present
    )
    probs = logits.index_fill(-1, torch.tensor(process.mixing.mask_id), -math.inf).softmax(-1)
    identity = torch.eye(process.mixing.vocab_size, dtype=torch.float64)
    for pair in level_pairs:
        t, s = torch.tensor(pair, dtype=torch.float64)
        events = process.posterior_mixture(ids, present, t, s)
        matrix = events.clean[..., None] * probs + events.noise[..., None] * process.mixing.pi(s)
        matrix += events.stay[..., None] * identity[ids]
        published = golden[f"{vocabulary}/b{shift}/t{pair[0]:g}_s{pair[1]:g}/p_s_given_t"]
        same_rounding = by_formula(process, logits, ids, pair, torch.float32)
        np.testing.assert_allclose(same_rounding, published, rtol=0, atol=2e-6)
        np.testing.assert_allclose(matrix, by_formula(process, logits, ids, pair, torch.float64), rtol=0, atol=1e-11)
        if pair[1] < 4:
            np.testing.assert_allclose(matrix, published, rtol=0, atol=2e-6)


@pytest.mark.parametrize("top", [1, 3])
def test_adaptive_scores_positions_and_tokens_are_the_published(golden, vocabulary, shift, top):
    process, logits, ids, noisy = case(golden, vocabulary, shift)
    name = f"{vocabulary}/b{shift}/adaptive_top{top}"
    everywhere = torch.ones_like(noisy)
    statistics = predictions_of(process, logits, ids).statistics(everywhere, NO_FILTERS)
    score = improvability(process, ids, statistics)
    np.testing.assert_allclose(score, golden[f"{name}/prob_delta"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(statistics.present, golden[f"{name}/curr_prob"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(statistics.best, golden[f"{name}/best_prob"], rtol=0, atol=2e-6)

    start = Canvas(ids, ~noisy, torch.tensor([0, 4]), torch.tensor([10, 10]))
    seen = []
    found = self_correct(
        Says(logits),
        process,
        start,
        linear_grid(process, 1),
        positions_per_step=top,
        filters=GREEDY,
        generator=torch.Generator(),
        observe=seen.append,
    )
    assert torch.equal(found, torch.from_numpy(golden[f"{name}/next_input_ids"]).long())
    for row, positions in enumerate(golden[f"{name}/next_pos"]):
        assert set(seen[1].changed[row].nonzero().squeeze(1).tolist()) == set(positions.tolist())


def test_prior_probabilities_are_the_published(golden, shift):
    ids = torch.from_numpy(golden["prior_prob/ids"]).long()
    mixing = HybridMixing(64, 3, SHIFTS[shift])
    lowest = torch.full(ids.shape, -9.0, dtype=torch.float64)
    expected = golden[f"prior_prob/b{shift}"]
    np.testing.assert_allclose(mixing.pi_at(lowest, ids), expected, rtol=0, atol=2e-6)


def test_draws_invert_the_distribution_function_as_published(golden):
    probs, uniform = torch.from_numpy(golden["categorical/probs"]), torch.from_numpy(golden["categorical/u"])
    row_sums = probs.double().sum(-1)
    found = draw(probs.double().log(), uniform.double().squeeze(1) / row_sums)
    assert found.tolist() == golden["categorical/out"].tolist()


def test_all_revealed_rewrites_the_last_position_there_and_nothing_here(golden):
    """The published sampler overwrites the last position when no score is positive."""
    for vocabulary, (size, mask_id) in VOCABULARIES.items():
        process = NoiseProcess(HybridMixing(size, mask_id, -math.inf))
        ids = torch.from_numpy(golden[f"{vocabulary}/all_revealed/input_ids"]).long()
        published = torch.from_numpy(golden[f"{vocabulary}/all_revealed/next_input_ids"]).long()
        assert not torch.equal(ids, published)
        logits = torch.from_numpy(golden[f"{vocabulary}/logits"])
        noisy = torch.from_numpy(golden[f"{vocabulary}/noise_mask"])
        one_mask = ids.clone()
        one_mask[0, 0] = mask_id
        canvas = Canvas(one_mask, ~noisy, (~noisy).sum(1), torch.tensor([10, 10]))
        found = self_correct(
            Says(logits),
            process,
            canvas,
            linear_grid(process, 50),
            generator=torch.Generator(),
        )
        assert torch.equal(found[:, 1:], ids[:, 1:])
        assert int(found[0, 0]) != mask_id
        assert int(found[1, 0]) == int(ids[1, 0])
