"""What is given and what is to be written; which tokens may be drawn, and the draw."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

from noiselaw.model.attention import Attention
from noiselaw.sampling import Canvas, Filters
from noiselaw.sampling.filters import draw


def test_canvas_refuses_a_prompt_without_room():
    with pytest.raises(ValueError, match="a prompt of 4 tokens leaves nothing to write in a text of 4"):
        Canvas.from_prompts([[1, 2, 3, 4]], 4)


def test_canvas_of_ragged_rows():
    canvas = Canvas.from_prompts([[5], [6, 7]], [4, 3])
    assert canvas.blank.tolist() == [[False, True, True, True], [False, False, True, False]]
    assert canvas.is_continuation
    attention = canvas.attention()
    assert attention.kind == "prompt"
    assert attention.ends.tolist() == [4, 3]
    assert Canvas.from_prompts([[], []], 3).attention() == Attention.full()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"top_k": 0}, "top_k 0 leaves no token"),
        ({"top_p": 0.0}, "top_p 0.0 is no probability above 0"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"temperature": 0.0, "top_k": 5}, "top_k and top_p have no effect"),
    ],
)
def test_impossible_filters_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Filters(**settings)


def test_filters_keep_what_they_say():
    logits = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]], dtype=torch.float64).log()
    kept = [
        (Filters(top_k=2), [0, 1]),
        (Filters(top_p=0.7), [0, 1]),
        (Filters(top_p=0.71), [0, 1, 2]),
        (Filters(top_p=0.5), [0]),
        (Filters(top_p=1e-9), [0]),
        (Filters(top_p=1.0), [0, 1, 2, 3, 4]),
        (Filters(temperature=0.0), [0]),
        (Filters(top_k=4, top_p=0.6), [0, 1]),
        (Filters(temperature=0.1, top_p=0.9), [0]),
    ]
    for filters, expected in kept:
        found = filters.apply(logits.clone())
        assert found.isfinite()[0].nonzero().squeeze(1).tolist() == expected, filters
    torch.testing.assert_close(
        Filters(temperature=2.0).apply(logits).softmax(-1), (logits / 2).softmax(-1), rtol=0, atol=1e-15
    )


def test_a_nucleus_larger_than_the_first_candidates_is_found_whole():
    logits = torch.zeros(2, 3000)
    logits[1, 7] = 20.0
    kept = Filters(top_p=0.5).apply(logits).isfinite().sum(1)
    assert kept.tolist() == [3000, 1], "ties all belong to the nucleus"
    falling = -torch.arange(3000.0) / 1000
    probs = falling.softmax(-1)
    expected = int((probs.cumsum(-1) < 0.9).sum()) + 1
    assert int(Filters(top_p=0.9).apply(falling[None]).isfinite().sum()) == expected


def test_draws_follow_the_softmax_and_never_leave_it():
    logits = torch.tensor([-math.inf, 0.0, -math.inf, math.log(3.0), -math.inf])
    edges = torch.tensor([0.0, 0.2499, 0.2501, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(4, -1), edges).tolist() == [1, 1, 3, 3]
    single = one_hot(torch.tensor([2]), 5).double().log()
    assert draw(single, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [2]
