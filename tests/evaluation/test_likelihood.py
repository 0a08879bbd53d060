"""Bounds of completions against exact enumeration, and of data against training's validation."""

from pathlib import Path

import pytest
import torch

from noiselaw.data.shards import open_tokens
from noiselaw.evaluation.likelihood import completion_bounds, data_bound
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.model.attention import Attention
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.noise.oracle import Oracle
from noiselaw.noise.process import build_process
from noiselaw.specs import NOISE_SHIFTS, InitSpec, ModelSpec, NoiseSpec

V, MASK, PROMPT = 4, 3, [2, 0]


def loaded_model(noise, head_std=0.03):
    model = Transformer(ModelSpec(num_layers=1, width=8, num_heads=1), V)
    initialise(model, InitSpec(head_std=head_std), torch.Generator().manual_seed(3))
    process = build_process(NoiseSpec(shift=NOISE_SHIFTS[noise]), V, MASK, -9.0, 9.0)
    return LoadedModel(Path("made-up"), model.eval(), process, None, MASK, 8)


@torch.no_grad()
def exact_bounds(loaded, prompt):
    """Nats of every completion of two tokens, by enumeration, the prompt given."""

    def predict(noisy, log_snr):
        del log_snr
        ids = torch.cat([torch.tensor(prompt, dtype=torch.long).expand(len(noisy), -1), noisy], 1)
        attention = Attention.prompt(torch.full((len(noisy),), len(prompt)))
        logits = loaded.model.logits(loaded.model(ids, attention)).double()[:, len(prompt) :]
        logits[..., MASK] = -torch.inf
        return logits.softmax(-1)

    data = torch.zeros(V, V, dtype=torch.float64)
    data[:3, :3] = 1 / 9
    oracle = Oracle(loaded.process, data)
    return oracle.clean.tolist(), (2 * oracle.bound(predict).total).tolist()


@pytest.mark.parametrize("noise", ["masked", "balanced", "uniform"])
@pytest.mark.parametrize("prompt", [PROMPT, []], ids=["prompt", "no prompt"])
def test_completion_bounds_are_exact_within_their_standard_error(noise, prompt):
    loaded = loaded_model(noise)
    completions, exact = exact_bounds(loaded, prompt)
    found = completion_bounds(loaded, [(prompt, completion) for completion in completions], draws=6000)
    for bound, truth in zip(found, exact, strict=True):
        assert bound.num_tokens == 2
        assert bound.standard_error < 0.03 * truth + 0.03
        # Reconstruction is one draw, outside the standard error: up to 2e-3 nats here.
        assert abs(bound.nats - truth) < 4.5 * bound.standard_error + 2e-3


def test_the_prompt_matters():
    """The test above can fail: another prompt moves the bounds by many standard errors."""
    loaded = loaded_model("masked", head_std=0.1)
    here, there = (completion_bounds(loaded, [(prompt, [1, 1])], draws=2000)[0] for prompt in (PROMPT, [1, 1]))
    assert abs(here.nats - there.nats) > 8 * max(here.standard_error, there.standard_error)


@pytest.mark.parametrize("noise", ["masked", "uniform"])
def test_a_text_does_not_depend_on_its_batch(noise):
    loaded = loaded_model(noise)
    texts = [([2], [0, 1, 2]), ([], [1]), ([0, 0, 1], [2, 2, 1, 1]), ([2], [0, 1, 2])]
    together = completion_bounds(loaded, texts, draws=16)
    for text, bound in zip(texts, together, strict=True):
        (alone,) = completion_bounds(loaded, [text], draws=16)
        assert alone.nats == pytest.approx(bound.nats, rel=1e-5)
    assert together[0].nats == pytest.approx(together[3].nats)


def test_standard_error_is_the_spread_over_seeds(monkeypatch):
    from noiselaw.evaluation import likelihood

    loaded, found = loaded_model("balanced"), []
    for seed in range(60):
        monkeypatch.setattr(likelihood, "TEXT_SEED", seed)
        found.append(completion_bounds(loaded, [([2], [0, 1, 2, 1])], draws=32)[0])
    spread = float(torch.tensor([bound.nats for bound in found]).std())
    reported = float(torch.tensor([bound.standard_error for bound in found]).square().mean().sqrt())
    assert reported == pytest.approx(spread, rel=0.35)


def test_texts_that_do_not_fit_are_named():
    loaded = loaded_model("masked")
    with pytest.raises(ValueError, match="prompt of 7 tokens and a text of 2 are longer than the 8"):
        completion_bounds(loaded, [([0] * 7, [1, 1])])
    with pytest.raises(ValueError, match="no tokens"):
        completion_bounds(loaded, [([0], [])])


@pytest.mark.parametrize("kind", ["balanced", "autoregressive"])
def test_data_bound_is_that_of_the_validation(trained, kind, tiny_data):
    from noiselaw.metrics import read_rows

    run = trained[kind]
    found = data_bound(load_model(run), open_tokens(tiny_data), "validation", num_sequences=8)
    last = read_rows(run / "metrics.jsonl", "validation")[-1]
    assert found.estimate.loss == pytest.approx(last["loss"], rel=1e-5)
    assert found.bits_per_byte == pytest.approx(last["bits_per_byte"], rel=1e-5)


def test_autoregressive_completions_add_up(trained):
    """log p(ab) = log p(a) + log p(b | a), exactly."""
    loaded = load_model(trained["autoregressive"])
    first, second = loaded.encode("alpha "), loaded.encode("beta")
    whole, left, right = completion_bounds(loaded, [([], first + second), ([], first), (first, second)])
    assert whole.nats == pytest.approx(left.nats + right.nats, rel=1e-5)
    assert whole.standard_error == 0.0


def test_data_of_another_tokenizer_is_refused(trained, tmp_path):
    from noiselaw.data.prepare import prepare

    texts = tmp_path / "texts"
    texts.mkdir()
    for index in range(20):
        (texts / f"{index}.txt").write_text(f"other words {index}, another alphabet " * 9, encoding="utf-8")
    prepare([str(texts)], tmp_path / "data", tokenizer="bpe:262", validation_fraction=0.5)
    with pytest.raises(ValueError, match="another tokenizer"):
        data_bound(load_model(trained["balanced"]), open_tokens(tmp_path / "data"), "validation")
