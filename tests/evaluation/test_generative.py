"""The judge's numbers against by-hand ones, and the guards against monotonous texts."""

import math

import pytest
import torch

from noiselaw.evaluation.generative import OwnJudge, build_judge, quality, token_entropy
from noiselaw.evaluation.likelihood import completion_bounds
from noiselaw.hub.loading import load_model


class Says:
    """Finds every character equally probable."""

    def nats(self, texts):
        return [(len(text) * math.log(7.0), len(text)) for text in texts]


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
    assert OwnJudge(loaded).nats(["alpha beta"]) == [(bound.nats, bound.num_tokens)]


def test_a_folder_that_is_no_judge_is_named(tmp_path):
    with pytest.raises(ValueError, match="neither a run folder"):
        build_judge(tmp_path)
