"""The rule of shapes: the paper's shapes from nothing but their FLOPs per token, and what holds for every size."""

import itertools
import math

import numpy as np
import pytest

from noiselaw.accounting import FLOPS_CONVENTIONS, ModelShape, flops_per_token
from noiselaw.laws import load_points
from noiselaw.laws.plan import nearest_shape
from noiselaw.laws.published import LARGE_RUNS
from noiselaw.laws.shapes import MIN_WIDTH, multiple_of, shape_of, shapes_near

LIKE = ModelShape(1, 16, 1, 131_072)
POINTS = load_points()
TABLE = sorted({(int(layers), int(width)) for layers, width in zip(POINTS["layers"], POINTS["width"], strict=True)})
LARGE = [(run.num_layers, run.width) for run in LARGE_RUNS]


def planned(size: float, sequence_length: int = 2048, convention: str = "72Ld2+12Lds") -> ModelShape:
    shapes = shapes_near(size, LIKE, sequence_length, convention)
    return nearest_shape(size, shapes, sequence_length, convention).shape


@pytest.mark.parametrize("convention", FLOPS_CONVENTIONS)
@pytest.mark.parametrize(("layers", "width"), [*TABLE, *LARGE])
def test_the_papers_shapes_follow_from_their_flops_per_token(layers, width, convention):
    size = flops_per_token(shape_of(layers, width, LIKE), 2048, convention)
    # A law never asks for exactly the size of a shape.
    for factor in (0.99, 1.0, 1.01):
        shape = planned(factor * size, 2048, convention)
        assert (shape.num_layers, shape.width) == (layers, width)


def test_the_paper_has_five_sizes_and_three_large_runs():
    assert TABLE == [(8, 512), (10, 640), (12, 768), (16, 1024), (20, 1536)]
    assert [shape_of(*shape, LIKE).num_heads for shape in [*TABLE, *LARGE]] == [8, 10, 12, 16, 12, 24, 24, 36]


@pytest.mark.parametrize("sequence_length", [64, 2048])
def test_every_size_gets_a_shape_that_hardware_likes(sequence_length):
    for size in np.geomspace(3e4 * sequence_length / 64, 1e13, 400):
        shape = planned(size, sequence_length)
        layers, width, head = shape.num_layers, shape.width, shape.width // shape.num_heads
        assert width % multiple_of(width) == 0
        assert shape.num_heads * head == width
        assert head == (128 if width > 1024 else min(64, multiple_of(width)))
        error = abs(math.log(flops_per_token(shape, sequence_length) / size))
        # Half the way to a layer less at most; models of one layer change by their width, 16 to 24 at worst.
        assert error <= 0.5 * math.log(layers / (layers - 1) if layers > 1 else (24 / 16) ** 2) + 1e-9
        if layers > 1:
            # The nearest in log is at most one layer off the rounded number.
            assert width >= (64 if width <= 2048 else 128) * (layers - 1)


def test_widths_fill_matrix_units():
    grid = list(itertools.accumulate(range(60), lambda width, _: width + multiple_of(width), initial=MIN_WIDTH))
    assert grid[:6] == [16, 24, 32, 40, 48, 56]
    assert [width for width in grid if 512 <= width <= 2048] == [512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048]
    assert all(width % 512 == 0 for width in grid if width > 2048)
    assert {width: multiple_of(width) for width in (16, 64, 128, 256, 512, 1024, 2048, 8192)} == {
        16: 8, 64: 16, 128: 32, 256: 64, 512: 128, 1024: 256, 2048: 512, 8192: 512,
    }  # fmt: skip


def test_neighbours_have_a_layer_less_and_a_layer_more():
    size = flops_per_token(ModelShape(18, 3072, 24, 131_072), 2048)
    assert [(shape.num_layers, shape.width) for shape in shapes_near(size, LIKE, 2048)] == [
        (17, 3072), (18, 3072), (19, 3072),
    ]  # fmt: skip
    small = shapes_near(2e5, LIKE, 64)
    assert [(shape.num_layers, shape.width) for shape in small] == [(1, 40), (1, 48), (2, 48)]
    assert [(shape.num_layers, shape.width) for shape in shapes_near(1.0, LIKE, 64)] == [(1, 16), (2, 16)]


def test_what_the_rule_does_not_decide_is_kept():
    like = ModelShape(1, 16, 1, 777, attention_sink=False, mlp_bias=False)
    for shape in shapes_near(1e9, like, 2048):
        assert (shape.vocab_size, shape.attention_sink, shape.mlp_bias) == (777, False, False)
