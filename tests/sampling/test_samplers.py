"""What every sampler keeps to: prompts, lengths, blanks, seeds, watchers, and the same text however it is computed."""

import math
from itertools import pairwise

import pytest
import torch
from denoisers import Counting, Says

from noiselaw.model.attention import Attention
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.sampling import (
    GREEDY,
    NO_FILTERS,
    Canvas,
    Filters,
    TransformerDenoiser,
    adaptive,
    ancestral,
    autoregressive,
    blockwise,
    cosine_grid,
    linear_grid,
    self_correct,
)
from noiselaw.sampling.denoiser import RecomputedContinuation
from noiselaw.sampling.filters import draw
from noiselaw.specs import InitSpec, ModelSpec

V, MASK, END = 23, 2, 0
SHIFTS = {"masked": -math.inf, "balanced": 0.0, "uniform": math.inf}


@pytest.fixture(params=SHIFTS, scope="module")
def noise(request):
    return NoiseProcess(HybridMixing(V, MASK, SHIFTS[request.param]))


@pytest.fixture(scope="module")
def model():
    return make_model()


def make_model(**changes):
    spec = ModelSpec(**{"num_layers": 2, "width": 32, "num_heads": 4, "head_scale": 32.0} | changes)
    model = Transformer(spec, V)
    initialise(model, InitSpec(matrix_scale=1.0, embedding_std=1.0, head_std=0.5), seeded(4))
    return model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Plain:
    """The whole sequence through model and head at every call, nothing kept: what fast paths are held against."""

    sees_noise_level = True  # no reuse

    def __init__(self, model):
        self.model = model

    def hidden(self, ids, attention, _log_snr):
        return self.model.logits(self.model(ids, attention))

    def logits(self, hidden):
        return hidden

    def after(self, prefix, lengths):
        return RecomputedContinuation(self, prefix, lengths)

    def select(self, rows):
        return self


PROMPTS = [[5, 6, 7], [], [9, 8, 7, 6, 5]]

CASES = {
    "ancestral": lambda denoiser, noise, canvas, **options: ancestral(
        denoiser, noise, canvas, cosine_grid(noise, 24), **options
    ),
    "adaptive": lambda denoiser, noise, canvas, **options: adaptive(
        denoiser, noise, canvas, linear_grid(noise, 24), **options
    ),
    "blockwise": lambda denoiser, noise, canvas, **options: blockwise(
        denoiser, noise, canvas, cosine_grid(noise, 12), block_length=4, **options
    ),
    "blockwise adaptive": lambda denoiser, noise, canvas, **options: blockwise(
        denoiser, noise, canvas, linear_grid(noise, 4), block_length=4, sampler=adaptive, **options
    ),
}


@pytest.fixture(params=CASES)
def sampler(request):
    return CASES[request.param]


@pytest.mark.parametrize("lengths", [12, [12, 9, 7]], ids=["one length", "ragged"])
@pytest.mark.parametrize("filters", [NO_FILTERS, Filters(0.7, top_k=5, top_p=0.9)], ids=["plain", "filtered"])
def test_reuse_and_caches_change_nothing(model, noise, sampler, lengths, filters):
    canvas = Canvas.from_prompts(PROMPTS, lengths)
    fast = sampler(TransformerDenoiser(model), noise, canvas, filters=filters, generator=seeded(1))
    slow = sampler(Plain(model), noise, canvas, filters=filters, generator=seeded(1))
    exists = torch.arange(12) < canvas.ends[:, None]
    assert torch.equal(fast[exists], slow[exists])


def test_prompts_of_different_lengths_are_kept_and_all_else_is_written(model, noise, sampler):
    canvas = Canvas.from_prompts(PROMPTS, 12)
    texts = sampler(TransformerDenoiser(model), noise, canvas, generator=seeded(2))
    for text, prompt in zip(texts, PROMPTS, strict=True):
        assert text[: len(prompt)].tolist() == prompt
    assert not (texts == MASK).any()
    assert texts.shape == (3, 12)


def test_a_text_does_not_know_its_neighbours(model):
    """Padding to the longest, and the texts beside it, leave a text's predictions alone."""
    canvas = Canvas.from_prompts(PROMPTS, [12, 9, 7])
    attention = canvas.attention()
    ids = torch.where(canvas.blank, 4, canvas.tokens)
    together = model(ids, attention)
    for row, (prompt, end) in enumerate(zip(PROMPTS, (12, 9, 7), strict=True)):
        alone = Canvas.from_prompts([prompt], end)
        single = model(torch.where(alone.blank, 4, alone.tokens), alone.attention())
        torch.testing.assert_close(together[row, :end], single[0], rtol=0, atol=2e-5)


def test_seeds_repeat_and_differ(model, noise, sampler):
    canvas = Canvas.from_prompts([[]] * 2, 10)
    first, again, other = (
        sampler(TransformerDenoiser(model), noise, canvas, generator=seeded(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_random_outside_the_generator(model, noise, sampler):
    state = torch.random.get_rng_state()
    sampler(TransformerDenoiser(model), noise, Canvas.from_prompts([[]], 6), generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_watching_changes_nothing_and_sees_every_step(model, noise, sampler):
    canvas = Canvas.from_prompts(PROMPTS, [12, 9, 7])
    steps = []

    def watch(step):
        steps.append((step, step.beliefs()))

    watched = sampler(TransformerDenoiser(model), noise, canvas, generator=seeded(5), observe=watch)
    alone = sampler(TransformerDenoiser(model), noise, canvas, generator=seeded(5))
    exists = torch.arange(12) < canvas.ends[:, None]
    assert torch.equal(watched[exists], alone[exists])
    assert torch.equal(steps[-1][0].tokens[exists], watched[exists])
    indices = [step.index for step, _ in steps]
    assert indices[0] == 0
    assert indices == sorted(set(indices))
    assert indices[-1] <= steps[-1][0].num_steps
    for (before, _), (step, beliefs) in pairwise(steps):
        assert not step.changed[~canvas.blank].any()
        moved = before.tokens != step.tokens
        # A block's start shows its prior: no step has written that.
        if step.changed.any():
            assert torch.equal(step.changed & exists, moved & exists)
        for values in (beliefs.support, beliefs.noise):
            assert values.min() >= 0
            assert values.max() <= 1
        assert (beliefs.noise[~canvas.blank] == 0).all()
        assert (beliefs.support[~canvas.blank] == 1).all()


def test_beliefs_are_the_two_of_the_theory(model, noise):
    """support is the leave-one-out prediction, noise uses the token's own value too (eq. 14 and 15)."""
    canvas, seen = Canvas.from_prompts([[5, 6]], 8), []
    ancestral(
        TransformerDenoiser(model), noise, canvas, linear_grid(noise, 6), generator=seeded(7),
        observe=lambda step: seen.append((step, step.beliefs())),
    )  # fmt: skip
    for step, beliefs in seen:
        logits = model.logits(model(step.tokens, canvas.attention())).double().detach()
        probs = logits.index_fill(-1, torch.tensor(MASK), -math.inf).softmax(-1)
        level = torch.tensor(step.log_snr, dtype=torch.float64)
        likelihood = noise.marginal_at(step.tokens[..., None], torch.arange(V), level)
        given_all = probs * likelihood
        given_all = given_all / given_all.sum(-1, keepdim=True)
        written = canvas.blank & (step.tokens != MASK)
        at = step.tokens[..., None]
        torch.testing.assert_close(beliefs.support[written], probs.gather(-1, at)[..., 0][written], rtol=0, atol=1e-6)
        expected = 1 - given_all.gather(-1, at)[..., 0]
        torch.testing.assert_close(beliefs.noise[written], expected[written], rtol=0, atol=1e-6)
        assert (beliefs.noise[step.tokens == MASK] == 1).all()


def test_given_tokens_in_the_middle_stay(model, noise):
    rows = [[None, None, 7, None, 8], [5, None, None, 9]]
    canvas = Canvas.from_rows(rows)
    assert canvas.prompt_lengths.tolist() == [0, 1]
    for write in (CASES["ancestral"], CASES["adaptive"]):
        texts = write(TransformerDenoiser(model), noise, canvas, generator=seeded())
        for text, row in zip(texts.tolist(), rows, strict=True):
            assert all(given is None or token == given for token, given in zip(text, row, strict=False))
    with pytest.raises(ValueError, match="blockwise sampling cannot see what is given behind a blank"):
        CASES["blockwise"](TransformerDenoiser(model), noise, canvas, generator=seeded())


def test_self_correction_makes_a_text_likelier(model):
    noise = NoiseProcess(HybridMixing(V, MASK, math.inf))
    text = torch.randint(3, V, (4, 10), generator=seeded(1))
    canvas = Canvas.from_texts(text.tolist())
    seen = []
    found = self_correct(
        TransformerDenoiser(model), noise, canvas, linear_grid(noise, 40), generator=seeded(),
        observe=lambda step: seen.append(step.beliefs().support.mean(1)),
    )  # fmt: skip
    assert (seen[-1] > 1.5 * seen[0]).all()
    assert not torch.equal(found, text)
    again = self_correct(
        TransformerDenoiser(model),
        noise,
        Canvas.from_texts(found.tolist()),
        linear_grid(noise, 40),
        generator=seeded(9),
    )
    assert (again == found).double().mean() > 0.9


def test_only_what_changed_runs_again(model):
    """Three texts, many steps: a text that did not change is not among the ids of the call that follows."""
    noise = NoiseProcess(HybridMixing(V, MASK, math.inf))
    base = Counting(TransformerDenoiser(model))
    ancestral(base, noise, Canvas.from_prompts([[]] * 3, 6), linear_grid(noise, 60), generator=seeded())
    sizes = [len(ids) for ids, _ in base.calls]
    assert sizes[0] == 3
    assert min(sizes) < 3
    assert sum(sizes) < 0.8 * 3 * 60


def test_a_block_runs_through_the_model_alone(model):
    """With the cache a call sees the block's tokens, not the text before it."""
    noise = NoiseProcess(HybridMixing(V, MASK, 0.0))
    base = Counting(TransformerDenoiser(model))
    canvas = Canvas.from_prompts([[5] * 20], 32)
    blockwise(base, noise, canvas, linear_grid(noise, 5), block_length=4, generator=seeded())
    assert {ids.shape[1] for ids, _ in base.calls} == {4}


def test_a_prefix_runs_once_a_block_whoever_asks_first(model, monkeypatch):
    """Under masked noise the first texts to need the model are some of the batch: they share the batch's prefix."""
    noise = NoiseProcess(HybridMixing(V, MASK, -math.inf))
    widths, forward = [], Transformer.forward

    def watched(self, ids, *rest):
        widths.append(ids.shape[1])
        return forward(self, ids, *rest)

    monkeypatch.setattr(Transformer, "forward", watched)
    canvas = Canvas.from_prompts([[5] * 9, [6] * 7, [7] * 8], [15, 13, 14])
    blockwise(TransformerDenoiser(model), noise, canvas, linear_grid(noise, 30), block_length=3, generator=seeded())
    assert [width for width in widths if width > 3] == [9, 12]


def test_a_text_that_stopped_says_nothing_more():
    noise = NoiseProcess(HybridMixing(V, MASK, -math.inf))
    logits = torch.zeros(2, 12, V)
    logits[0, 5, END] = 50.0  # text 0 ends in its second block, text 1 never
    logits[1, :, END] = -50.0

    class Placed(Says):
        def after(self, prefix, _lengths):
            return Says(self.values[:, prefix.shape[1] : prefix.shape[1] + 4])

    texts = blockwise(
        Placed(logits), noise, Canvas.from_prompts([[], []], 12), linear_grid(noise, 4), block_length=4, stop_id=END,
        generator=seeded(2),
    )  # fmt: skip
    assert (texts[0, 8:] == END).all()
    assert not (texts[1] == END).any()


# The autoregressive baseline.


def naive_autoregressive(model, prompt, length, uniforms, filters):
    """Token by token over the whole text, without a cache."""
    text = list(prompt)
    for uniform in uniforms[: length - len(prompt)]:
        ids = torch.tensor([[END, *text]])
        logits = model.logits(model(ids, Attention.causal()))[:, -1].detach()
        logits[:, MASK] = -math.inf
        text.append(int(draw(filters.apply(logits), uniform[None])))
    return text


@pytest.mark.parametrize("filters", [NO_FILTERS, GREEDY, Filters(top_k=3)])
@pytest.mark.parametrize("lengths", [12, [12, 9, 7]])
def test_autoregressive_texts_are_those_without_a_cache(model, filters, lengths):
    canvas = Canvas.from_prompts(PROMPTS, lengths)
    texts = autoregressive(model, canvas, start_id=END, mask_id=MASK, filters=filters, generator=seeded(3))
    source = seeded(3)
    uniforms = torch.stack([torch.rand(3, generator=source, dtype=torch.float64) for _ in range(12)])
    for row, (prompt, end) in enumerate(zip(PROMPTS, canvas.ends.tolist(), strict=True)):
        expected = naive_autoregressive(model, prompt, end, uniforms[:, row], filters)
        assert texts[row, :end].tolist() == expected


def test_autoregressive_texts_stop_at_the_end_token(model):
    canvas = Canvas.from_prompts([[], [4]] * 20, 10)
    texts = autoregressive(model, canvas, start_id=END, mask_id=MASK, stop_id=END, generator=seeded(3))
    ended = [row for row in texts.tolist() if END in row]
    assert ended
    assert all(set(row[row.index(END) :]) == {END} for row in ended)
    with pytest.raises(ValueError, match="an autoregressive model cannot infill"):
        autoregressive(model, Canvas.from_rows([[None, 5]]), start_id=END, mask_id=MASK, generator=seeded())


def test_autoregressive_steps_show_what_is_not_yet_written(model):
    steps = []
    canvas = Canvas.from_prompts([[5, 6], [7]], 5)
    texts = autoregressive(
        model, canvas, start_id=END, mask_id=MASK, generator=seeded(1), observe=steps.append, filters=GREEDY
    )
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert steps[0].tokens.tolist() == [[5, 6, MASK, MASK, MASK], [7, MASK, MASK, MASK, MASK]]
    assert steps[1].changed.tolist() == [[False, False, True, False, False], [False, True, False, False, False]]
    assert torch.equal(steps[-1].tokens, texts)
    probs = model.logits(model(torch.tensor([[END, 5, 6]]), Attention.causal()))[0, -1].double().detach()
    probs[MASK] = -math.inf
    assert float(steps[1].beliefs().support[0, 2]) == pytest.approx(float(probs.softmax(-1).max()), abs=1e-6)
