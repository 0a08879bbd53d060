"""Attention structures against their definitions, and `attend` against naive float64 arithmetic."""

import math

import pytest
import torch
from torch.nn import functional

from noiselaw.model.attention import Attention, attend
from noiselaw.train.machine import MAX_PRODUCT_ERROR, float32_products, product_error

T = 6
LENGTHS = torch.tensor([0, 2, 6])
GENERATOR = torch.Generator().manual_seed(0)
KEYS = torch.rand(3, T, generator=GENERATOR) < 0.7
MATRIX = torch.rand(3, T, T, generator=GENERATOR) < 0.7

ENDS = torch.tensor([6, 3, 1])

STRUCTURES = {
    "causal": (Attention.causal(), lambda _b, t, s: s <= t),
    "prompt": (Attention.prompt(LENGTHS), lambda b, t, s: t >= LENGTHS[b] or s < LENGTHS[b]),
    "keys": (Attention.keys(KEYS), lambda b, _t, s: KEYS[b, s]),
    "matrix": (Attention.matrix(MATRIX), lambda b, t, s: MATRIX[b, t, s]),
    "full, ragged": (Attention.full().until(ENDS), lambda b, _t, s: s < ENDS[b]),
    "causal, ragged": (Attention.causal().until(ENDS), lambda b, t, s: s <= t and s < ENDS[b]),
    "prompt, ragged": (
        Attention.prompt(LENGTHS).until(ENDS),
        lambda b, t, s: (t >= LENGTHS[b] or s < LENGTHS[b]) and s < ENDS[b],
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_mask_is_its_definition(name):
    structure, may_see = STRUCTURES[name]
    mask = structure.mask(T, torch.device("cpu")).expand(3, 1, T, T)
    for b in range(3):
        for t in range(T):
            for s in range(T):
                assert mask[b, 0, t, s] == bool(may_see(b, t, s)), (b, t, s)


@pytest.mark.parametrize("name", STRUCTURES)
def test_mask_of_some_queries_is_those_rows(name):
    structure, _ = STRUCTURES[name]
    device = torch.device("cpu")
    whole = structure.mask(T, device).expand(3, 1, T, T)
    some = structure.mask(T, device, torch.tensor([4, 1])).expand(3, 1, 2, T)
    assert torch.equal(some, whole[:, :, [4, 1]])
    queries = torch.tensor([[0, 5], [3, 3], [2, 4]])
    own = structure.mask(T, device, queries).expand(3, 1, 2, T)
    assert torch.equal(own, torch.stack([whole[row][:, queries[row]] for row in range(3)]))


@pytest.mark.parametrize("name", STRUCTURES)
def test_rows_are_the_structure_of_those_sequences(name):
    structure, _ = STRUCTURES[name]
    whole = structure.mask(T, torch.device("cpu")).expand(3, 1, T, T)
    index = torch.tensor([2, 0])
    assert torch.equal(structure.rows(index).mask(T, torch.device("cpu")).expand(2, 1, T, T), whole[index])


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("sink", [True, False])
def test_additive_form_shows_the_same_keys_and_always_the_sink(name, sink):
    structure, _ = STRUCTURES[name]
    mask = structure.mask(T, torch.device("cpu"))
    bias = structure.additive(T, sink=sink, like=torch.zeros(1, dtype=torch.float64))
    assert bias.dtype is torch.float64
    assert set(bias.unique().tolist()) <= {0.0, -math.inf}
    assert torch.equal(bias[..., int(sink) :] == 0, mask)
    if sink:
        assert (bias[..., 0] == 0).all()


def test_structures_without_restriction_need_no_mask():
    like = torch.zeros(1)
    assert Attention.full().additive(T, sink=True, like=like) is None
    assert Attention.prompt(torch.zeros(4, dtype=torch.long)).additive(T, sink=True, like=like) is None


def random_heads(num_keys, generator):
    shape = (2, 3, num_keys, 4)
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


def naive(query, key, value, bias, soft_cap):
    """Attention written out per query with Python's own loops over batch and heads."""
    out = torch.empty_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for t in range(query.shape[2]):
                scores = torch.stack([query[b, h, t].dot(k) for k in key[b, h]]) / math.sqrt(query.shape[3])
                if soft_cap is not None:
                    scores = soft_cap * (scores / soft_cap).tanh()
                weights = (scores + bias[b, 0, t]).exp()
                out[b, h, t] = (weights / weights.sum()) @ value[b, h]
    return out


@pytest.mark.parametrize("soft_cap", [None, 0.7])
def test_attend_and_its_gradients_match_naive_arithmetic(soft_cap):
    generator = torch.Generator().manual_seed(1)
    tensors = [random_heads(n, generator) for n in (5, 6, 6)]
    bias = Attention.prompt(torch.tensor([2, 0])).additive(5, sink=True, like=tensors[0])
    upstream = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    results = []
    for function in (attend, naive):
        out = function(*tensors, bias, soft_cap)
        results.append([out, *torch.autograd.grad(out, tensors, upstream)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("library", ["torch", "onednn"])
def test_short_sequences_in_float32_by_either_way(library, monkeypatch):
    """With oneDNN short sequences take two products, longer ones the library's kernel."""
    kernels = []
    real = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *given: kernels.append(1) or real(*given))
    generator = torch.Generator().manual_seed(3)
    tensors = [random_heads(n, generator) for n in (30, 31, 31)]
    bias = Attention.prompt(torch.tensor([12, 0])).additive(30, sink=True, like=tensors[0])
    exact = naive(*tensors, bias, None)
    single = [tensor.detach().float() for tensor in (*tensors, bias)]
    for most_keys, kernel_calls in ((257, 0 if library == "onednn" else 1), (30, 1)):
        monkeypatch.setattr("noiselaw.model.attention.MOST_KEYS_AT_ONCE", most_keys)
        kernels.clear()
        with float32_products(library):
            # Matrix units for bfloat16 (AMX) round what oneDNN is allowed to round.
            tolerance = 2e-6 if product_error() < MAX_PRODUCT_ERROR else 3e-2
            assert (attend(*single, None).double() - exact).abs().max() < tolerance
        assert len(kernels) == kernel_calls


def test_a_query_that_sees_nothing_gets_zeros_by_either_way():
    generator = torch.Generator().manual_seed(4)
    tensors = [random_heads(n, generator).detach().float() for n in (3, 3, 3)]
    bias = torch.zeros(2, 1, 3, 3)
    bias[0, :, 1] = -torch.inf
    for library in ("torch", "onednn"):
        with float32_products(library):
            out = attend(*tensors, bias, None)
        assert torch.equal(out[0, :, 1], torch.zeros_like(out[0, :, 1]))
        assert out.isfinite().all()


def test_sink_key_equals_folding_through_the_log_sum_exp():
    """Spec section 11: out = o sigmoid(lse - s) + v sigmoid(s - lse), o and lse being those without a sink."""
    generator = torch.Generator().manual_seed(2)
    query, key, value = (random_heads(5, generator) for _ in range(3))
    sink_key, sink_value = (random_heads(1, generator)[:1] for _ in range(2))
    with_sink = attend(
        query,
        torch.cat([sink_key.expand(2, -1, -1, -1), key], dim=2),
        torch.cat([sink_value.expand(2, -1, -1, -1), value], dim=2),
        None,
        None,
    )
    scale = query.shape[-1] ** -0.5
    lse = (query @ key.mT * scale).logsumexp(-1, keepdim=True)
    score = query @ sink_key.mT * scale
    folded = attend(query, key, value, None, None) * (lse - score).sigmoid() + sink_value * (score - lse).sigmoid()
    torch.testing.assert_close(with_sink, folded, rtol=0, atol=1e-14)


def test_soft_cap_keeps_float32_scores_under_autocast():
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 1, 8, 16, generator=generator) * 4 for _ in range(3))
    exact = attend(query, key, value, None, 30.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(query, key, value, None, 30.0), exact)


def test_masks_are_made_in_the_precision_that_attends():
    """Else every layer would convert them anew; 0 and -inf are exact in either."""
    like = torch.zeros(2, 6, 4)
    attention = Attention.prompt(torch.tensor([3, 0]))
    exact = attention.additive(6, sink=True, like=like)
    with torch.autocast("cpu", torch.bfloat16):
        low = attention.additive(6, sink=True, like=like)
    assert exact.dtype == torch.float32
    assert low.dtype == torch.bfloat16
    assert torch.equal(low.float(), exact)
