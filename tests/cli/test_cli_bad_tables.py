"""Every bad table, given to every method of `noiselaw laws`: one clear line and exit 2, or a flag beside the laws."""

import json
import math
import sys

import pytest
from made_tables import ROWS, write_rows

from noiselaw.cli.main import EXIT_USER_ERROR, main

QUICK = {name: () if name == "cooldown" else ("--draws", "40") for name in ROWS}
"""Cooldown factors draw nothing."""


def exit_code():
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    """What a method says of rows: its flags, or the line it refuses them with."""

    def run(method, rows, *words):
        path = write_rows(tmp_path / "runs.csv", rows)
        command = ["noiselaw", "laws", method, str(path), *QUICK[method], *map(str, words), "--json"]
        monkeypatch.setattr(sys, "argv", command)
        code = exit_code()
        if code:
            assert code == EXIT_USER_ERROR
            printed = capsys.readouterr()
            assert not printed.out
            *notes, line = printed.err.splitlines()
            assert all(note.startswith("note: ") for note in notes)
            return "\n".join([line, *notes])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        groups = json.loads(printed.out)["groups"]
        return "\n".join(flag for group in groups.values() for flag in group["flags"])

    return run


@pytest.mark.parametrize("method", ROWS)
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loss", "nan", "column loss, row 5: no number (NaN or empty)"),
        ("loss", "", "column loss, row 5: no number (NaN or empty)"),
        ("loss", "-2.5", "column loss, row 5: -2.5 is not positive"),
        ("loss", "inf", "column loss, row 5: inf is not positive"),
        ("loss", "diverged", "column loss, row 5: 'diverged' is not a number"),
        ("params", "0", "column params, row 5: 0 is not positive"),
        ("tokens", "-1e9", "column tokens, row 5: -1e+09 is not positive"),
    ],
)
def test_values_that_cannot_be_are_refused_by_row(told, method, column, value, message):
    rows = ROWS[method]()
    rows[4][column] = value
    line = told(method, rows)
    assert line.startswith(f"noiselaw: {message}")
    assert "--where" in line or "drop" in line or "correct" in line


@pytest.mark.parametrize("method", ROWS)
def test_unknown_columns_are_refused_with_the_nearest(told, method):
    assert "--loss 'lossy': no such column; did you mean 'loss'?" in told(method, ROWS[method](), "--loss", "lossy")
    line = told(method, ROWS[method](), "--group", "zzzzzz")
    assert "--group 'zzzzzz': no such column; columns: " in line


ONE_SIZE = {
    "isoflop": "no budgets shared by 3 sizes or more",
    "surface": "no surface: a surface needs at least 3 distinct values of size, got 1",
    "frontier": "no laws: fewer than 2 sizes win",
    "tokens": "no tokens are covered by the curves of 3 sizes",
    "hyperparameters": None,
    "cooldown": "only 1 pairs",
    "cross": "no budgets shared by 3 sizes or more",
}
"""None where one size is enough."""


@pytest.mark.parametrize("method", ROWS)
def test_a_single_size_is_said_so(told, method):
    rows = ROWS[method]()
    size = min(row["params"] for row in rows)
    said = told(method, [row for row in rows if row["params"] == size])
    assert said == "" if ONE_SIZE[method] is None else ONE_SIZE[method] in said


@pytest.mark.parametrize("method", ROWS)
def test_rows_that_repeat_others_exactly_are_left_out_and_flagged(told, method):
    rows = ROWS[method]()
    assert "2 rows of the table repeated others exactly and left out" in told(method, rows + rows[:2])


@pytest.mark.parametrize("method", ROWS)
def test_two_losses_of_one_run_at_one_point_are_refused(told, method):
    rows = [{"run": f"run {index}", **row} for index, row in enumerate(ROWS[method]())]
    if method in ("frontier", "cooldown"):
        rows = ROWS[method]()
    line = told(method, [*rows, {**rows[0], "loss": 1.1 * rows[0]["loss"]}])
    assert f"rows 1 and {len(rows) + 1} give losses" in line
    assert "keep one of them, or name the runs apart" in line


@pytest.mark.parametrize("method", ROWS)
def test_a_loss_below_any_floor_is_flagged(told, method):
    rows = ROWS[method]()
    rows[-1]["loss"] = 0.4
    said = told(method, rows)
    assert f"row {len(rows)}: a loss of 0.4 where the next lowest is " in said
    assert "below any E" in said


@pytest.mark.parametrize("method", ["isoflop", "surface"])
def test_a_loss_below_the_fitted_floor_is_flagged(told, method):
    rows = at_budgets() if method == "isoflop" else ROWS["surface"]()
    rows[-4]["loss"] = 1.6
    assert "losses lie at or below the fitted E = " in told(method, rows)


def at_budgets():
    """A flat surface: its lowest loss is near its floor."""
    rows = []
    for budget in (1e19, 1e20, 1e21, 1e22, 1e23, 1e24):
        for share in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8):
            params = share * math.sqrt(budget / 120)
            tokens = budget / 6 / params
            rows.append({"params": params, "tokens": tokens, "loss": 1.8 + 60 * params**-0.35 + 60 * tokens**-0.35})
    return rows


@pytest.mark.parametrize("method", ROWS)
def test_mixed_conventions_are_flagged(told, method):
    """Some rows count attention, others do not."""
    rows = ROWS[method]()
    for index, row in enumerate(rows):
        row["flops"] = (6.0 if index % 5 < 2 else 7.5) * row["params"] * row["tokens"]
    assert "mixed conventions: FLOPs are 1 to 1.25 times 6 P D" in told(method, rows)


@pytest.mark.parametrize("method", ROWS)
def test_an_unknown_convention_is_refused(told, method):
    assert "unknown FLOPs convention '8P'; known: 6P" in told(method, ROWS[method](), "--convention", "8P")


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("isoflop", ("--window", "0.5"), "window 0.5: give a factor above 1"),
        ("isoflop", ("--budgets", "-1"), "budgets [-1.0]: give positive numbers"),
        ("isoflop", ("--budgets", "1e9"), "no row lies near the budgets"),
        ("surface", ("--delta", "0"), "delta 0.0: Huber's threshold"),
        ("surface", ("--objective", "l2", "--delta", "0.1"), "--delta 0.1 has no effect on --objective l2"),
        ("frontier", ("--raw", "--keep", "all"), "--keep all has no effect with --raw"),
        ("tokens", ("--levels", "0"), "levels [0.0]: give positive numbers"),
        ("tokens", ("--repeated-draws", "9", "--size", "params"), "--size, --repeated-draws: no row repeats its data"),
        ("hyperparameters", ("--targets", "-3"), "targets [-3.0]: give losses in nats per token"),
        ("cross", ("--between", "masked", "unifrom"), "no group 'unifrom' in the table; it has masked"),
        ("cross", ("--within", "9", "1"), "within 9 to 1: give 0 < low < high"),
        ("cross", ("--at-flops", "1e18"), "has no effect on a crossing over flops"),
        ("cross", ("--over", "unique_tokens"), "the table has no unique tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused(told, method, words, message):
    assert message in told(method, ROWS[method](), *words)


@pytest.mark.parametrize(
    ("method", "column", "message"),
    [
        ("hyperparameters", "batch_tokens", "the table has no batch column"),
        ("cooldown", "cooldown", "the table has no cooldown column"),
        ("cross", "noise", "a crossing needs two groups, got all"),
    ],
)
def test_what_a_method_cannot_do_without_is_named(told, method, column, message):
    rows = [{name: value for name, value in row.items() if name != column} for row in ROWS[method]()]
    assert message in told(method, rows)


@pytest.mark.parametrize("method", [method for method in ROWS if method != "cooldown"])
@pytest.mark.parametrize("draws", [-5, 0, 1])
def test_too_few_draws_are_refused(told, method, draws):
    assert f"--draws {draws}: an interval needs at least 2" in told(method, ROWS[method](), "--draws", draws)
