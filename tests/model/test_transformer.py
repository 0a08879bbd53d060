"""The architecture: its parts against their formulas, and what each attention structure promises."""

import pytest
import torch

from noiselaw.model.attention import Attention
from noiselaw.model.init import initialise
from noiselaw.model.transformer import RMSNorm, Transformer, _SquaredReLU, rotary_tables, rotate
from noiselaw.specs import InitSpec, ModelSpec

VOCAB = 23


def build(seed=0, **changes):
    """A small model with nothing at zero, so that every parameter matters."""
    spec = ModelSpec(**{"num_layers": 2, "width": 32, "num_heads": 4} | changes)
    model = Transformer(spec, VOCAB)
    generator = torch.Generator().manual_seed(seed)
    initialise(model, InitSpec(matrix_scale=1.0, embedding_std=1.0, head_std=1.0), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.1, generator=generator))
    return model


def random_ids(batch=3, length=10, seed=0):
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_rms_norm_is_its_formula():
    norm = RMSNorm(8, epsilon=0.1).double()
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = x / ((x**2).sum(-1, keepdim=True) / 8 + 0.1).sqrt() * (1 + norm.weight)
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-14)


def test_rms_norm_computes_in_the_precision_of_its_weight():
    assert RMSNorm(8, 1e-6)(torch.ones(8, dtype=torch.bfloat16)).dtype is torch.float32


def test_squared_relu_and_its_gradient():
    x = torch.tensor([-2.0, -0.5, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(_SquaredReLU.apply(x), torch.tensor([0.0, 0.0, 0.25, 9.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(_SquaredReLU.apply, x)


def test_rotary_positions_are_rotations_by_position_times_frequency():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 7, 2, 6, dtype=torch.float64, generator=generator)
    rotated = rotate(x, *rotary_tables(torch.arange(7), 6, 100.0, torch.float64))
    for position in range(7):
        for pair in range(3):
            turn = torch.polar(torch.tensor(1.0).double(), torch.tensor(position * 100.0 ** (-2 * pair / 6)).double())
            expected = torch.complex(x[0, position, :, pair], x[0, position, :, pair + 3]) * turn
            found = torch.complex(rotated[0, position, :, pair], rotated[0, position, :, pair + 3])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_without_a_sink_only_position_differences_matter():
    """The sink's key does not turn with position: it would break this."""
    model, ids = build(attention_sink=False), random_ids()
    torch.testing.assert_close(model(ids), model(ids, positions=torch.arange(10) + 5), rtol=0, atol=2e-5)
    spread = model(ids, positions=torch.arange(10) * 2)
    assert (spread - model(ids)).abs().max() > 1e-2


def test_positions_may_differ_between_sequences():
    model, ids = build(), random_ids(batch=2)
    positions = torch.stack([torch.arange(10), torch.arange(10) * 2])
    together = model(ids, positions=positions)
    for row in range(2):
        alone = model(ids[row : row + 1], positions=positions[row])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


SEES_NOTHING_FROM = {
    "full": (Attention.full(), {}),
    "causal": (Attention.causal(), {t: range(t + 1, 10) for t in range(10)}),
    "prompt": (Attention.prompt(torch.full((3,), 4)), {t: range(4, 10) for t in range(4)}),
    "keys": (Attention.keys(torch.arange(10).expand(3, -1) < 7), {t: range(7, 10) for t in range(7)}),
}
"""Structure, and which positions a hidden state must not depend on."""


@pytest.mark.parametrize("name", SEES_NOTHING_FROM)
@pytest.mark.parametrize("sink", [True, False])
def test_a_position_depends_on_what_it_may_see_and_on_nothing_else(name, sink):
    attention, blind = SEES_NOTHING_FROM[name]
    model, ids = build(attention_sink=sink), random_ids()
    before = model(ids, attention)
    for changed in range(10):
        other = ids.clone()
        other[:, changed] = (other[:, changed] + 1) % VOCAB
        moved = (model(other, attention) - before).abs().amax(dim=(0, 2)) > 1e-6
        for position in range(10):
            hidden_key = name == "keys" and changed >= 7 and position != changed
            assert moved[position] == (changed not in blind.get(position, ()) and not hidden_key), (position, changed)


@pytest.mark.parametrize("changes", [{}, {"attention_sink": False}, {"attention_soft_cap": 2.0}, {"mlp_bias": False}])
def test_every_parameter_receives_a_gradient(changes):
    model = build(**changes)
    model.logits(model(random_ids())).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_match_finite_differences_in_float64():
    model, ids = build(num_layers=1, width=8, num_heads=2).double(), random_ids(batch=2, length=4)
    attention = Attention.prompt(torch.tensor([2, 0]))
    names, values = zip(*model.named_parameters(), strict=True)

    def logits(*parameters):
        hidden = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (ids, attention))
        return model.logits(hidden)

    assert torch.autograd.gradcheck(logits, values, fast_mode=True)


def test_without_branches_the_logits_are_those_of_the_embedding():
    """Residual branches enter with residual_scale / L, the head with head_scale / d."""
    model, ids = build(residual_scale=1e-12, head_scale=8.0), random_ids()
    embedding = model.model.embed_tokens(ids)
    expected = model.model.norm(embedding) @ model.lm_head.weight.T * (8.0 / 32)
    torch.testing.assert_close(model.logits(model(ids)), expected, rtol=0, atol=1e-5)
    assert model.head_multiplier == 8.0 / 32


def test_bfloat16_autocast_stays_near_float32():
    model, ids = build(), random_ids()
    exact = model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(ids)
    assert hidden.dtype is torch.float32
    error = (hidden - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()
    assert 1e-4 < error < 0.03


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own probing of its inputs
@pytest.mark.parametrize("attention", [Attention.full(), Attention.prompt(torch.tensor([3, 0, 10]))])
def test_a_block_is_captured_whole_by_the_compiler(attention):
    model, ids = build(), random_ids()
    expected = model(ids, attention)
    for layer in model.model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(model(ids, attention), expected, rtol=0, atol=1e-6)
