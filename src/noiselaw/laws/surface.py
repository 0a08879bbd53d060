"""The loss surface L(M, D) = E + A M^-alpha + B D^-beta: one formula for every size and budget at once.

Fitted by Huber's loss on log residuals (Chinchilla approach 3; spec section 7, step 5), their squares or their absolute
values. "Size" is whatever the caller counts: FLOPs per token M as the paper does, or parameters. Starts come from
variable projection (for given exponents the rest is linear), all of them descend together, and the fit says how sure it
is to have found the bottom. Legend: n points, 5 unknowns theta as in `noiselaw.laws.descent`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.descent import Descent, Points, derivatives, descend, descend_to, log_slopes, projected_starts
from noiselaw.laws.forms import Floats, PowerLaw, huber_weights
from noiselaw.laws.luck import Luck, split_luck

DELTA = 1e-3
"""Huber's threshold on log residuals (Chinchilla)."""
L1_DELTA = 1e-8
"""Absolute residuals are rounded off below this: the sum is within n * L1_DELTA / 2 of its lowest."""

Objective = Literal["huber", "l1", "l2"]
PARAMETERS = ("E", "A", "alpha", "B", "beta")


@dataclass(frozen=True, slots=True)
class Certificate:
    """How sure the minimum is."""

    objective: float
    """Sum over the log residuals r: Huber's loss, r**2 / 2 for least squares, |r| for L1."""
    gradient_norm: float
    """Of the objective over theta, per point; for L1 of its rounded form (a subgradient)."""
    agreeing_starts: int
    """How many starts ended at this objective (to one part in a million)."""
    num_starts: int
    active_bounds: tuple[str, ...]
    """Parameters that the data push to their bound: E at 0, an exponent at 0."""
    parameter_spread: float | None = None
    """Largest relative difference of a parameter among the agreeing starts; None where nobody measured it."""


@dataclass(frozen=True, slots=True)
class SurfaceFit:
    """L = E + A size^-alpha + B tokens^-beta, in nats per token."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    certificate: Certificate
    covariance: tuple[tuple[float, ...], ...]
    """Of (log A, alpha, log B, beta, log E), per unit variance of a random shift of each run's log loss."""

    def __call__(self, size: ArrayLike, tokens: ArrayLike) -> Floats:
        return sum(self._terms(size, tokens), np.zeros(()))

    def standard_error(self, size: float, tokens: float) -> float:
        """Of log L, per unit of run-to-run scatter."""
        first, second, floor = (float(term) for term in self._terms(size, tokens))
        parts = np.array([first, -first * math.log(size), second, -second * math.log(tokens), floor])
        gradient = parts / (first + second + floor)
        return math.sqrt(max(float(gradient @ np.array(self.covariance) @ gradient), 0.0))

    def optimal_size(self) -> PowerLaw:
        """Size*(C) where C = size * tokens: (alpha A / (beta B))^(1 / (alpha + beta)) C^(beta / (alpha + beta))."""
        total = self.alpha + self.beta
        return PowerLaw((self.alpha * self.A / (self.beta * self.B)) ** (1 / total), self.beta / total)

    def over(self, law: PowerLaw) -> "SurfaceFit":
        """The same surface over M where M = c size^k is `law`: alpha' = alpha / k, A' = A c^(alpha / k)."""
        k, log_c = law.exponent, math.log(law.coefficient)
        turned = np.eye(5)
        turned[1, 1], turned[0, 1] = 1 / k, log_c / k
        covariance = turned @ np.array(self.covariance) @ turned.T
        alpha = self.alpha / k
        return replace(
            self,
            A=self.A * math.exp(alpha * log_c),
            alpha=alpha,
            covariance=tuple(map(tuple, covariance.tolist())),
        )

    def _terms(self, size: ArrayLike, tokens: ArrayLike) -> tuple[Floats, Floats, Floats]:
        first = self.A * np.asarray(size, float) ** -self.alpha
        second = self.B * np.asarray(tokens, float) ** -self.beta
        return first, second, np.asarray(self.E)


def fit_surface(
    size: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    run: ArrayLike | None = None,
    *,
    objective: Objective = "huber",
    delta: float = DELTA,
) -> SurfaceFit:
    """Fit the surface to points [n] by the sum of an objective over log residuals.

    `delta` is Huber's, in units of log loss; delta = inf is plain least squares. `run` [n] says which points share one
    run's luck (default: every point its own). Raises ValueError for values that are not positive and finite, fewer than
    6 points, fewer than 3 distinct sizes or token counts, or a delta that is not positive.
    """
    data, width = Points.checked(size, tokens, loss), threshold(objective, delta)
    starts = projected_starts(data, width, NUM_STARTS)
    found = minimize(data, starts, objective, delta)
    theta = found.theta[int(np.argmin(found.objective))]
    groups = np.arange(data.y.size) if run is None else np.unique(np.asarray(run), return_inverse=True)[1]
    covariance = _shift(data) @ _run_covariance(data, theta, groups, width) @ _shift(data).T
    parameters = {name: float(values) for name, values in surface_parameters(data, theta).items()}
    certificate = _certify(data, found, parameters, objective, width)
    return SurfaceFit(**parameters, certificate=certificate, covariance=tuple(map(tuple, covariance.tolist())))


NUM_STARTS = 12


def threshold(objective: Objective, delta: float = DELTA) -> float:
    """Huber's delta that stands for the objective. Raises ValueError for one that is not positive."""
    if not delta > 0:
        raise ValueError(f"delta {delta}: Huber's threshold on log residuals must be positive; {DELTA} is usual")
    return {"huber": delta, "l2": math.inf, "l1": L1_DELTA}[objective]


def minimize(data: Points, starts: Floats, objective: Objective, delta: float = DELTA) -> Descent:
    """Descend from every start by the named objective."""
    return (descend_to if objective == "l1" else descend)(data, starts, threshold(objective, delta))


def surface_parameters(data: Points, theta: Floats) -> dict[str, Floats]:
    """E, A, alpha, B, beta of theta [..., 5], no longer about the middle of the data."""
    with np.errstate(over="ignore"):
        return {
            "E": np.exp(theta[..., 4]),
            "A": np.exp(theta[..., 0] + theta[..., 1] * data.center_size),
            "alpha": theta[..., 1],
            "B": np.exp(theta[..., 2] + theta[..., 3] * data.center_tokens),
            "beta": theta[..., 3],
        }


def surface_luck(fit: SurfaceFit, size: ArrayLike, tokens: ArrayLike, loss: ArrayLike, run: np.ndarray) -> Luck:
    """How runs, and rows of one run, scatter about a fitted surface; `run` [n] numbers the runs from 0."""
    data = Points.checked(size, tokens, loss)
    fitted, slopes = (part[0] for part in log_slopes(data, start_at(fit, data)))
    return split_luck(data.y - fitted, slopes, run)


def start_at(fit: SurfaceFit, data: Points) -> Floats:
    """Theta [1, 5] of a fit, about the middle of the data."""
    return np.array([[
        math.log(fit.A) - fit.alpha * data.center_size, fit.alpha,
        math.log(fit.B) - fit.beta * data.center_tokens, fit.beta, math.log(max(fit.E, 1e-300)),
    ]])  # fmt: skip


def _shift(data: Points) -> Floats:
    """What turns theta about the middle of the data into theta about zero."""
    shift = np.eye(5)
    shift[0, 1], shift[2, 3] = data.center_size, data.center_tokens
    return shift


def _certify(
    data: Points, found: Descent, parameters: dict[str, float], objective: Objective, width: float
) -> Certificate:
    best = int(np.argmin(found.objective))
    unit = width if objective == "l1" else 1.0
    agreeing = found.objective <= found.objective[best] * (1 + 1e-6) + 1e-15 * unit
    spread = max(
        float(np.ptp(values[agreeing])) / max(abs(parameters[name]), 1e-300)
        for name, values in surface_parameters(data, found.theta).items()
    )
    bounds = {
        "E": parameters["E"] < 1e-6 * math.exp(data.y.min()),
        "alpha": parameters["alpha"] <= 0,
        "beta": parameters["beta"] <= 0,
    }
    gradient = derivatives(data, found.theta[[best]], width).gradient
    return Certificate(
        objective=float(found.objective[best]) / unit,
        gradient_norm=float(np.linalg.norm(gradient)) / unit / data.y.size,
        agreeing_starts=int(agreeing.sum()),
        num_starts=len(found.objective),
        parameter_spread=spread,
        active_bounds=tuple(name for name, active in bounds.items() if active),
    )


def _run_covariance(data: Points, theta: Floats, groups: np.ndarray, delta: float) -> Floats:
    """First order: theta moves by (J'WJ)^-1 J'W e, where the log losses of a run share one shift e of unit variance."""
    log_loss, slopes = (part[0] for part in log_slopes(data, theta[None]))
    weighted = slopes * huber_weights(log_loss - data.y, delta)
    by_run = np.zeros((int(groups.max()) + 1, 5))
    np.add.at(by_run, groups, weighted.T)
    response = by_run @ np.linalg.pinv(weighted @ slopes.T, rcond=1e-12)
    return response.T @ response
