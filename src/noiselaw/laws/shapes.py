"""Layers, width and heads for the FLOPs per token that a law asks for: the shapes that hardware likes.

The rule. The width is the narrowest on a grid that leaves the model at least A times as wide as deep, where the layers
are as many as spend M FLOPs per token. A is 64 up to width 2048 (so at most 32 layers), 128 beyond. The grid holds the
multiples of a power of two: the largest up to a quarter of the width, at most 512 (so 512, 640, ... 1024, 1280, ...
2048, 2560, ...). Heads are 64 wide up to width 1024 and 128 beyond, less where the grid is finer.

Given nothing but M, it draws all eight shapes of the paper (arXiv 2512.10858): the five of its table (8 x 512 to
20 x 1536) and the three of its large runs (18 and 19 x 3072, 34 x 4608). Among such proportions the loss hardly depends
on the aspect ratio (arXiv 2001.08361, figure 5), so what fills matrix units and keeps the chain of layers short may
decide. Symbols: M FLOPs per token, L layers, d width.
"""

from dataclasses import replace

from noiselaw.accounting import DEFAULT_CONVENTION, ModelShape, flops_per_token

MAX_MULTIPLE = 512
MIN_WIDTH, MIN_MULTIPLE = 16, 8
WIDEST_OF_SMALL = 2048
"""Models up to this width are at least 64 times as wide as deep, wider ones 128 times."""
SMALL_ASPECT, LARGE_ASPECT = 64, 128
WIDEST_WITH_SMALL_HEADS = 1024
SMALL_HEAD, LARGE_HEAD = 64, 128


def shapes_near(
    size: float, like: ModelShape, sequence_length: int, convention: str = DEFAULT_CONVENTION
) -> tuple[ModelShape, ...]:
    """The shape that the rule draws for `size` FLOPs per token, between those with a layer less and a layer more.

    What the rule does not decide (vocabulary, sink, biases) is as in `like`. A model of one layer has the next narrower
    one beside it instead of one without layers.
    """
    narrower, width = None, MIN_WIDTH
    while True:
        aspect = SMALL_ASPECT if width <= WIDEST_OF_SMALL else LARGE_ASPECT
        exact = _layers(size, width, like, sequence_length, convention)
        layers = max(1, round(exact))
        if exact <= 1 or width >= aspect * layers:
            break
        narrower, width = width, width + multiple_of(width)
    shapes = [shape_of(count, width, like) for count in (layers - 1, layers, layers + 1) if count > 0]
    if layers == 1 and narrower is not None:
        shapes.insert(0, shape_of(1, narrower, like))
    return tuple(shapes)


def shape_of(num_layers: int, width: int, like: ModelShape) -> ModelShape:
    """A shape of the grid with the heads that its width asks for."""
    head = min(SMALL_HEAD if width <= WIDEST_WITH_SMALL_HEADS else LARGE_HEAD, multiple_of(width))
    return replace(like, num_layers=num_layers, width=width, num_heads=width // head)


def multiple_of(width: int) -> int:
    """The power of two whose multiples make up the grid at `width`."""
    quarter = max(width // 4, 1)
    return min(max(1 << (quarter.bit_length() - 1), MIN_MULTIPLE), MAX_MULTIPLE)


def _layers(size: float, width: int, like: ModelShape, sequence_length: int, convention: str) -> float:
    """How many layers of `width` spend `size` FLOPs per token: not a whole number."""
    one, two = (flops_per_token(shape_of(count, width, like), sequence_length, convention) for count in (1, 2))
    return 1 + (size - one) / (two - one)
