"""Faults of the published samplers that do not occur here: one test each (reference README, spec sections 2 and 8)."""

import math
from itertools import pairwise

import pytest
import torch
from denoisers import Counting, Says, make_oracle

from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling import (
    GREEDY,
    GRIDS,
    Canvas,
    Filters,
    LogitsDenoiser,
    OracleDenoiser,
    adaptive,
    ancestral,
    blockwise,
    cosine_grid,
    linear_grid,
    self_correct,
)
from noiselaw.sampling.ancestral import level_pairs

V, MASK, END = 16, 3, 1
MASKED = NoiseProcess(HybridMixing(V, MASK, -math.inf))
BALANCED = NoiseProcess(HybridMixing(V, MASK, 0.0))
UNIFORM = NoiseProcess(HybridMixing(V, MASK, math.inf))
NOISES = pytest.mark.parametrize("process", [MASKED, BALANCED, UNIFORM], ids=["masked", "balanced", "uniform"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_logits(num_texts, num_positions, seed=0):
    return torch.randn(num_texts, num_positions, V, generator=seeded(seed), dtype=torch.float64)


def without_mask(logits):
    return logits.index_fill(-1, torch.tensor(MASK), -math.inf)


@NOISES
@pytest.mark.parametrize("sampler", [ancestral, adaptive])
def test_more_steps_than_tokens_leave_nothing_undefined(process, sampler):
    """Theirs: 0/0 scores once the masks run out, and one position rewritten for ever."""
    denoiser, steps = Says(random_logits(2, 5)), []
    texts = sampler(
        denoiser, process, Canvas.from_prompts([[], []], 5), cosine_grid(process, 200), generator=seeded(),
        filters=GREEDY, observe=steps.append,
    )  # fmt: skip
    best = without_mask(denoiser.values).argmax(-1)
    assert torch.equal(texts, best)
    for step in steps:
        assert step.beliefs().support.isfinite().all()


@NOISES
def test_an_end_token_in_the_prior_ends_nothing(process):
    """Theirs: an end-of-text id among the random ids of the prior stops generation, and noise is returned as text."""
    logits = torch.zeros(8, 12, V, dtype=torch.float64)
    logits[..., END] = -30.0  # the model itself never writes it
    denoiser = Counting(Says(logits), [])
    denoiser.after = lambda prefix, _lengths: Counting(Says(logits[:, : 12 - prefix.shape[1]][:, :4]), denoiser.calls)
    texts = blockwise(
        denoiser, process, Canvas.from_prompts([[]] * 8, 12), linear_grid(process, 16), block_length=4, stop_id=END,
        generator=seeded(5),
    )  # fmt: skip
    assert not (texts == END).any()
    assert not (texts == MASK).any()
    if process is UNIFORM:
        assert (denoiser.calls[0][0] == END).any(), "the prior should hold the end token, or this proves nothing"


@pytest.mark.parametrize("prompt_length", [0, 3, 15])
def test_prompt_and_new_text_share_the_context(prompt_length):
    """Theirs: max_length is added to the prompt and overruns the model's positions. Here a text has one length."""
    seen = []

    def predict(ids, _attention):
        seen.append(ids.shape[1])
        return torch.zeros(*ids.shape, V)

    canvas = Canvas.from_prompts([[5] * prompt_length], 16)
    texts = blockwise(
        LogitsDenoiser(predict), MASKED, canvas, linear_grid(MASKED, 4), block_length=5, generator=seeded()
    )
    assert texts.shape == (1, 16)
    assert max(seen) == 16


@NOISES
def test_temperature_zero_is_the_best_token_and_no_division_by_zero(process):
    """Theirs: 0/0 for ancestral at temperature 0 under masked noise; the JAX version ignores the temperature."""
    denoiser = Says(random_logits(3, 6, seed=2))
    texts = ancestral(
        denoiser,
        process,
        Canvas.from_prompts([[]] * 3, 6),
        cosine_grid(process, 64),
        generator=seeded(),
        filters=GREEDY,
    )
    assert torch.equal(texts, without_mask(denoiser.values).argmax(-1))


def test_ancestral_heeds_the_temperature():
    """At temperature 1/2 the odds of two tokens are squared."""
    logits = torch.full((4000, 1, V), -math.inf, dtype=torch.float64)
    logits[..., 5], logits[..., 6] = math.log(0.75), math.log(0.25)
    canvas = Canvas.from_prompts([[]] * 4000, 1)
    for temperature, expected in ((1.0, 0.75), (0.5, 0.9), (4.0, 0.568)):
        texts = ancestral(
            Says(logits), BALANCED, canvas, linear_grid(BALANCED, 32), generator=seeded(1),
            filters=Filters(temperature=temperature),
        )  # fmt: skip
        assert float((texts == 5).double().mean()) == pytest.approx(expected, abs=0.03)


def test_the_uniform_prior_never_holds_the_mask():
    """Theirs: uniform ids over all of V, so a mask can stand in the prior, and its score is 0 for ever."""
    starts = []
    for sampler in (ancestral, adaptive):
        sampler(
            Says(random_logits(200, 16)), UNIFORM, Canvas.from_prompts([[]] * 200, 16), linear_grid(UNIFORM, 1),
            generator=seeded(), observe=starts.append,
        )  # fmt: skip
    for start in starts[::2]:
        counts = torch.bincount(start.tokens.flatten(), minlength=V)
        assert int(counts[MASK]) == 0
        assert int((counts > 0).sum()) == V - 1


def test_a_mask_in_a_text_of_a_uniform_model_is_replaced_first():
    logits = random_logits(1, 4)
    best = without_mask(logits).argmax(-1)
    text = best.clone()
    text[0, 2] = MASK
    steps = []
    found = self_correct(
        Says(logits), UNIFORM, Canvas.from_texts(text.tolist()), linear_grid(UNIFORM, 9), generator=seeded(),
        observe=steps.append,
    )  # fmt: skip
    assert torch.equal(found, best)
    assert steps[1].changed.tolist() == [[False, False, True, False]]
    assert len(steps) == 2, "nothing is left to improve after one step"


@NOISES
def test_a_text_that_cannot_be_improved_is_left_alone(process):
    """Theirs: when all scores are 0 the last position is overwritten."""
    logits = random_logits(1, 4)
    best = without_mask(logits).argmax(-1)
    canvas = Canvas(best, torch.zeros_like(best, dtype=torch.bool), torch.zeros(1).long(), torch.tensor([4]))
    if process is MASKED:
        with pytest.raises(ValueError, match="a model of masked noise cannot revise"):
            self_correct(Says(logits), process, canvas, linear_grid(process, 5), generator=seeded())
        return
    hot = Filters(temperature=5.0)
    found = self_correct(Says(logits), process, canvas, linear_grid(process, 5), generator=seeded(), filters=hot)
    assert torch.equal(found, best)


def test_no_mask_is_left_when_the_clean_level_is_not_quite_clean():
    """Theirs: the last level is log-SNR 9, where one token in 8,000 is still masked."""
    rare = NoiseProcess(HybridMixing(V, MASK, -math.inf), -9.0, -1.0)  # at -1 most tokens still are
    texts = ancestral(
        Says(random_logits(50, 20)), rare, Canvas.from_prompts([[]] * 50, 20), cosine_grid(rare, 6), generator=seeded()
    )
    assert not (texts == MASK).any()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num_steps", [1, 2, 10, 1000, 20_000])
def test_grids_start_at_the_prior_and_every_step_goes_somewhere(name, num_steps):
    """Theirs: the first points are clipped to one level, or skipped, and the last step goes nowhere."""
    levels = GRIDS[name](BALANCED, num_steps)
    assert len(levels) == num_steps
    assert float(levels[0]) == BALANCED.min_log_snr
    assert (levels.diff() > 0).all()
    assert float(levels[-1]) < BALANCED.max_log_snr
    pairs = list(level_pairs(levels))
    assert all(following > now for now, following in pairs)
    assert float(pairs[-1][1]) == math.inf


@NOISES
def test_no_call_of_the_model_is_wasted(process):
    """Never twice for the same texts, never for texts that need no prediction, one call a step at most."""
    base = Counting(LogitsDenoiser(lambda ids, _attention: random_logits(1, 6).expand(len(ids), -1, -1)))
    ancestral(base, process, Canvas.from_prompts([[]], 6), cosine_grid(process, 300), generator=seeded())
    calls = [tuple(ids[0].tolist()) for ids, _ in base.calls]
    assert all(before != after for before, after in pairwise(calls))
    if process is MASKED:
        assert len(calls) <= 6
        assert base.num_head_rows == 6, "under masked noise the head sees each position once"
    assert len(calls) < 200


def test_every_call_of_a_level_seeing_model_has_a_level_of_its_own():
    oracle = make_oracle(NoiseProcess(HybridMixing(4, 3, 0.0)), 2)
    base = Counting(OracleDenoiser(oracle))
    levels = cosine_grid(oracle.process, 20)
    ancestral(base, oracle.process, Canvas.from_prompts([[]] * 50, 2), levels, generator=seeded())
    asked = [level for _, level in base.calls]
    assert asked == sorted(set(asked))
    assert set(asked) <= set(levels.tolist())


def test_a_prompt_is_kept_whole():
    """Theirs: the last token of the prompt is cut off as if it were an end of text."""
    canvas = Canvas.from_prompts([[7, 8, 9], [END]], 6)
    for sampler in (ancestral, adaptive):
        texts = sampler(Says(random_logits(2, 6)), BALANCED, canvas, linear_grid(BALANCED, 8), generator=seeded())
        assert texts[0, :3].tolist() == [7, 8, 9]
        assert int(texts[1, 0]) == END


def test_swaps_are_drawn_from_the_density_that_is_evaluated():
    """Theirs: noise is drawn over all V ids, the density has none at the mask (13 points of mass at V = 5)."""
    steps = []
    logits = torch.zeros(2000, 4, V, dtype=torch.float64)
    ancestral(
        Says(logits), UNIFORM, Canvas.from_prompts([[]] * 2000, 4), linear_grid(UNIFORM, 12), generator=seeded(),
        observe=steps.append,
    )  # fmt: skip
    assert all(int((step.tokens == MASK).sum()) == 0 for step in steps)


def test_the_score_does_not_change_with_the_step():
    """Theirs: one version takes the prior at the current level, the other at the lowest. Here it is the lowest."""
    logits = random_logits(1, 8)
    texts = [
        adaptive(
            Says(logits), BALANCED, Canvas.from_prompts([[]], 8), grid(BALANCED, 8), generator=seeded(3), filters=GREEDY
        )
        for grid in (cosine_grid, linear_grid)
    ]
    assert torch.equal(*texts)


def test_too_few_rewrites_to_clear_every_mask_are_refused():
    canvas = Canvas.from_prompts([[]], 9)
    with pytest.raises(ValueError, match=r"4 steps of 2 positions do not write 9 tokens; .* at least 3 positions"):
        adaptive(
            Says(random_logits(1, 9)), MASKED, canvas, linear_grid(MASKED, 4), positions_per_step=2, generator=seeded()
        )
    texts = adaptive(Says(random_logits(1, 9)), MASKED, canvas, linear_grid(MASKED, 4), generator=seeded())
    assert not (texts == MASK).any()
