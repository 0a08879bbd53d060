"""The curves that scaling laws are made of, and their exact least-squares fits.

Every fit here is closed form and works along the last axis: y[..., n] and weights[..., n] broadcast against each other
and against x, so thousands of bootstrap refits are one call. Legend: n points of one fit.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = coefficient * x ** exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x: ArrayLike) -> Floats:
        return self.coefficient * np.asarray(x, float) ** self.exponent

    def inverse(self, y: float) -> float:
        """The x at which the law reaches y."""
        return (y / self.coefficient) ** (1.0 / self.exponent)

    @classmethod
    def fit(cls, x: ArrayLike, y: ArrayLike, weights: ArrayLike = 1.0) -> "PowerLaw":
        """Least squares of log y on log x. Raises ValueError for values that are not positive and finite."""
        lines = fit_lines(_log(x, "x"), _log(y, "y"), weights)
        return cls(math.exp(lines.intercept), float(lines.slope))


@dataclass(frozen=True, slots=True)
class SaturatingCurve:
    """L(t) = floor + amplitude * t ** -decay: the shape of one run's loss (spec section 7, step 1)."""

    floor: float
    amplitude: float
    decay: float

    def __call__(self, t: ArrayLike) -> Floats:
        return self.floor + self.amplitude * np.asarray(t, float) ** -self.decay

    @classmethod
    def fit(cls, t: ArrayLike, loss: ArrayLike) -> "SaturatingCurve":
        """See `fit_saturating_curves`, of which this is one."""
        return fit_saturating_curves(np.atleast_2d(np.asarray(t, float)), np.atleast_2d(np.asarray(loss, float)))[0]


def fit_saturating_curves(t: ArrayLike, loss: ArrayLike) -> "list[SaturatingCurve]":
    """Robust least squares of relative residuals, one curve per row of t and loss [N, n], by variable projection:
    search the decay, solve the rest exactly.

    Needs at least four points. Outliers beyond three robust standard deviations count by their distance, not its square
    (iterated weights). Raises ValueError for values that are not positive and finite.
    """
    log_t, values = _log(t, "t"), np.exp(_log(loss, "loss"))
    if log_t.shape[-1] < 4:
        raise ValueError(f"a saturating curve has 3 parameters and needs at least 4 points, got {log_t.shape[-1]}")
    center = log_t.mean(-1, keepdims=True)
    weights = values**-2.0
    decay, lines = _project_decay(log_t - center, values, weights)
    for _ in range(_ROBUST_ROUNDS):
        basis = np.exp(-decay[:, None] * (log_t - center))
        residuals = 1.0 - Lines(*(part[:, None] for part in lines)).at(basis) / values
        spread = MAD_TO_DEVIATION * np.median(np.abs(residuals), axis=-1, keepdims=True)
        decay, lines = _project_decay(log_t - center, values, weights * huber_weights(residuals, 3.0 * spread))
    amplitude = lines.slope * np.exp(decay * center[:, 0])
    columns = zip(lines.intercept.tolist(), amplitude.tolist(), decay.tolist(), strict=True)
    return [SaturatingCurve(*numbers) for numbers in columns]


class Lines(NamedTuple):
    """y = intercept + slope * x, one line per leading index."""

    intercept: Floats
    slope: Floats

    def at(self, x: Floats | float) -> Floats:
        return self.intercept + self.slope * x


class Parabolas(NamedTuple):
    """y = c0 + c1 (x - center) + c2 (x - center)**2, one parabola per leading index."""

    center: Floats
    c0: Floats
    c1: Floats
    c2: Floats

    def at(self, x: Floats | float) -> Floats:
        u = x - self.center
        return self.c0 + u * (self.c1 + u * self.c2)

    @property
    def vertex(self) -> Floats:
        """Where the parabola is lowest (c2 > 0) or highest; NaN or infinite where it is a line."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.center - self.c1 / (2.0 * self.c2)

    @property
    def coefficients(self) -> tuple[Floats, Floats, Floats]:
        """(a0, a1, a2) of y = a0 + a1 x + a2 x**2 about x = 0."""
        m = self.center
        return self.c0 - m * (self.c1 - m * self.c2), self.c1 - 2.0 * m * self.c2, self.c2


def fit_lines(x: ArrayLike, y: ArrayLike, weights: ArrayLike = 1.0) -> Lines:
    """Exact weighted least squares along the last axis.

    With the weighted means taken off, slope = sum(w x y) / sum(w x**2). A point of weight zero takes no part, whatever
    its value. Fits with fewer than two distinct x give NaN.
    """
    x, y, w = _spread(x, y, weights)
    total = w.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x_mean, y_mean = (w * x).sum(-1, keepdims=True) / total, (w * y).sum(-1, keepdims=True) / total
        u = x - x_mean
        slope = (w * u * (y - y_mean)).sum(-1) / (w * u**2).sum(-1)
    return Lines(y_mean[..., 0] - slope * x_mean[..., 0], slope)


def fit_parabolas(x: ArrayLike, y: ArrayLike, weights: ArrayLike = 1.0) -> Parabolas:
    """Exact weighted least squares along the last axis, on a basis orthogonal for the weights at hand.

    With u = x - mean(x) and v = u**2 - b u - mean(u**2), b = sum(w u**3) / sum(w u**2), the three sums decouple. A
    point of weight zero takes no part. Fits with fewer than three distinct x give NaN.
    """
    x, y, w = _spread(x, y, weights)
    total = w.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        center, y_mean = (w * x).sum(-1, keepdims=True) / total, (w * y).sum(-1, keepdims=True) / total
        u = x - center
        u2 = (w * u**2).sum(-1, keepdims=True)
        b, c = (w * u**3).sum(-1, keepdims=True) / u2, u2 / total
        v = u**2 - b * u - c
        v2 = (w * v**2).sum(-1)
        # Three points leave rounding noise here when only two of their x differ.
        curvature = np.where(v2 > 1e-20 * (w * u**4).sum(-1), (w * v * (y - y_mean)).sum(-1) / v2, np.nan)
        slope = (w * u * (y - y_mean)).sum(-1) / u2[..., 0]
    return Parabolas(center[..., 0], y_mean[..., 0] - curvature * c[..., 0], slope - curvature * b[..., 0], curvature)


def shifted_parabolas(x: ArrayLike, y: ArrayLike, weights: ArrayLike, shifts: Floats) -> Parabolas:
    """`fit_parabolas` to y [K, n] moved by every row of `shifts` [S, n]: [S, K], without ever holding S * K * n values.

    Coefficients are linear in y, so that what each point's shift adds to them is found once.
    """
    base = fit_parabolas(x, y, weights)
    x, _, w = _spread(x, y, weights)
    total, u = w.sum(-1, keepdims=True), x - base.center[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        u2 = (w * u**2).sum(-1, keepdims=True)
        b, c = (w * u**3).sum(-1, keepdims=True) / u2, u2 / total
        v = u**2 - b * u - c
        curvature = (w * v - w * (w * v).sum(-1, keepdims=True) / total) / (w * v**2).sum(-1, keepdims=True)
        slope = (w * u - w * (w * u).sum(-1, keepdims=True) / total) / u2
        each = w / total - curvature * c, slope - curvature * b, curvature
    c0, c1, c2 = (part + shifts @ added.T for part, added in zip(base[1:], each, strict=True))
    return Parabolas(base.center, c0, c1, c2)


def huber_weights(residuals: Floats, delta: Floats | float) -> Floats:
    """rho'(r) / r of Huber's loss: 1 up to delta, delta / |r| beyond."""
    size = np.abs(residuals)
    return np.where(size <= delta, 1.0, delta / np.maximum(size, np.finfo(float).tiny))


_ROBUST_ROUNDS = 3
MAD_TO_DEVIATION = 1.4826
"""Standard deviation over median absolute deviation, for normal errors."""
_DECAYS = np.geomspace(1e-3, 5.0, 40)


def _project_decay(log_t: Floats, values: Floats, weights: Floats) -> tuple[Floats, Lines]:
    """For every row of [N, n] the decay [N] whose best line in t ** -decay misses least: a grid, refined between the
    best one's neighbours, until each row's is known to eight digits.
    """
    decays, intercepts, slopes = (np.empty(len(log_t)) for _ in range(3))
    grid, rows = np.broadcast_to(_DECAYS, (len(log_t), _DECAYS.size)), np.arange(len(log_t))
    while rows.size:
        y, w = values[rows, None], weights[rows, None]
        basis = np.exp(-grid[..., None] * log_t[rows, None])
        lines = fit_lines(basis, y, w)
        misfit = (w * (y - Lines(*(part[..., None] for part in lines)).at(basis)) ** 2).sum(-1)
        best, row = misfit.argmin(-1), np.arange(rows.size)
        decays[rows], intercepts[rows], slopes[rows] = (part[row, best] for part in (grid, *lines))
        low, high = grid[row, np.maximum(best - 1, 0)], grid[row, np.minimum(best + 1, grid.shape[1] - 1)]
        wide = high - low > 1e-8 * high
        rows, grid = rows[wide], np.linspace(low[wide], high[wide], 21, axis=-1)
    return decays, Lines(intercepts, slopes)


def _log(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, float)
    bad = array[~(np.isfinite(array) & (array > 0))]
    if bad.size:
        raise ValueError(f"{name} holds {bad.flat[0]}; logarithms need positive, finite values: drop those rows")
    return np.log(array)


def _spread(x: ArrayLike, y: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Broadcast, and make points of weight zero harmless whatever their value (NaN among them)."""
    x, y, w = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(weights, float))
    used = w > 0
    return np.where(used, x, 0.0), np.where(used, y, 0.0), w
