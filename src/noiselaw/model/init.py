"""Initialisation and width/depth scaling as one table: what each group of parameters starts from and learns at.

The scaling is CompleteP's as the paper uses it (spec section 5): with it the best learning rate eta stays where it is
when width d or depth L grow. The depth enters in the forward pass (residual_scale / L) and in the optimiser's epsilon.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from noiselaw.model.sharded import fill
from noiselaw.model.transformer import Transformer
from noiselaw.specs import InitSpec, ModelSpec, OptimizerSpec


@dataclass(frozen=True, slots=True)
class GroupRule:
    """How one group of parameters starts, learns and decays, as functions of the specs."""

    init_std: Callable[[ModelSpec, InitSpec], float]
    """Standard deviation of the normal draw; 0 starts at zero."""
    learning_rate: Callable[[ModelSpec, OptimizerSpec], float]
    """Peak learning rate; the schedule's factor multiplies it."""
    weight_decay: Callable[[ModelSpec, OptimizerSpec], float]
    """Decoupled decay; the update multiplies it by the learning rate."""


def _zero(_model: ModelSpec, _other: InitSpec | OptimizerSpec) -> float:
    return 0.0


def _auxiliary_learning_rate(_model: ModelSpec, optimizer: OptimizerSpec) -> float:
    return optimizer.learning_rate * optimizer.auxiliary_factor


PARAMETER_GROUPS: dict[str, GroupRule] = {
    "matrices": GroupRule(
        init_std=lambda model, init: init.matrix_scale / math.sqrt(model.width),
        learning_rate=lambda model, optimizer: optimizer.learning_rate / model.width,
        weight_decay=lambda model, optimizer: optimizer.weight_decay * model.width,
    ),
    "embedding": GroupRule(
        init_std=lambda _, init: init.embedding_std,
        learning_rate=_auxiliary_learning_rate,
        weight_decay=_zero,
    ),
    "head": GroupRule(
        init_std=lambda _, init: init.head_std,
        learning_rate=_auxiliary_learning_rate,
        weight_decay=_zero,
    ),
    "norms": GroupRule(
        init_std=_zero,
        learning_rate=_auxiliary_learning_rate,
        weight_decay=lambda _, optimizer: optimizer.norm_weight_decay,
    ),
    "biases": GroupRule(
        init_std=_zero,
        learning_rate=_auxiliary_learning_rate,
        weight_decay=lambda _, optimizer: optimizer.bias_weight_decay,
    ),
}
"""The table of spec section 5. Its names are the fields of `noiselaw.accounting.ParameterCounts`.

All matrices in blocks, `down_proj` with its fan-in of 4d too, start at matrix_scale / sqrt(d). Norm weights are used as
1 + g, so zero is the identity.
"""


def parameter_group(name: str, num_dims: int) -> str:
    """The group in PARAMETER_GROUPS of the parameter `name` with `num_dims` dimensions. First match wins.

    Raises ValueError for a parameter that belongs to none.
    """
    if "norm" in name:
        return "norms"
    if "embed_tokens" in name:
        return "embedding"
    if "bias" in name:  # before the matrices: the sink's k_bias and v_bias have two dimensions
        return "biases"
    if "lm_head" in name:
        return "head"
    if num_dims > 1:
        return "matrices"
    raise ValueError(f"parameter {name!r} with {num_dims} dimension(s) belongs to no group of {list(PARAMETER_GROUPS)}")


@torch.no_grad()
def initialise(model: Transformer, init: InitSpec, generator: torch.Generator) -> None:
    """Draw all weights of `model` in place, in the order of `named_parameters`.

    The draws are float32 on the CPU (so must `generator` be): one seed gives one model, whatever its device and however
    many processes share it.
    """
    for name, parameter in model.named_parameters():
        std = PARAMETER_GROUPS[parameter_group(name, parameter.ndim)].init_std(model.spec, init)
        if std == 0:
            parameter.zero_()
        else:
            fill(parameter, torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
