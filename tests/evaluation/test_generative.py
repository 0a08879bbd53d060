"""The judge's numbers against by-hand ones, and the guards against monotonous texts."""

import math

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from noiselaw.evaluation.generative import OwnJudge, Verdict, build_judge, quality, token_entropy
from noiselaw.evaluation.likelihood import completion_bounds
from noiselaw.hub.loading import load_model


class Says:
    """Finds every character equally probable."""

    def verdicts(self, texts):
        return [Verdict(len(text) * math.log(7.0), len(text), len(text.encode())) for text in texts]


def test_entropy_by_hand():
    assert token_entropy([5, 5, 5, 5]) == 0.0
    assert token_entropy([1, 2, 3, 4]) == pytest.approx(math.log(4))
    assert token_entropy([1, 1, 1, 2]) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


@pytest.mark.parametrize("kind", ["masked", "autoregressive"])
def test_perplexity_is_that_of_the_judge(trained, kind):
    found = quality(load_model(trained[kind]), Says(), 4, num_texts=3)
    assert found.perplexity == pytest.approx(7.0)
    assert 0 < found.entropy <= math.log(16)
    assert 0 < found.distinct_2 <= 1


def test_monotonous_texts_are_given_away(trained):
    """A model that says one token only: a judge may like it, entropy and distinct pairs do not."""
    loaded = load_model(trained["masked"])
    with torch.no_grad():
        loaded.model.model.norm.weight.zero_()
        for parameter in loaded.model.lm_head.parameters():
            parameter.zero_()
        loaded.model.lm_head.weight[65] = 1.0
        hidden = loaded.model(torch.zeros(1, 4, dtype=torch.long))[0, 0]
        loaded.model.lm_head.weight[65] = 100 * hidden.sign()
    found = quality(loaded, Says(), 4, num_texts=3)
    assert found.entropy == 0.0
    assert found.distinct_2 == pytest.approx(1 / 45)
    assert found.repeated_texts == pytest.approx(2 / 3)


def test_our_own_judge_is_the_likelihood(trained):
    loaded = load_model(trained["autoregressive"])
    (bound,) = completion_bounds(loaded, [([], loaded.encode("alpha beta"))])
    assert OwnJudge(loaded).verdicts(["alpha beta"]) == [Verdict(bound.nats, bound.num_tokens, 10)]


def test_a_folder_that_is_no_judge_is_named(tmp_path):
    with pytest.raises(ValueError, match="neither a run folder"):
        build_judge(tmp_path)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """A small random causal model of transformers with a byte-level tokenizer that merges some letters."""
    folder = tmp_path_factory.mktemp("gpt")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["alpha beta gamma " * 20], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=270, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_hugging_face_judge_by_hand(gpt):
    """The chain rule written out; what lies beyond its context of 12 tokens counts neither as nats nor as bytes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(gpt), AutoModelForCausalLM.from_pretrained(gpt)
    judge = build_judge(gpt)
    texts = ["alpha gam", "größer 数", "alpha beta gamma, and more of it than fits"]
    for text, verdict in zip(texts, judge.verdicts(texts), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:12]
        with torch.no_grad():
            nats = [
                -float(model(torch.tensor([ids[:end]])).logits[0, -1].double().log_softmax(-1)[ids[end]])
                for end in range(1, len(ids))
            ]
        assert verdict.nats == pytest.approx(sum(nats), rel=1e-5)
        assert verdict.num_tokens == len(ids) - 1
        assert verdict.num_bytes == len(tokenizer.decode(ids[1:]).encode())
    assert verdict.num_bytes < len(text) - 10
    with pytest.raises(ValueError, match="fewer than two tokens of 'a'"):
        judge.verdicts(["a"])


@pytest.mark.filterwarnings("ignore")
def test_texts_are_judged_by_a_hugging_face_model_from_the_command_line(trained, gpt, capsys):
    import json

    from noiselaw.cli.evaluate import evaluate

    options = ["--generate", "--steps", "2", "8", "--num-samples", "2", "--scorer", str(gpt), "--json"]
    evaluate([str(trained["masked"]), *options, "--device", "cpu"])
    curve = json.loads(capsys.readouterr().out)["curve"]
    assert [point["steps"] for point in curve] == [2, 8]
    # A judge that knows nothing of 270 tokens; random weights stray a little from that.
    assert all(200 < point["perplexity"] < 350 for point in curve)


@pytest.mark.filterwarnings("ignore")
def test_a_judge_without_a_tokenizer_or_of_another_kind_is_named(gpt, tmp_path):
    import shutil

    shutil.copy(gpt / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"--scorer .*: transformers finds no causal language model") as found:
        build_judge(tmp_path)
    assert "\n" not in str(found.value)


def test_a_missing_transformers_is_named(tmp_path, monkeypatch):
    import sys

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'noiselaw\[scorer\]'"):
        build_judge(tmp_path)


def test_an_export_judges_like_its_run(trained, tmp_path):
    from noiselaw import hub

    hub.export_run(trained["masked"], tmp_path / "out")
    texts = ["alpha beta", "a longer text than its context of sixteen"]
    verdicts = build_judge(tmp_path / "out").verdicts(texts)
    assert verdicts == build_judge(trained["masked"]).verdicts(texts)
    assert [verdict.num_bytes for verdict in verdicts] == [10, 16]
