"""The best split of compute into size and tokens that a surface implies: power laws in C, exactly.

With FLOPs per token M = c S^k for the size S of the surface, C = c S^k D, and L = E + A S^-alpha + B D^-beta is lowest
where alpha A S^-alpha = k beta B D^-beta. All functions broadcast over leading axes of draws [...].
"""

from collections.abc import Mapping

import numpy as np

from noiselaw.laws.forms import Floats, PowerLaw


def optimal_laws(parameters: Mapping[str, Floats], per_token: PowerLaw, params: PowerLaw) -> dict[str, Floats]:
    """(log coefficient, exponent) [..., 2] over C by quantity; NaN where an exponent is not positive.

    `per_token` gives M of S, `params` P of S. `loss` is the part of L* above E: L*(C) = E + coefficient C^exponent.

        S* = (alpha A / (k beta B c^beta))^(1 / (alpha + k beta)) C^(beta / (alpha + k beta))
        L* - E = A S*^-alpha (1 + alpha / (k beta))
    """
    k, log_c = per_token.exponent, np.log(per_token.coefficient)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha, beta = (np.where(parameters[name] > 0, parameters[name], np.nan) for name in ("alpha", "beta"))
        log_a, log_b = np.log(parameters["A"]), np.log(parameters["B"])
        total = alpha + k * beta
        size = np.stack([(np.log(alpha / (k * beta)) + log_a - log_b - beta * log_c) / total, beta / total], axis=-1)
        above = log_a + np.log1p(alpha / (k * beta))
    loss = np.stack([above - alpha * size[..., 0], -alpha * size[..., 1]], axis=-1)
    flops_per_token = _through(per_token, size)
    return {
        "loss": loss,
        "tokens": np.array([0.0, 1.0]) - flops_per_token,
        "params": _through(params, size),
        "flops_per_token": flops_per_token,
    }


def _through(law: PowerLaw, logs: Floats) -> Floats:
    """The law of a law: (log coefficient, exponent) of `law` applied to coefficient C^exponent."""
    return np.array([np.log(law.coefficient), 0.0]) + law.exponent * logs
