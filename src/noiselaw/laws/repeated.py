"""The law of repeated data: what the second, third, ... pass over the same tokens is still worth.

    L = E + A N'^-alpha + B D'^-beta,    D' = U + U R* (1 - exp(-R / R*)),    R = D / U - 1

U unique tokens, D tokens trained on, R repeats, R* = R_D* the number of repeats after which their value has decayed by
1 / e. Likewise N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)) for parameters in excess of U_N, the compute-optimal size for
U tokens, R_N = N / U_N - 1 (Muennighoff et al., arXiv 2305.16264, equations 5 and 6). Fitted over 1 / R* >= 0: there
"repeats never lose their value" is a point of the space, D' = D, where it would be at infinity over R*. Diffusion
models come close to it (arXiv 2507.15857, 2511.03276). Legend: S draws, n rows, k unknowns theta = (log A, alpha,
log B, beta, log E, 1 / R_D*, 1 / R_N*), the logs of A and B taken at the middle of the data.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.bootstrap import LEVEL, default_draws, percentile_interval
from noiselaw.laws.effective import LEAST_EXPONENT, Rows, decayed, huber_problem, log_slopes
from noiselaw.laws.forms import Floats
from noiselaw.laws.lawfits import interval_records
from noiselaw.laws.luck import redraw
from noiselaw.laws.newton import Problem, descend, projected_gradient
from noiselaw.laws.surface import DELTA, Certificate
from noiselaw.laws.table import RunTable

Size = Literal["params", "flops_per_token"]
"""What N counts: parameters as in the source, or FLOPs per token."""

NAMES = ("E", "A", "alpha", "B", "beta", "inverse_R_D", "inverse_R_N")
MIN_ROWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class RepeatedFit:
    """The law of one group; losses in nats per token."""

    group: str
    size: Size
    parameters: Mapping[str, float]
    """Of NAMES; `inverse_R_N` only where it was fitted."""
    intervals: Mapping[str, tuple[float, float] | None]
    """95 %."""
    certificate: Certificate
    draws: Floats
    """[S, 7] in the order of NAMES."""
    flags: tuple[str, ...]

    def __call__(self, size: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike) -> Floats:
        """Loss of a model of that size trained on that many tokens, of which so many are unique."""
        return repeated_loss(np.array([self.parameters.get(name, 0.0) for name in NAMES]), size, tokens, unique_tokens)

    def record(self) -> dict[str, Any]:
        """Plain JSON: "parameters" with their "intervals", "flags" and "certificate".

        R_D and R_N stand beside their inverses; infinity is null, also as the upper end of an interval.
        """
        parameters: dict[str, Any] = dict(self.parameters)
        intervals: dict[str, Any] = interval_records(self.intervals)
        for name in ("R_D", "R_N"):
            if f"inverse_{name}" in parameters:
                parameters[name] = _inverse(parameters[f"inverse_{name}"])
                inverse = intervals[f"inverse_{name}"]
                intervals[name] = inverse and [_inverse(inverse[1]), _inverse(inverse[0])]
        return {
            "size": self.size,
            "parameters": parameters,
            "intervals": intervals,
            "flags": list(self.flags),
            "certificate": asdict(self.certificate) | {"active_bounds": list(self.certificate.active_bounds)},
        }


def repeated_loss(parameters: Floats, size: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike) -> Floats:
    """The law for parameters [..., 7] in the order of NAMES; the other arguments broadcast against [...]."""
    E, A, alpha, B, beta, inverse_d, inverse_n = np.moveaxis(parameters, -1, 0)
    log_n, log_d, log_u = (np.log(np.asarray(values, float)) for values in (size, tokens, unique_tokens))
    log_u = np.minimum(log_u, log_d)
    effective_d = log_u + np.log1p(decayed(np.expm1(log_d - log_u), inverse_d))
    optimal_n = (np.log(alpha * A / (beta * B)) + beta * log_u) / alpha
    log_un = np.minimum(log_n, optimal_n)
    effective_n = log_un + np.log1p(decayed(np.expm1(log_n - log_un), inverse_n))
    return E + A * np.exp(-alpha * effective_n) + B * np.exp(-beta * effective_d)


def fit_repeated(
    table: RunTable,
    *,
    size: Size = "params",
    excess_params: bool | None = None,
    delta: float = DELTA,
    num_draws: int | None = None,
    seed: int = 0,
) -> dict[str, RepeatedFit]:
    """Fit E, A, alpha, B, beta and 1 / R_D* of every group by Huber's loss on log residuals (delta = inf: squares).

    `excess_params` says whether R_N* is fitted too; by default it is where that lowers the misfit by more than a
    superfluous unknown would in 95 % of cases (likelihood ratio, runs counted). Starts are ranked by variable
    projection over alpha, beta and 1 / R_D*. Intervals (95 %) are a bootstrap over runs (`luck.redraw`), every draw
    refitted to convergence; `num_draws` is by default what about half a second allows.

    Raises ValueError without unique tokens, for a group that repeats nothing, or one with fewer than 8 rows or 3
    distinct sizes or token counts.
    """
    if table.unique_tokens is None:
        raise ValueError("the table has no unique tokens; name the column that holds them, or epochs")
    for group, rows in table.groups():
        reason = why_no_law(rows, size)
        if reason is not None:
            raise ValueError(f"group {group}: {reason}")
    num_draws = default_draws(table.loss.size) if num_draws is None else num_draws
    options = _Options(size, excess_params, delta, num_draws)
    return {group: _fit_group(group, rows, options, seed + at) for at, (group, rows) in enumerate(table.groups())}


class _Options(NamedTuple):
    size: Size
    excess_params: bool | None
    delta: float
    num_draws: int


class _Data(NamedTuple):
    rows: Rows
    run: np.ndarray
    """[n]: number of the run of every row."""
    center: tuple[float, float]
    """Means of log size and log tokens."""

    @classmethod
    def of(cls, table: RunTable, size: Size) -> "_Data":
        assert table.unique_tokens is not None
        log_size, log_tokens = np.log(getattr(table, size)), np.log(table.tokens)
        log_unique = np.minimum(np.log(table.unique_tokens), log_tokens)
        center = float(log_size.mean()), float(log_tokens.mean())
        repeats = np.expm1(log_tokens - log_unique)
        rows = Rows(log_size - center[0], log_unique - center[1], repeats, np.log(table.loss))
        return cls(rows, np.unique(table.run, return_inverse=True)[1].reshape(-1), center)

    @property
    def num_runs(self) -> int:
        return int(self.run.max()) + 1

    def problem(self, num_starts: int, options: _Options, *, excess: bool) -> Problem:
        """The fit to the table itself, from so many starts."""
        every = (num_starts, self.run.size)
        losses = np.broadcast_to(self.rows.loss, every)
        return huber_problem(self.rows, np.ones(every), losses, options.delta, excess=excess)

    def parameters(self, theta: Floats) -> Floats:
        """[..., 7] in the order of NAMES."""
        log_a, alpha, log_b, beta, log_e, x_d, x_n = np.moveaxis(theta, -1, 0)
        A, B = np.exp(log_a + alpha * self.center[0]), np.exp(log_b + beta * self.center[1])
        # A decay too slow to change any loss by rounding is none.
        x_d = np.where(x_d * self.rows.repeats.max() < _NO_DECAY, 0.0, x_d)
        return np.stack([np.exp(log_e), A, alpha, B, beta, x_d, x_n], axis=-1)


_NO_DECAY = 1e-9


def _fit_group(group: str, table: RunTable, options: _Options, seed: int) -> RepeatedFit:
    data = _Data.of(table, options.size)
    starts = _projected_starts(data, options)
    found = _descend_from(data, starts, options, excess=False)
    excess = options.excess_params
    if excess is not False:
        inverses = np.tile(_EXCESS_STARTS, len(starts))[:, None]
        wider = np.concatenate([np.repeat(starts, len(_EXCESS_STARTS), axis=0)[:, :-1], inverses], axis=-1)
        richer = _descend_from(data, wider, options, excess=True)
        gain = data.num_runs * math.log(max(found.objective, _TINY) / max(richer.objective, _TINY))
        excess = excess or gain > _LIKELIHOOD_RATIO
        found = richer if excess else found
    draws = _draw(data, found.theta, options, seed, excess=excess)
    names = NAMES if excess else NAMES[:-1]
    parameters: dict[str, float] = dict(zip(names, data.parameters(found.theta).tolist(), strict=False))
    certificate = found.certificate(parameters, data)
    return RepeatedFit(
        group=group,
        size=options.size,
        parameters=parameters,
        intervals={name: _interval(draws[:, index]) for index, name in enumerate(names)},
        certificate=certificate,
        draws=draws,
        flags=_flags(data, certificate, draws),
    )


_EXCESS_STARTS = np.array([0.02, 0.3])
_TINY = 1e-25
"""Objectives below are rounding."""
_LIKELIHOOD_RATIO = 3.841
"""95 % quantile of chi-squared with one degree of freedom."""


class _Found(NamedTuple):
    """The best of all starts."""

    theta: Floats
    objective: float
    gradient_norm: float
    agreeing: int
    num_starts: int

    def certificate(self, parameters: Mapping[str, float], data: _Data) -> Certificate:
        least = {"E": 1e-6 * math.exp(data.rows.loss.min()), "alpha": LEAST_EXPONENT, "beta": LEAST_EXPONENT}
        active = tuple(name for name, value in parameters.items() if value <= least.get(name, 0.0))
        return Certificate(self.objective, self.gradient_norm, self.agreeing, self.num_starts, active)


def _descend_from(data: _Data, starts: Floats, options: _Options, *, excess: bool) -> _Found:
    problem = data.problem(len(starts), options, excess=excess)
    theta, objective = descend(problem, starts)
    best = int(np.argmin(objective))
    gradient = projected_gradient(problem, theta)[best]
    return _Found(
        theta=theta[best],
        objective=float(objective[best]),
        gradient_norm=float(np.linalg.norm(gradient)) / data.run.size,
        agreeing=int((objective <= objective[best] * (1 + 1e-6) + 1e-15).sum()),
        num_starts=len(starts),
    )


_EXPONENTS = np.geomspace(0.05, 1.5, 9)
_INVERSES = np.array([0.0, 0.003, 0.03, 0.1, 0.3, 1.0])
_NUM_STARTS = 12


def _projected_starts(data: _Data, options: _Options) -> Floats:
    """The best starts [S, 7] of a grid: for given exponents and 1 / R_D*, E, A and B are a linear problem in L / L."""
    alpha, beta, inverse = (
        grid.ravel()[:, None] for grid in np.meshgrid(_EXPONENTS, _EXPONENTS, _INVERSES, indexing="ij")
    )
    rows = data.rows
    tokens = rows.unique + np.log1p(decayed(rows.repeats, inverse))
    columns = [np.exp(-alpha * rows.size), np.exp(-beta * tokens), np.ones_like(tokens)]
    basis = np.stack(columns, axis=-1) / np.exp(rows.loss)[:, None]
    normal = basis.swapaxes(1, 2) @ basis
    linear = np.linalg.solve(normal + 1e-12 * np.eye(3), basis.sum(1)[..., None])[..., 0]
    floor = 1e-3 * math.exp(rows.loss.min())
    log_a, log_b, log_e = (np.log(np.maximum(linear[:, [index]], floor)) for index in range(3))
    starts = np.concatenate([log_a, alpha, log_b, beta, log_e, inverse, np.zeros_like(inverse)], axis=-1)
    problem = data.problem(len(starts), options, excess=False)
    return starts[np.argsort(problem.objective(starts, np.arange(len(starts))))[:_NUM_STARTS]]


_CHUNK = 2**16
"""Rows of draws refitted at once: what stays in the processor's cache."""


def _draw(data: _Data, theta: Floats, options: _Options, seed: int, *, excess: bool) -> Floats:
    """Parameters [S, 7] of refits to drawn tables; none where too few runs tell how they differ."""
    log_loss, slopes = (part[0] for part in log_slopes(data.rows, theta[None]))
    known = slopes.T if excess else slopes.T[:-1]
    drawn = redraw(
        data.rows.loss, known, data.rows.loss - log_loss, data.run,
        delta=options.delta, num_draws=options.num_draws, seed=seed,
    ) if options.num_draws else None  # fmt: skip
    if drawn is None:
        return np.empty((0, len(NAMES)))
    parts = []
    for index in np.array_split(np.arange(options.num_draws), max(1, drawn.weights.size // _CHUNK)):
        problem = huber_problem(data.rows, drawn.weights[index], drawn.log_loss[index], options.delta, excess=excess)
        parts.append(descend(problem, np.tile(theta, (index.size, 1)))[0])
    estimate, refits = data.parameters(theta), data.parameters(np.concatenate(parts))
    widened = [drawn.widen(name, refits[:, index], float(estimate[index])) for index, name in enumerate(NAMES)]
    return np.stack(widened, axis=-1)


def _interval(draws: Floats) -> tuple[float, float] | None:
    return percentile_interval(draws) if np.isfinite(draws).sum() > 1 else None


def _flags(data: _Data, certificate: Certificate, draws: Floats) -> tuple[str, ...]:
    at_bound = float((draws[:, 5] <= 0).mean()) if len(draws) else 0.0
    raised = {
        "no decay: repeats are worth as much as new tokens, R_D* is infinite": "inverse_R_D"
        in certificate.active_bounds,
        f"{at_bound:.0%} of the draws find no decay: R_D* has no upper end": at_bound > (1 - LEVEL) / 2,
        f"at its bound: {', '.join(certificate.active_bounds)}": certificate.active_bounds,
        f"most repeats are {data.rows.repeats.max():.2g}: the decay is hardly seen": data.rows.repeats.max() < 1,
        f"only {data.num_runs} runs": data.num_runs < MIN_ROWS,
        "no interval: too few runs to tell how they differ": not len(draws),
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)


def why_no_law(rows: RunTable, size: Size = "params") -> str | None:
    """What the rows of one group lack for a law of repeated data; None where they carry one."""
    if not rows.repeats.any():
        return "no run repeats its data (tokens > unique tokens); fit the surface instead"
    if rows.loss.size < MIN_ROWS:
        return f"7 unknowns need at least {MIN_ROWS} rows, got {rows.loss.size}"
    for name in (size, "tokens"):
        distinct = np.unique(getattr(rows, name)).size
        if distinct < 3:
            return f"the law needs at least 3 distinct {name}, got {distinct}; add runs"
    return None


def _inverse(value: float) -> float | None:
    return 1.0 / value if value > 0 else None
