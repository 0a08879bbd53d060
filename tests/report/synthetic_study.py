"""A study folder from a known surface L = E + A P^-alpha + B D^-beta per group, with seeded luck for every run."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noiselaw.laws.curves import LossCurve
from noiselaw.laws.datalaws import fit_data_laws
from noiselaw.laws.isoflop import IsoflopFit, fit_isoflop
from noiselaw.laws.prediction import predict_loss
from noiselaw.laws.read import read_table
from noiselaw.laws.record import law_object, to_json

SIZES = {2: 64, 3: 96, 4: 160, 6: 256}
"""Layers -> width."""
BUDGETS = (1e14, 3e14, 1e15, 3e15)
MACHINE = {
    "device": "Test CPU", "num_cores": 2, "num_threads": 1, "torch": "2.11.0", "matmul_flops_per_second": 71.5e9,
}  # fmt: skip
SURFACES = {
    "masked": (0.40, 29.0, 0.26, 180.0, 0.26),
    "balanced": (0.40, 29.3, 0.26, 184.0, 0.26),
    "uniform": (0.40, 29.6, 0.26, 189.0, 0.26),
    "autoregressive": (0.30, 25.0, 0.26, 150.0, 0.26),
}
STAGES = ("study.json", "curves.csv", "throughput.csv", "laws.json", "prediction.json", "confirmation.json")


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int

    @property
    def params(self) -> int:
        return 12 * self.layers * self.width**2

    @property
    def flops_per_token(self) -> float:
        return 6.0 * self.params + 12 * self.layers * self.width * 256


REPEATS = 5.0
"""R*: after so many repeats their value has decayed by 1 / e."""
LARGE = Shape(5, 160)
"""The confirming runs'."""


def write_study(
    folder: Path,
    *,
    stages: tuple[str, ...] = STAGES,
    names: dict[str, str] | None = None,
    unique_tokens: int | None = None,
) -> Path:
    """Write the named files; `names` renames groups (hostile names). Returns `folder`.

    With `unique_tokens` the runs of two groups are there again on so many tokens, and token_laws.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = names or {}
    surfaces = {names.get(group, group): surface for group, surface in SURFACES.items()}
    rng = np.random.default_rng(7)
    runs = [_run(group, Shape(*shape), surface, rng) for group, surface in surfaces.items() for shape in SIZES.items()]
    fits = _fit(runs)
    repeated = [
        _run(group, Shape(*shape), surfaces[group], rng, unique=unique_tokens)
        for group in list(surfaces)[:2]
        for shape in SIZES.items()
        if unique_tokens is not None
    ]
    predictions = {group: _prediction(fits[group]) for group in list(surfaces)[::3]}
    confirming = [_run(group, LARGE, surfaces[group], rng, seed) for group in predictions for seed in range(3)]
    everything = {
        "study.json": _facts(list(surfaces)),
        "curves.csv": [row for run in (*runs, *repeated, *confirming) for row in run],
        "throughput.csv": [_throughput(run, rng) for run in (*runs, *repeated, *confirming)],
        "laws.json": to_json(fits, "6P+attention"),
        "prediction.json": {"written_at": "2026-03-01T10:11:12+00:00", "groups": predictions},
        "confirmation.json": {
            "groups": {group: _confirmation(group, plan, confirming) for group, plan in predictions.items()}
        },
    }
    for stage in stages:
        _write(folder / stage, everything[stage])
    if repeated:
        table = read_table(folder, repeated=True)
        laws = fit_data_laws(table, num_draws=50, repeated_draws=20)
        _write(folder / "token_laws.json", law_object("tokens", table, laws.groups))
    return folder


def read(folder: Path, name: str):
    return json.loads((folder / name).read_text())


def _write(path: Path, value) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(value))
        return
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(value[0]))
        writer.writeheader()
        writer.writerows(value)


def _facts(groups: list[str]) -> dict:
    return {
        "name": "laptop",
        "created": "2026-03-01",
        "machine": MACHINE,
        "groups": groups,
        "budgets": list(BUDGETS),
        "flops_convention": "6P+attention",
        "sequence_length": 256,
        "elapsed_seconds": {"data": 20.0, "grid": 600.0, "confirmation": 180.0, "total": 800.0},
        "data": {"source": "python", "vocab_size": 2048, "train_tokens": 9_000_000, "bytes_per_token": 3.1},
    }  # fmt: skip


def loss_of(surface, params: float, tokens: float) -> float:
    floor, a, alpha, b, beta = surface
    return floor + a * params**-alpha + b * tokens**-beta


def fresh_tokens(tokens: float, unique: float) -> float:
    """What `tokens` of which so many are unique are worth."""
    repeats = max(tokens / unique - 1, 0.0)
    return min(tokens, unique) * (1 - REPEATS * math.expm1(-repeats / REPEATS))


def _row(group: str, role: str, shape: Shape, seed: int, *, step: int, loss: float, unique: float) -> dict:
    tokens = 4096 * step
    return {
        "run": f"{role}-{group}-{shape.width}-{seed}", "group": group, "role": role, "seed": seed,
        "layers": shape.layers, "width": shape.width, "heads": shape.width // 32, "params": shape.params,
        "flops_per_token": shape.flops_per_token, "batch_tokens": 4096, "learning_rate": 0.3, "step": step,
        "tokens": tokens, "unique_tokens": min(tokens, unique), "flops": shape.flops_per_token * tokens, "loss": loss,
        "standard_error": 0.004, "bits_per_byte": loss / math.log(2) / 3.1,
    }  # fmt: skip


def _run(group: str, shape: Shape, surface, rng, seed: int | None = None, *, unique: int | None = None) -> list[dict]:
    """A run up to the largest budget (with a seed: to the confirmed one), validated at 16 steps, one luck for all."""
    role = "confirmation" if seed is not None else "grid" if unique is None else "repeated"
    stock = math.inf if unique is None else unique
    budget = BUDGETS[-1] if seed is None else 4 * BUDGETS[-1]
    last = budget / shape.flops_per_token / 4096
    luck = 1 + 0.002 * rng.standard_normal()
    return [
        _row(
            group,
            role,
            shape,
            seed or 0,
            step=int(step),
            loss=loss_of(surface, shape.params, fresh_tokens(4096 * step, stock)) * luck,
            unique=stock,
        )
        for step in np.geomspace(last / 60, last, 16).round()
    ]


def _fit(runs: list[list[dict]]) -> dict[str, IsoflopFit]:
    curves = [
        LossCurve(
            run=run[0]["run"],
            group=run[0]["group"],
            params=run[0]["params"],
            flops_per_token=run[0]["flops_per_token"],
            tokens=np.array([row["tokens"] for row in run], float),
            loss=np.array([row["loss"] for row in run]),
        )
        for run in runs
    ]
    return fit_isoflop(curves, BUDGETS, num_draws=500)


def _prediction(fit: IsoflopFit) -> dict:
    flops = 4 * BUDGETS[-1]
    predicted = predict_loss(fit, flops, LARGE.flops_per_token)
    return {
        "flops": flops, "layers": LARGE.layers, "width": LARGE.width, "heads": 5, "params": LARGE.params,
        "flops_per_token": LARGE.flops_per_token, "tokens": flops / LARGE.flops_per_token,
        "loss": {"value": predicted.value, "interval": predicted.interval},
        "surface_loss": {"value": predicted.surface_value, "interval": predicted.surface_interval},
        "extrapolation_factor": predicted.extrapolation_factor,
    }  # fmt: skip


def _confirmation(group: str, plan: dict, confirming: list[list[dict]]) -> list[dict]:
    rows = []
    for run in confirming:
        last = run[-1]
        if last["group"] == group:
            predicted = plan["loss"]["value"]
            rows.append({
                "run": last["run"], "seed": last["seed"], "measured_loss": last["loss"], "standard_error": 0.004,
                "predicted": predicted, "interval": plan["loss"]["interval"],
                "error_percent": 100 * (predicted / last["loss"] - 1),
            })  # fmt: skip
    return rows


def _throughput(run: list[dict], rng) -> dict:
    last = run[-1]
    share = 0.35 + 0.2 * math.log(last["width"] / 64) / math.log(4) + 0.01 * rng.standard_normal()
    speed = share * 71.5e9 / last["flops_per_token"]
    keys = ("run", "group", "role", "layers", "width")
    return {key: last[key] for key in keys} | {
        "tokens_per_second": speed,
        "model_flops_per_second": share * 71.5e9,
        "share_of_matmul_peak": share,
        "seconds": last["tokens"] / speed,
    }
