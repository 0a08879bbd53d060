"""Bootstrap refits of power laws: all resamples at once, against one scipy `least_squares` call per resample.

And the time of one surface fit to a few hundred points.

The laws are those of the paper's table: L*, D*, M*, P* of five noises, each through the optima of 36 budgets. Both
sides get the same resamples, interleaved in one process, on one core; the resamples themselves are drawn once, and
their time is printed apart. scipy fits every resample of the laws that --scipy-laws names (all 20 take minutes); the
ratio is for those, like for like, and nothing is extrapolated. Prints CPU times, the ratio and the largest difference
of any exponent or log coefficient.

    OMP_NUM_THREADS=1 python benchmarks/bootstrap.py
"""

import time
from collections.abc import Mapping

import numpy as np
import scipy
from harness import Claim, best_seconds, cpu_name, parser, write_claims
from numpy.typing import NDArray
from scipy.optimize import least_squares

from noiselaw.laws.bootstrap import resample_counts, resample_lines
from noiselaw.laws.optima import find_optima
from noiselaw.laws.published import isoflop_tables, load_points
from noiselaw.laws.surface import fit_surface

Floats = NDArray[np.float64]
NUM_BUDGETS = 36


def paper_laws() -> tuple[Floats, dict[str, Floats]]:
    """Log budgets [36] and the log optima [36] of 20 laws by name; budgets of fewer than 3 sizes have none."""
    optima = {}
    for noise, every in isoflop_tables().items():
        table = every.keep(np.isfinite(every.loss).sum(-1) >= 3)
        found, x = find_optima(table, np.log(table.loss)), np.log(table.budgets)
        assert x.size == NUM_BUDGETS
        optima |= {
            f"{noise} L*": found.loss,
            f"{noise} D*": x - found.flops_per_token,
            f"{noise} M*": found.flops_per_token,
            f"{noise} P*": found.params,
        }
    return x, optima


def fit_all(x: Floats, laws: Mapping[str, Floats], counts: Floats) -> Floats:
    """Exponents and log coefficients [2, laws, S] of every resample."""
    lines = resample_lines(x, np.stack(list(laws.values())), counts)
    return np.stack([lines.slope, lines.intercept])


def fit_by_scipy(x: Floats, y: Floats, counts: Floats) -> Floats:
    """The same [2, S] for one law: one `least_squares` per resample, with the exact Jacobian, from the fit to all.

    With the default finite differences scipy is slower and right to 1e-6 only.
    """
    start, found = np.polyfit(x, y, 1), []
    for count in counts:
        rows = np.repeat(np.arange(x.size), count.astype(int))
        jacobian, ys = np.stack([x[rows], np.ones(rows.size)], axis=-1), y[rows]
        residuals = lambda law, jacobian=jacobian, ys=ys: jacobian @ law - ys  # noqa: E731  one line, used once
        found.append(least_squares(residuals, start, jac=lambda _, jacobian=jacobian: jacobian).x)
    return np.array(found).T


def surface_points() -> tuple[Floats, Floats, Floats]:
    """FLOPs per token, tokens and loss [n] of the paper's uniform runs."""
    points = load_points()
    mine = points["noise"] == "uniform"
    return points["flops_per_token"][mine], points["tokens"][mine], points["loss"][mine]


def main() -> None:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--resamples", type=int, default=10_000)
    options.add_argument("--scipy-laws", nargs="+", default=["uniform M*"], help='names such as "masked D*", or all')
    options.add_argument("--rounds", type=int, default=5, help="both sides take turns this often")
    arguments = options.parse_args()
    x, laws = paper_laws()
    names = list(laws) if arguments.scipy_laws == ["all"] else arguments.scipy_laws
    started = time.process_time()
    counts = resample_counts(np.random.default_rng(0), arguments.resamples, x.size)
    drawing = time.process_time() - started
    seconds, difference = {"all": 0.0, "ours": 0.0, "scipy": 0.0}, 0.0
    for part in np.array_split(counts, arguments.rounds):
        for label, chosen in (("all", laws), ("ours", {name: laws[name] for name in names})):
            started = time.process_time()
            ours = fit_all(x, chosen, part)
            seconds[label] += time.process_time() - started
        started = time.process_time()
        theirs = np.stack([fit_by_scipy(x, laws[name], part) for name in names], axis=1)
        seconds["scipy"] += time.process_time() - started
        difference = max(difference, float(np.abs(ours - theirs).max()))
    points = surface_points()
    surface = best_seconds({"surface": lambda: fit_surface(*points)}, 3)["surface"]
    print(f"{cpu_name()}, numpy {np.__version__}, scipy {scipy.__version__}")
    print(f"{arguments.resamples:,} resamples of {x.size} points, drawn in {1e3 * drawing:.0f} ms")
    print(f"ours, {len(laws)} laws: {1e3 * seconds['all']:.0f} ms")
    print(f"ours, {', '.join(names)}: {1e3 * seconds['ours']:.1f} ms")
    print(f"scipy least_squares, {', '.join(names)}: {seconds['scipy']:.2f} s")
    print(f"ratio: {seconds['scipy'] / seconds['ours']:,.0f}")
    print(f"largest difference of an exponent or log coefficient: {difference:.1e}")
    print(f"surface through {points[0].size} points, Huber's loss, certificate and all: {surface:.2f} s")
    claims = [
        Claim(f"{arguments.resamples:,} resamples of {len(laws)} laws: seconds", seconds["all"], 1.0),
        Claim("bootstrap: x one scipy least_squares per resample", seconds["scipy"] / seconds["ours"]),
        Claim("surface fit: seconds", surface, 2.0),
    ]
    write_claims(claims, arguments.claims)


if __name__ == "__main__":
    main()
