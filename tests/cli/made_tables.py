"""Small tables of runs for every method of `noiselaw laws`, as rows, and files of them in every format."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rows = list[dict]
TRUTH = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}
BUDGETS = (1e17, 3e17, 1e18, 3e18, 1e21)
"""The optimum of the last lies above the largest size."""
CROSSING = 1e19
LEVELS = (1e8, 3e8, 1e9, 3e9, 1e10)
FACTOR = 1.0245


def surface(params, tokens):
    return TRUTH["E"] + TRUTH["A"] * params ** -TRUTH["alpha"] + TRUTH["B"] * tokens ** -TRUTH["beta"]


def luck(rows: Rows, of=id, scatter=0.003) -> Rows:
    """The rows with one random factor on the losses of all that are alike in `of`."""
    generator, factors = np.random.default_rng(0), {}
    for row in rows:
        factor = factors.setdefault(of(row), math.exp(scatter * generator.standard_normal()))
        row["loss"] = float(row["loss"] * factor)
    return rows


def isoflop_rows(tilts=(("masked", -0.05), ("uniform", -0.06))) -> Rows:
    rows = []
    for noise, exponent in tilts:
        for budget in BUDGETS:
            for params in np.geomspace(2e7, 1e9, 7).tolist():
                best = 0.1 * budget**0.5
                loss = 20.0 * CROSSING**-0.05 * (budget / CROSSING) ** exponent
                loss *= math.exp(0.02 * math.log(params / best) ** 2)
                rows.append({"noise": noise, "params": params, "tokens": budget / 6 / params, "loss": loss})
    return luck(rows)


def surface_rows() -> Rows:
    return luck([
        {"params": params, "tokens": tokens, "loss": surface(params, tokens)}
        for params in np.geomspace(1e7, 1e10, 8).tolist()
        for tokens in np.geomspace(1e9, 1e12, 8).tolist()
    ])  # fmt: skip


def frontier_rows() -> Rows:
    return luck([
        {"run": f"run-{index}", "params": params, "tokens": tokens, "loss": surface(params, tokens)}
        for index, params in enumerate(np.geomspace(1e7, 1e9, 8).tolist())
        for tokens in np.geomspace(params / 3, 60 * params, 12).tolist()
    ], of=lambda row: row["run"])  # fmt: skip


def tokens_rows(groups=("all",)) -> Rows:
    """The best size at the last level lies above the largest."""
    rows = []
    for index, group in enumerate(groups):
        for tokens in LEVELS:
            for params in np.geomspace(1e6, 1.5e7, 6).tolist():
                tilt = (tokens / 1e9) ** (-0.02 * index)
                loss = 12.0 * tokens**-0.08 * tilt * math.exp(0.02 * math.log(params / (300 * tokens**0.5)) ** 2)
                rows.append({"noise": group, "params": params, "tokens": tokens, "loss": loss})
    return luck(rows)


def repeated_rows(decays=(("all", 15.0),)) -> Rows:
    rows = []
    for index, (group, decay) in enumerate(decays):
        for params in np.geomspace(1e7, 1e9, 4).tolist():
            for stock in (1e8, 1e9, 1e10):
                for epochs in (1, 2, 5, 20, 60):
                    effective = stock * (1 - decay * math.expm1(-(epochs - 1) / decay))
                    loss = 1.8 + 0.05 * index + 400 * params**-0.34 + 900 * effective**-0.3
                    rows.append({
                        "noise": group, "params": params, "tokens": stock * epochs, "unique_tokens": stock,
                        "loss": loss,
                    })  # fmt: skip
    return luck(rows, scatter=0.001)


def hyperparameters_rows() -> Rows:
    """Log L is a parabola of log B about B*(D), and of log eta about 0.01 B^0.3."""
    rows = []
    for batch in (2.0 ** np.arange(12, 18)).tolist():
        for step in range(-2, 3):
            rate = 0.01 * batch**0.3 * 2.0**step
            for tokens in np.geomspace(2e8, 6e9, 8).tolist():
                miss = math.log(batch / (0.5 * tokens**0.5)) ** 2
                loss = 30 * tokens**-0.1 * math.exp(0.01 * miss + 0.02 * (step * math.log(2)) ** 2)
                rows.append({"params": 1e7, "tokens": tokens, "batch_tokens": batch, "lr": rate, "loss": loss})
    return luck(rows, of=lambda row: (row["batch_tokens"], row["lr"]))


def cooldown_rows() -> Rows:
    """Annealed 5 % behind the reading at 2e9 tokens."""
    rows = []
    for params in np.geomspace(1e7, 1e8, 6).tolist():
        rows += [
            {"run": f"{params:.0f}", "params": params, "tokens": tokens, "loss": surface(params, tokens), "cooldown": 0}
            for tokens in (1e9, 2e9, 4e9)
        ]
        annealed = surface(params, 2.1e9) / FACTOR
        rows.append({"run": f"{params:.0f}c", "params": params, "tokens": 2.1e9, "loss": annealed, "cooldown": 1})
    return luck(rows, scatter=0.001)


def cross_rows() -> Rows:
    return isoflop_rows((("masked", -0.05), ("balanced", -0.055), ("uniform", -0.06)))


ROWS: dict[str, Callable[[], Rows]] = {
    "isoflop": isoflop_rows,
    "surface": surface_rows,
    "frontier": frontier_rows,
    "tokens": tokens_rows,
    "hyperparameters": hyperparameters_rows,
    "cooldown": cooldown_rows,
    "cross": cross_rows,
}
"""By method."""


def write_rows(path: Path, rows: Rows) -> Path:
    """In the format that the ending of the name says; csv.DictWriter's rules for fields that rows lack."""
    FORMATS[path.suffix](path, rows)
    return path


def _delimited(delimiter: str) -> Callable[[Path, Rows], None]:
    def write(path: Path, rows: Rows) -> None:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)

    return write


def _parquet(path: Path, rows: Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


FORMATS: dict[str, Callable[[Path, Rows], None]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows)) + "\n") and None,
    ".json": lambda path, rows: path.write_text(json.dumps(rows)) and None,
    ".parquet": _parquet,
}
