"""The key and value cache against the full forward pass: same hidden states, less work."""

import pytest
import torch
from test_transformer import build, random_ids

from noiselaw.model.attention import Attention

T = 10
LENGTHS = torch.tensor([3, 5, 0])
ENDS = torch.tensor([9, 10, 4])


@pytest.fixture(params=[{}, {"attention_sink": False}, {"attention_soft_cap": 2.0}], ids=["sink", "no-sink", "cap"])
def model(request):
    return build(**request.param)


def close(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=2e-5)


@torch.no_grad()
def test_tokens_one_by_one_are_the_causal_pass(model):
    ids = random_ids()
    whole = model(ids, Attention.causal())
    cache = model.new_cache(3, T)
    close(model(ids[:, :4], Attention.causal(), torch.arange(4), cache), whole[:, :4])
    for position in range(4, T):
        part = cache.first(position + 1)
        found = model(ids[:, position : position + 1], Attention.causal(), torch.tensor([position]), part)
        close(found, whole[:, position : position + 1])


@torch.no_grad()
def test_sequences_may_stand_at_different_positions(model):
    """Row b continues after LENGTHS[b] tokens; what the others stored beyond their own text is never seen."""
    ids = random_ids()
    whole = model(ids, Attention.causal())
    cache = model.new_cache(3, T)
    model(ids[:, :5], Attention.causal(), torch.arange(5), cache)
    for step in range(4):
        positions = LENGTHS[:, None] + step
        found = model(ids.gather(1, positions), Attention.causal(), positions, cache)
        close(found, whole.gather(1, positions[..., None].expand(-1, -1, whole.shape[-1])))


@torch.no_grad()
def test_a_block_after_prompts_is_the_prompt_pass(model):
    """Prompts see themselves only, so their keys and values stay while the block behind them changes."""
    ids = random_ids()
    cache = model.new_cache(3, 5 + 4)
    model(ids[:, :5], Attention.prompt(LENGTHS).until(LENGTHS), torch.arange(5), cache)
    positions = LENGTHS[:, None] + torch.arange(4)
    for seed in range(3):
        block = random_ids(length=4, seed=seed + 1)
        structure = Attention.prompt(LENGTHS).until(LENGTHS + 4)
        found = model(block, structure, positions, cache)
        whole = model(ids.scatter(1, positions, block), structure)
        close(found, whole.gather(1, positions[..., None].expand(-1, -1, whole.shape[-1])))


@torch.no_grad()
def test_rows_of_a_cache_are_those_sequences(model):
    ids = random_ids()
    cache = model.new_cache(3, T)
    model(ids[:, :6], Attention.causal(), torch.arange(6), cache)
    index = torch.tensor([2, 0])
    found = model(ids[index, 6:7], Attention.causal(), torch.tensor([6]), cache.rows(index).first(7))
    close(found, model(ids, Attention.causal())[index, 6:7])


@torch.no_grad()
def test_a_grown_cache_holds_what_it_held_and_has_room(model):
    ids = random_ids()
    cache = model.new_cache(3, 6)
    model(ids[:, :6], Attention.causal(), torch.arange(6), cache)
    grown = cache.grown(8)
    assert grown.num_positions == 8
    found = model(ids[:, 6:8], Attention.causal(), torch.tensor([6, 7]), grown)
    close(found, model(ids, Attention.causal())[:, 6:8])
    assert cache.num_positions == 6


@torch.no_grad()
def test_a_sequence_ends_where_its_end_is(model):
    """Tokens beyond the end change nothing, and a shorter sequence is what it would be alone."""
    ids = random_ids()
    structure = Attention.prompt(torch.tensor([3, 5, 2])).until(ENDS)
    together = model(ids, structure)
    for row, (length, end) in enumerate(zip([3, 5, 2], ENDS, strict=True)):
        alone = model(ids[row : row + 1, :end], Attention.prompt(torch.tensor([length])))
        close(together[row : row + 1, :end], alone)


@torch.no_grad()
def test_the_cache_holds_no_gradient(model):
    cache = model.new_cache(1, 2)
    assert not any(part.requires_grad for layer in cache.layers for part in (layer.key, layer.value))
