"""What a model's blocks keep for the backward pass changes its memory, never its gradients."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

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
    found, saved, products = {}, {}, {}
    for recompute in ("none", "selective", "full"):
        model = build(parallel=ParallelSpec(recompute=recompute))
        sizes = []
        with FlopCounterMode(display=False) as counter:
            with saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
                out = model(ids, attention)
            found[recompute] = torch.autograd.grad(out.square().sum(), list(model.model.parameters()))
        saved[recompute] = sum(sizes)
        flops = counter.get_flop_counts()["Global"]
        products[recompute] = flops[torch.ops.aten.mm] + flops[torch.ops.aten.addmm]
    for recompute in ("selective", "full"):
        for once, twice in zip(found["none"], found[recompute], strict=True):
            assert torch.equal(once, twice)
    assert saved["full"] < saved["none"] / 4
    # Three products for each weight, one of them in the forward pass: selective keeps it, full makes it again, but for
    # the block's last (4 d^2 of 12), whose result nobody needs.
    assert products["selective"] == products["none"]
    assert products["full"] == products["none"] * 11 // 9
