"""Run folders -> tables: one row per validation of every run, one row per run's throughput."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from noiselaw.files import read_json, write_atomically
from noiselaw.laws.isoflop import LossCurve
from noiselaw.metrics import read_kind, read_latest
from noiselaw.study.design import PlannedRun


def curve_rows(runs: Sequence[PlannedRun]) -> pl.DataFrame:
    """One row per validation of every run that has any: sizes, tokens, FLOPs, loss in nats per token.

    `unique_tokens` are the different ones among the tokens so far: all of them in a run on fresh data.
    """
    return pl.DataFrame([row for run in runs for row in _curve_rows(run)], infer_schema_length=None)


def throughput_rows(runs: Sequence[PlannedRun]) -> pl.DataFrame:
    """One row per run: tokens and model FLOPs (head included) per second, share of the measured matmul peak."""
    rows = []
    for run in runs:
        speed = read_latest(run.folder / "metrics.jsonl").get("speed")
        if speed is not None:
            keys = ("tokens_per_second", "model_flops_per_second", "share_of_matmul_peak", "seconds")
            rows.append(_label(run) | {key: speed[key] for key in keys})
    return pl.DataFrame(rows, infer_schema_length=None)


def loss_curves(runs: Sequence[PlannedRun]) -> list[LossCurve]:
    """The validation curves of `runs`, as the laws read them."""
    curves = []
    for run in runs:
        rows = read_kind(run.folder / "metrics.jsonl", "validation")
        curves.append(
            LossCurve(
                run=run.spec.name,
                group=run.group,
                params=run.non_embedding_parameters,
                flops_per_token=run.flops_per_token,
                tokens=np.array([row["tokens"] for row in rows], float),
                loss=np.array([row["loss"] for row in rows], float),
            )
        )
    return curves


def machine_facts(runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """What the runs' records say of the machine; the matmul rate is that of one run's share of it."""
    for run in runs:
        path = run.folder / "run.json"
        if path.exists():
            return read_json(path)["machine"]
    return {}


def write_csv(table: pl.DataFrame, path: Path) -> None:
    """Write a table atomically."""
    text = io.BytesIO()
    table.write_csv(text)
    write_atomically(path, lambda stream: stream.write(text.getvalue()))


def _label(run: PlannedRun) -> dict[str, Any]:
    model = run.spec.model
    return {
        "run": run.spec.name,
        "group": run.group,
        "role": run.role,
        "layers": model.num_layers,
        "width": model.width,
    }


def _curve_rows(run: PlannedRun) -> list[dict[str, Any]]:
    keys = ("step", "tokens", "flops", "loss", "standard_error", "bits_per_byte")
    label = _label(run) | {
        "seed": run.spec.seed,
        "heads": run.spec.model.num_heads,
        "params": run.non_embedding_parameters,
        "flops_per_token": run.flops_per_token,
        "batch_tokens": run.spec.tokens_per_step,
        "learning_rate": run.spec.optimizer.learning_rate,
    }
    # Runs of earlier releases do not say how many tokens differ: they all do.
    return [
        label | {key: row[key] for key in keys} | {"unique_tokens": row.get("unique_tokens", row["tokens"])}
        for row in read_kind(run.folder / "metrics.jsonl", "validation")
    ]
