"""Writing with a loaded model: defaults, what each sampler heeds, and what is refused."""

import pytest
import torch

from noiselaw.hub import load_model
from noiselaw.hub.write import SAMPLERS, Settings, revise, write, written_ids
from noiselaw.sampling import GREEDY, Canvas, Filters


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def loaded(trained_run):
    return lambda name: load_model(trained_run(name))


@pytest.mark.parametrize("name", ["masked", "balanced", "uniform", "unigram", "autoregressive"])
def test_every_model_writes_with_its_defaults(loaded, name):
    model = loaded(name)
    canvas = Canvas.from_prompts([model.encode("alp"), []], 24)
    steps = []
    texts = write(model, canvas, Settings(), generator=seeded(), observe=steps.append)
    assert model.decode(texts[0].tolist()).startswith("alp")
    assert not (texts == model.mask_id).any()
    assert len(steps) <= 129


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_by_name(loaded, sampler):
    model = loaded("balanced")
    canvas = Canvas.from_prompts([[]], 20)
    texts = write(model, canvas, Settings(sampler=sampler, num_steps=20), generator=seeded())
    assert texts.shape == (1, 20)
    assert not (texts == model.mask_id).any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("balanced", Settings(sampler="magic"), "sampler 'magic': known are ancestral, adaptive, blockwise"),
        ("balanced", Settings(grid="odd"), "grid 'odd': known are cosine, linear"),
        ("balanced", Settings(num_steps=0), "0 steps write nothing"),
        ("balanced", Settings(sampler="blockwise", num_steps=-1), "-1 steps write nothing"),
        ("balanced", Settings(sampler="adaptive", num_steps=0), "0 steps write nothing"),
        ("balanced", Settings(sampler="blockwise", block_length=0), "block_length 0 writes nothing"),
        ("balanced", Settings(sampler="adaptive", positions_per_step=0), "8 steps of 0 positions do not write 8"),
        ("balanced", Settings(positions_per_step=2), "positions_per_step: without effect on the ancestral sampler"),
        ("balanced", Settings(block_length=4), "block_length: without effect on the ancestral sampler"),
        ("balanced", Settings(sampler="adaptive", grid="linear"), "grid: without effect on the adaptive sampler"),
        (
            "autoregressive",
            Settings(sampler="ancestral", num_steps=3),
            "sampler, steps: without effect on an autoregressive model",
        ),
    ],
)
def test_impossible_and_idle_settings_are_refused(loaded, name, settings, message):
    with pytest.raises(ValueError, match=message):
        write(loaded(name), Canvas.from_prompts([[]], 8), settings, generator=seeded())


def test_texts_beyond_the_context_are_refused(loaded):
    model = loaded("masked")
    with pytest.raises(ValueError, match=r"a text of 33 tokens is longer than the 32 that .* was trained on"):
        write(model, Canvas.from_prompts([[]], 33), Settings(), generator=seeded())
    with pytest.raises(ValueError, match="a text of 40 tokens is longer"):
        revise(loaded("uniform"), Canvas.from_texts([[5] * 40]), Settings(), generator=seeded())


def test_revision_raises_the_support_of_a_spoilt_text(loaded):
    model = loaded("uniform")
    ids = model.encode("alpha beta gamma delta noise")
    spoilt = list(ids)
    for position in (3, 9, 14):
        spoilt[position] = model.encode("~")[0]
    supports = []
    texts = revise(
        model, Canvas.from_texts([spoilt]), Settings(filters=GREEDY), generator=seeded(),
        observe=lambda step: supports.append(float(step.beliefs().support.mean())),
    )  # fmt: skip
    assert supports[-1] > supports[0]
    assert "~" not in model.decode(texts[0].tolist())


def test_who_cannot_revise_says_so(loaded):
    canvas = Canvas.from_texts([[5, 6, 7]])
    with pytest.raises(ValueError, match="an autoregressive model cannot revise"):
        revise(loaded("autoregressive"), canvas, Settings(), generator=seeded())
    with pytest.raises(ValueError, match="a model of masked noise cannot revise"):
        revise(loaded("masked"), canvas, Settings(), generator=seeded())
    with pytest.raises(ValueError, match="sampler, grid: without effect on a revision"):
        revise(loaded("uniform"), canvas, Settings(sampler="ancestral", grid="linear"), generator=seeded())
    with pytest.raises(ValueError, match="positions_per_step 0 rewrites nothing"):
        revise(loaded("uniform"), canvas, Settings(positions_per_step=0), generator=seeded())


def test_a_finished_text_is_cut_at_its_end(loaded):
    model = loaded("masked")
    end = model.tokenizer.end_of_text_id
    assert written_ids(model, [end, 5, 6, end, 7], num_given=1) == [end, 5, 6]
    assert written_ids(model, [5, 6, 7], num_given=0) == [5, 6, 7]


def test_filters_reach_the_sampler(loaded):
    model = loaded("autoregressive")
    canvas = Canvas.from_prompts([[]] * 2, 16)
    texts = write(model, canvas, Settings(filters=GREEDY), generator=seeded(1))
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts, write(model, canvas, Settings(filters=Filters(top_k=1)), generator=seeded(2)))
