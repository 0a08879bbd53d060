"""Small tables of runs with known laws, one for every method of `noiselaw laws`, and what the methods find in them."""

import math

import numpy as np

from noiselaw.laws.cooldown import fit_cooldown
from noiselaw.laws.crossing import find_crossings
from noiselaw.laws.curves import tabulate_points
from noiselaw.laws.frontier import fit_frontier
from noiselaw.laws.hyperparameters import fit_hyperparameters
from noiselaw.laws.isoflop import fit_tables
from noiselaw.laws.record import to_json
from noiselaw.laws.surface import fit_surface
from noiselaw.laws.table import RunTable
from noiselaw.laws.tokens import fit_tokens

GROUPS = {"masked": (1.3, 30.0), "uniform": (1.25, 34.0)}
"""E and A of each group's surface."""
BUDGETS = np.geomspace(1e13, 1e15, 5)
DRAWS = 100


def loss_of(group, params, tokens):
    floor, scale = GROUPS[group]
    return floor + scale * params**-0.3 + 60.0 * tokens**-0.28


def table_of(rows, **columns) -> RunTable:
    """From rows of (group, run, params, tokens, loss); C = 6 P D."""
    group, run, params, tokens, loss = (np.array(column) for column in zip(*rows, strict=True))
    return RunTable(group, run, loss, params, tokens, 6 * params * tokens, 6 * params, "6P", **columns)


def grid_table() -> RunTable:
    """Six sizes at every budget, a curve per size; the optimum of the smallest budget lies below them."""
    rows = []
    for group in GROUPS:
        for params in np.geomspace(3.5e5, 1e7, 6):
            for budget in BUDGETS:
                tokens = budget / 6 / params
                rows.append((group, f"{group}-{params:.0f}", params, tokens, loss_of(group, params, tokens)))
    return table_of(rows)


def tuned_table() -> RunTable:
    """Batches and rates around laws B* = 2 D^0.5 and eta* = 0.01 B^0.3."""
    rows, batches, rates = [], [], []
    for params in (1e6, 4e6):
        for batch in 2.0 ** np.arange(11, 17):
            for rate in 0.02 * 2.0 ** np.arange(1, 7):
                for tokens in np.geomspace(2e7, 2e9, 8):
                    off = 0.01 * math.log(batch / (2 * tokens**0.5)) ** 2
                    off += 0.02 * math.log(rate / (0.01 * batch**0.3)) ** 2
                    loss = loss_of("masked", params, tokens) * math.exp(off)
                    rows.append(("masked", f"{params}-{batch}-{rate}", params, tokens, loss))
                    batches.append(batch)
                    rates.append(rate)
    return table_of(rows, batch_tokens=np.array(batches), learning_rate=np.array(rates))


def annealed_table() -> RunTable:
    """Pairs of runs with and without a cooldown."""
    rows, annealed = [], []
    for group, factor in (("masked", 1.02), ("uniform", 1.03)):
        for index, params in enumerate(np.geomspace(1e6, 1e7, 4)):
            loss = loss_of(group, params, 20 * params)
            wobble = math.exp(1e-3 * (-1) ** index)
            rows += [
                (group, f"{group}-{index}", params, 20 * params, loss),
                (group, f"{group}-{index}-cooled", params, 20 * params, loss / factor * wobble),
            ]
            annealed += [False, True]
    return table_of(rows, cooldown=np.array(annealed))


def repeating_table() -> RunTable:
    """Unique tokens passed over up to 16 times."""
    rows, unique = [], []
    for group in GROUPS:
        for params in (1e6, 4e6):
            for epochs in (1.0, 4.0, 16.0):
                rows.append((group, f"{group}-{params}-{epochs}", params, 1e7 * epochs, 3.0 - 0.1 * math.log(epochs)))
                unique.append(1e7)
    return table_of(rows, unique_tokens=np.array(unique))


def repeated_record() -> dict:
    """Of `tokens` where unique tokens were given: masked repeats decay, uniform ones do not."""
    parameters = {"E": 1.5, "A": 30.0, "alpha": 0.3, "B": 60.0, "beta": 0.3}
    bare = {"laws": {}, "optima": [], "points": [], "flags": []}
    decay = {"masked": {"inverse_R_D": 0.1, "R_D": 10.0}, "uniform": {"inverse_R_D": 0.0, "R_D": None}}
    repeated = {name: {"size": "params", "parameters": parameters | values} for name, values in decay.items()}
    return {"groups": {name: bare | {"repeated": repeated[name]} for name in GROUPS}}


def isoflop_record(table: RunTable) -> dict:
    points = tabulate_points(
        group=table.group.tolist(), params=table.params, flops_per_token=table.flops_per_token,
        flops=table.flops.round(-9), loss=table.loss, run=table.run.tolist(),
    )  # fmt: skip
    return to_json(fit_tables(points, num_draws=DRAWS), "6P")


def surface_record(table: RunTable) -> dict:
    names = ("E", "A", "alpha", "B", "beta")
    fits = {name: fit_surface(rows.params, rows.tokens, rows.loss) for name, rows in table.groups()}
    groups = {name: {"parameters": {key: getattr(fit, key) for key in names}} for name, fit in fits.items()}
    return {"groups": {name: record | {"size": "params"} for name, record in groups.items()}}


def record_of(fits) -> dict:
    return {"groups": {name: fit.record() for name, fit in fits.items()}}


METHODS = {
    "isoflop": (grid_table, isoflop_record),
    "surface": (grid_table, surface_record),
    "frontier": (grid_table, lambda table: record_of(fit_frontier(table, num_draws=DRAWS))),
    "tokens": (grid_table, lambda table: record_of(fit_tokens(table, num_draws=DRAWS))),
    "hyperparameters": (tuned_table, lambda table: record_of(fit_hyperparameters(table, num_draws=DRAWS))),
    "cooldown": (annealed_table, lambda table: record_of(fit_cooldown(table))),
    "cross": (grid_table, lambda table: record_of(find_crossings(table, num_draws=DRAWS))),
}
"""Per method its table and what it finds there."""
