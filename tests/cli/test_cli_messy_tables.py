"""Tables as other labs publish them, from the file to a plan, without an option."""

import json
import math
import sys

import pytest
from made_tables import frontier_rows, isoflop_rows, surface_rows, write_rows

from noiselaw.cli.main import main


def chinchilla_like():
    """Text with units, FLOPs in scientific notation, numbered rows, a column of remarks."""
    return [
        {
            "": index, "Model Size": f"{row['params'] / 1e6:.1f}M", "loss": f"{row['loss']:.4f}",
            "Training FLOP": f"{6 * row['params'] * row['tokens']:.4e}", "Comment": "" if index % 3 else "restarted",
        }
        for index, row in enumerate(surface_rows())
    ]  # fmt: skip


def around_budgets():
    """Sizes in millions; FLOPs a few percent about budgets that only the names of runs say."""
    return [
        {
            "name": f"budget_{6 * row['params'] * row['tokens']:.0e}/N{row['params'] / 1e6:.0f}M",
            "Model Size (M)": row["params"] / 1e6, "val_loss": row["loss"], "objective": row["noise"],
            "FLOPs budget": 6 * row["params"] * row["tokens"] * (1 + 0.02 * math.sin(index)),
        }
        for index, row in enumerate(isoflop_rows())
    ]  # fmt: skip


def nested_curves():
    """Logs of training: settings nested, tokens in billions."""
    return [
        {
            "config": {"n_params": row["params"], "optimizer": {"lr": 1e-3}}, "tokens_B": row["tokens"] / 1e9,
            "eval/loss": row["loss"], "run_id": row["run"], "step": int(row["tokens"] / 5e5),
        }
        for row in frontier_rows()
    ]  # fmt: skip


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs `noiselaw ...`; returns what it printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["noiselaw", *map(str, words)])
        main()
        return capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("name", "rows", "method", "groups"),
    [
        ("chinchilla.csv", chinchilla_like, "surface", ["all"]),
        ("isoflops.parquet", around_budgets, "isoflop", ["masked", "uniform"]),
        ("curves.jsonl", nested_curves, "frontier", ["all"]),
        ("curves.jsonl", nested_curves, "isoflop", ["all"]),
    ],
)
def test_from_a_published_table_to_a_plan(call, tmp_path, name, rows, method, groups):  # noqa: PLR0917  cases
    table = write_rows(tmp_path / name, rows())
    printed = call("laws", method, table, "--draws", "100", "--json")
    assert "note: loss: column " in printed.err
    laws = tmp_path / "laws.json"
    laws.write_text(printed.out)
    found = json.loads(printed.out)["groups"]
    assert list(found) == groups
    for group in found.values():
        assert 0.4 < group["laws"]["params"]["exponent"] < 0.6
    plans = json.loads(call("plan", "--laws", laws, "--flops", "1e21", "--json").out)["plans"]
    assert [plan["noise"] for plan in plans] == groups
    for plan in plans:
        assert 1.5 < plan["loss"]["value"] < 3
        assert 1e9 < plan["params"] < 1e10


def test_the_last_part_of_a_nested_name_is_guessed(call, tmp_path):
    table = write_rows(tmp_path / "curves.jsonl", nested_curves())
    notes = call("laws", "frontier", table, "--draws", "20", "--json").err
    for note in ("params: column 'config.n_params'", "learning rate: column 'config.optimizer.lr'"):
        assert f"note: {note}" in notes
