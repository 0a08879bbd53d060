"""What a model's blocks keep for the backward pass changes its memory, never its gradients."""

import pytest
import torch

from noiselaw.model.attention import Attention
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.specs import InitSpec, ModelSpec, ParallelSpec, RuntimeSpec
from noiselaw.train.parallel import parallelise

V = 29
ATTENTIONS = [Attention.full(), Attention.prompt(torch.tensor([3, 0, 10]))]


def build(**runtime) -> Transformer:
    """A small model, the same each time but for how it runs."""
    spec = ModelSpec(num_layers=3, width=16, num_heads=2)
    model = Transformer(spec, V)
    parallelise(model, None, RuntimeSpec(**runtime), torch.float32)
    initialise(model, InitSpec(head_std=0.1), torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_blocks_computed_again_give_the_same_gradients(attention):
    ids = torch.randint(V, (3, 10), generator=torch.Generator().manual_seed(1))
    found, saved = {}, {}
    for recompute in ("none", "selective", "full"):
        model = build(parallel=ParallelSpec(recompute=recompute))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            out = model(ids, attention)
        found[recompute] = torch.autograd.grad(out.square().sum(), list(model.model.parameters()))
        saved[recompute] = sum(sizes)
    for recompute in ("selective", "full"):
        for once, twice in zip(found["none"], found[recompute], strict=True):
            assert torch.equal(once, twice)
        assert saved[recompute] < saved["none"] / 4
