"""The best size when data is scarce: see the tokens more often, or spend the compute on a larger model?

Tokens seen again, and size beyond the one that the unique tokens are optimal for, are worth less and less
(`noiselaw.laws.repeated` has the formulas). At fixed compute C = M D the loss with these values has a minimum over the
size. It is found on the group's loss surface, moved so that with fresh data its optimum is that of the isoFLOP laws:
plans then change smoothly where data becomes scarce, and scarcity never seems to help.

M FLOPs per token, D tokens seen, U unique tokens, R* the repeats after which their value has decayed by 1 / e.
"""

from dataclasses import dataclass

import numpy as np

from noiselaw.laws.prediction import Laws
from noiselaw.laws.repeated import repeated_loss

NUM_TRIALS = 4001
"""Sizes tried, evenly in log M: closer together than any two shapes."""
SAME_LOSS = 1e-10
"""Losses this close, relatively, are one: where data is used up, rounding errors would choose among many sizes."""


@dataclass(frozen=True, slots=True)
class RepeatValue:
    """How fast repeats, and excess size, lose their value: 1 / R*, 0 where they never do."""

    inverse_tokens: float
    inverse_size: float
    source: str
    measured_for: str
    """The kind of model whose runs it was fitted to."""


MUENNIGHOFF = RepeatValue(1 / 15.387756, 1 / 5.309743, "arXiv 2305.16264, appendix A", "autoregressive")
"""Fitted together, over parameters. Excess size is a ratio, so its value is used for FLOPs per token as it is."""


@dataclass(frozen=True, slots=True)
class ScarceOptimum:
    """The best use of a budget on a limited stock of tokens."""

    size: float
    """FLOPs per token."""
    epochs: float
    """D / U."""
    penalty: float
    """Its loss over that of the same compute on fresh tokens, 1 or more."""


def best_scarce_size(fit: Laws, flops: float, unique_tokens: float, repeats: RepeatValue) -> ScarceOptimum:
    """The size that makes the most of `flops` on `unique_tokens`, and what scarcity costs.

    Where D*(C) fresh tokens are there, the isoFLOP optimum itself without penalty. Else sizes are tried from the one
    that U tokens are optimal for up to the one that sees every token once; of sizes of the same loss, the smallest is
    best. Raises ValueError for unique tokens that are not positive, a group without laws, or laws without a surface.
    """
    if not unique_tokens > 0:
        raise ValueError(f"unique_tokens {unique_tokens:g}: give how many training tokens there are")
    optimal = float(fit.law("flops_per_token")(flops))
    if flops / optimal <= unique_tokens:
        return ScarceOptimum(optimal, flops / optimal / unique_tokens, 1.0)
    surface = fit.surface
    if surface is None:
        raise ValueError(
            f"group {fit.group}: no loss surface, so repeats cannot be weighed against size; "
            "add what `noiselaw laws surface --json` says"
        )
    moved = float(surface.optimal_size()(flops)) / optimal
    parameters = np.array([
        surface.E, surface.A, surface.alpha, surface.B, surface.beta, repeats.inverse_tokens, repeats.inverse_size,
    ])  # fmt: skip
    unique = unique_tokens / moved
    # Where size and tokens are worth as much: alpha A M^-alpha = beta B U^-beta.
    balance = surface.alpha * surface.A / (surface.beta * surface.B)
    enough = (balance * unique**surface.beta) ** (1 / surface.alpha)
    sizes = np.geomspace(enough, flops / unique, NUM_TRIALS)
    loss = repeated_loss(parameters, sizes, flops / sizes, unique)
    fresh = surface(optimal * moved, flops / (optimal * moved))
    least = loss.min()
    size = float(sizes[np.argmax(loss <= least * (1 + SAME_LOSS))]) / moved
    return ScarceOptimum(size, flops / size / unique_tokens, float(least / fresh))
