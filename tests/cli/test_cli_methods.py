"""Every method of `noiselaw laws` and every one of its flags, from the command line: what each prints and changes."""

import inspect
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from made_tables import BUDGETS, CROSSING, FORMATS, LEVELS, ROWS, TRUTH, repeated_rows, tokens_rows, write_rows

from noiselaw.cli import lawtable
from noiselaw.cli.main import VERBS, main

FUNCTIONS = {
    words[1]: getattr(import_module(module), function)
    for words, (module, function) in ((words, verb.target.split(":")) for words, verb in VERBS.items())
    if words[0] == "laws"
}
METHODS = [name for name in FUNCTIONS if name != "reproduce"]
QUICK = {name: ("--draws", "60") for name in METHODS if name != "cooldown"} | {"cooldown": ()}
TABLES = {
    **ROWS,
    "repeated": repeated_rows,
    "two tokens": lambda: tokens_rows(("masked", "uniform")),
    "two repeated": lambda: repeated_rows((("masked", 15.0), ("uniform", 150.0))),
}
BOTH = ("masked | balanced", "masked | uniform", "balanced | uniform")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return {name: write_rows(folder / f"{name.replace(' ', '-')}.csv", rows()) for name, rows in TABLES.items()}


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs `noiselaw laws METHOD ...`; returns what it printed."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(method, *words):
        monkeypatch.setattr(sys, "argv", ["noiselaw", "laws", method, *map(str, words)])
        main()
        return capsys.readouterr()

    return run


@pytest.fixture
def laws(call, tables):
    """The groups that a method prints of one of TABLES."""

    def run(method, *words, table=None):
        quick = () if "--draws" in words else QUICK[method]
        printed = json.loads(call(method, tables[table or method], *quick, *words, "--json").out)
        assert printed["method"] == method
        return printed["groups"]

    return run


def first(groups):
    return next(iter(groups.values()))


def exponents(groups):
    return {name: [law["exponent"] for law in group["laws"].values()] for name, group in groups.items()}


def intervals(groups):
    return {name: [law["interval"] for law in group["laws"].values()] for name, group in groups.items()}


def num_kept(groups):
    return sum(optimum["kept"] for optimum in first(groups)["optima"])


def only_intervals(before, after):
    """What draws and seeds may change."""
    assert exponents(before) == exponents(after)
    assert intervals(before) != intervals(after)


def other_crossings(before, after):
    for name, group in before.items():
        assert group["parameters"]["crossing"] == after[name]["parameters"]["crossing"]
        assert group["intervals"] != after[name]["intervals"]


def named_budgets(before, after):
    assert [optimum["budget"] for optimum in first(before)["optima"]] == pytest.approx(BUDGETS)
    assert [optimum["budget"] for optimum in first(after)["optima"]] == pytest.approx(BUDGETS[:3])


def narrower(before, after):
    for whole, narrow in zip(first(before)["optima"], first(after)["optima"], strict=True):
        sizes = [point["params"] for point in narrow["points"]]
        assert len(sizes) < len(whole["points"])
        assert max(sizes) / min(sizes) <= 6**2


def more_kept(before, after):
    assert num_kept(before) < num_kept(after)
    assert exponents(before) != exponents(after)


def by_flops_per_token(before, after):
    one, other = first(before), first(after)
    assert (one["size"], other["size"]) == ("params", "flops_per_token")
    assert other["parameters"]["alpha"] == pytest.approx(one["parameters"]["alpha"], rel=1e-3)
    assert other["parameters"]["A"] == pytest.approx(one["parameters"]["A"] * 6 ** TRUTH["alpha"], rel=0.1)


def by_squares(before, after):
    assert (first(before)["objective"], first(after)["objective"]) == ("huber", "l2")
    assert first(before)["deviation"] > first(after)["deviation"]


def with_delta(before, after):
    assert (first(before)["delta"], first(after)["delta"]) == (1e-3, 0.01)
    assert first(before)["deviation"] > first(after)["deviation"]


def as_many_draws(before, after):
    assert first(after)["certificate"]["num_draws"] == 30 != first(before)["certificate"]["num_draws"]


def other_intervals(before, after):
    assert first(before)["parameters"] == first(after)["parameters"]
    assert first(before)["parameter_intervals"] != first(after)["parameter_intervals"]


def nothing_between(before, after):
    assert any(arc["flops_high"] > arc["flops_low"] for arc in first(before)["optima"])
    assert all(arc["flops_high"] == arc["flops_low"] for arc in first(after)["optima"])


def named_levels(before, after):
    assert [optimum["tokens"] for optimum in first(before)["optima"]] == pytest.approx(LEVELS)
    assert [optimum["tokens"] for optimum in first(after)["optima"]] == pytest.approx(LEVELS[:3])


def repeats_by_flops_per_token(before, after):
    one, other = (first(groups)["repeated"] for groups in (before, after))
    assert (one["size"], other["size"]) == ("params", "flops_per_token")
    assert other["parameters"]["A"] == pytest.approx(one["parameters"]["A"] * 6 ** one["parameters"]["alpha"], rel=1e-3)


def other_repeats(before, after):
    assert first(before)["repeated"]["parameters"] != first(after)["repeated"]["parameters"]


def other_repeat_intervals(before, after):
    assert first(before)["repeated"]["parameters"] == first(after)["repeated"]["parameters"]
    assert first(before)["repeated"]["intervals"] != first(after)["repeated"]["intervals"]


def named_targets(before, after):
    assert len({cell["target_loss"] for cell in first(before)["cells"]}) == 5
    assert {cell["target_loss"] for cell in first(after)["cells"]} == {3.6, 3.8}


def fewer_targets(before, after):
    assert len({cell["target_loss"] for cell in first(before)["cells"]}) == 5
    assert len({cell["target_loss"] for cell in first(after)["cells"]}) == 3


def nearest_readings(before, after):
    """Within the tolerance a reading counts as it is, else the loss is read between two."""
    one, other = (first(groups)["pairs"] for groups in (before, after))
    rows = [row["loss"] for row in ROWS["cooldown"]() if row["tokens"] == 2e9]
    assert [pair["loss_without"] for pair in other] == pytest.approx(rows, rel=1e-12)
    assert all(pair["loss_without"] < nearest["loss_without"] for pair, nearest in zip(one, other, strict=True))


def over_tokens(before, after):
    assert (first(before)["over"], first(after)["over"]) == ("flops", "tokens")


def one_pair(before, after):
    assert tuple(before) == BOTH
    assert tuple(after) == BOTH[1:2]


def within_range(before, after):
    assert first(before)["parameters"]["crossing"] == pytest.approx(CROSSING, rel=0.5)
    assert first(after)["within"] == [1e17, 1e18]
    assert first(after)["parameters"]["crossing"] is None
    assert "no crossing within 1e+17 to 1e+18" in first(after)["flags"]


def at_other_flops(before, after):
    assert first(before)["parameters"]["crossing"] != first(after)["parameters"]["crossing"]


CASES = {
    "isoflop": {
        "budgets": (("--budgets", *BUDGETS[:3]), named_budgets),
        "window": (("--window", 6), narrower),
        "keep": (("--keep", "all"), more_kept),
        "resample": (("--resample", "optima"), only_intervals),
        "draws": (("--draws", 30), only_intervals),
        "seed": (("--seed", 1), only_intervals),
    },
    "surface": {
        "size": (("--size", "flops_per_token"), by_flops_per_token),
        "objective": (("--objective", "l2"), by_squares),
        "delta": (("--delta", 0.01), with_delta),
        "draws": (("--draws", 30), as_many_draws),
        "seed": (("--seed", 1), other_intervals),
    },
    "frontier": {
        "raw": (("--raw",), nothing_between),
        "keep": (("--keep", "all"), more_kept),
        "draws": (("--draws", 30), only_intervals),
        "seed": (("--seed", 1), only_intervals),
    },
    "tokens": {
        "levels": (("--levels", *LEVELS[:3]), named_levels),
        "keep": (("--keep", "all"), more_kept),
        "size": (("--size", "flops_per_token"), repeats_by_flops_per_token, "repeated"),
        "delta": (("--delta", 1.0), other_repeats, "repeated"),
        "draws": (("--draws", 30), only_intervals),
        "repeated_draws": (("--repeated-draws", 30), other_repeat_intervals, "repeated"),
        "seed": (("--seed", 1), only_intervals),
    },
    "hyperparameters": {
        "targets": (("--targets", 3.6, 3.8), named_targets),
        "num_targets": (("--num-targets", 3), fewer_targets),
        "resample": (("--resample", "cells"), only_intervals),
        "draws": (("--draws", 30), only_intervals),
        "seed": (("--seed", 1), only_intervals),
    },
    "cooldown": {"tolerance": (("--tolerance", 0.1), nearest_readings)},
    "cross": {
        "over": (("--over", "tokens"), None),  # tested apart: each needs a table of its own
        "between": (("--between", "masked", "uniform"), one_pair),
        "within": (("--within", 1e17, 1e18), within_range),
        "at_flops": (("--at-flops", 1e19), at_other_flops, "two repeated", ("--over", "unique_tokens")),
        "draws": (("--draws", 30), other_crossings),
        "seed": (("--seed", 1), other_crossings),
    },
}
"""Words, what they change, and of which table (by default the method's own) beside which words."""


def flags_of(method):
    return set(inspect.signature(FUNCTIONS[method]).parameters)


@pytest.mark.parametrize("method", METHODS)
def test_every_flag_is_in_the_table(method):
    assert set(CASES[method]) == flags_of(method) - {"table", "columns", "show"}


def test_the_flags_of_reproduce_are_tested_beside_it():
    tested = (Path(__file__).parent / "test_cli_reproduce.py").read_text(encoding="utf-8")
    for flag in flags_of("reproduce"):
        assert f'"--{flag}"' in tested or f'"--no-{flag}"' in tested, flag


@pytest.mark.parametrize(
    ("method", "case"),
    [
        pytest.param(method, case, id=f"{method}-{flag}")
        for method, cases in CASES.items()
        for flag, case in cases.items()
        if case[1]
    ],
)
def test_every_flag_changes_what_it_says(laws, method, case):
    words, check, table, beside = (*case, *(None, ())[len(case) - 2 :])
    check(laws(method, *beside, table=table), laws(method, *beside, *words, table=table))


@pytest.mark.parametrize(("over", "table"), [("tokens", "two tokens"), ("unique_tokens", "two repeated")])
def test_crossings_over_what_is_asked(laws, over, table):
    (found,) = laws("cross", "--over", over, table=table).values()
    assert found["over"] == over
    low, high = found["intervals"]["crossing"]
    assert low < found["parameters"]["crossing"] < high
    if over == "tokens":
        assert found["parameters"]["crossing"] == pytest.approx(1e9, rel=0.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".csv"])
def test_every_format_prints_the_same(call, tables, tmp_path, method, suffix):
    path = write_rows(tmp_path / f"runs{suffix}", ROWS[method]())
    words = (*QUICK[method], "--json")
    assert call(method, path, *words) == call(method, tables[method], *words)


KEYS = {
    "isoflop": {"parameters", "laws", "flags", "certificate"},
    "surface": {"parameters", "laws", "flags", "certificate"},
    "frontier": {"laws", "flags"},
    "tokens": {"laws", "flags"},
    "hyperparameters": {"laws", "flags"},
    "cooldown": {"parameters", "flags"},
    "cross": {"parameters", "flags"},
}
QUANTITIES = {"loss", "tokens", "params", "flops_per_token"}


@pytest.mark.parametrize("method", METHODS)
def test_the_printed_object_is_the_contracts(call, tables, method):
    printed = json.loads(call(method, tables[method], *QUICK[method], "--json").out)
    assert list(printed) == ["method", "convention", "groups"]
    assert (printed["method"], printed["convention"]) == (method, "6P")
    expected = {"isoflop": ["masked", "uniform"], "cross": list(BOTH)}.get(method, ["all"])
    assert list(printed["groups"]) == expected
    for group in printed["groups"].values():
        assert group.keys() >= KEYS[method]
        assert all(isinstance(flag, str) for flag in group["flags"])
        for law in group.get("laws", {}).values():
            assert law["coefficient"] > 0
            low, high = law["interval"]
            assert low < high
            assert isinstance(law["exponent"], float)
    if method in ("isoflop", "surface", "frontier"):
        assert set(first(printed["groups"])["laws"]) == QUANTITIES
    if method in ("isoflop", "surface"):
        assert set(first(printed["groups"])["parameters"]) == set(TRUTH)
        assert first(printed["groups"])["certificate"]["gradient_norm"] < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_tables_are_drawn_from_the_object(call, tables, method):
    printed = call(method, tables[method], *QUICK[method])
    assert printed.out.startswith(f"{method}, FLOPs counted as 6P\n")
    group = first(json.loads(call(method, tables[method], *QUICK[method], "--json").out)["groups"])
    laws = group.get("laws", {})
    shown = [law["exponent"] for law in laws.values()] or list(group["parameters"].values())
    assert all(lawtable._number(value) in printed.out for value in shown)
    assert all(flag.split()[0] in printed.out for flag in group["flags"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_are_drawn(call, tables, tmp_path, method, suffix):
    path = tmp_path / f"laws.{suffix}"
    printed = call(method, tables[method], *QUICK[method], "--figure", path, "--json")
    assert f"figure: {path}" in printed.err
    start = path.read_bytes()[:400]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start or b"<?xml" in start
    assert json.loads(printed.out)["method"] == method


def test_other_figures_are_refused_before_anything_is_read(call, capsys):
    with pytest.raises(SystemExit) as stop:
        call("surface", "nowhere.csv", "--figure", "laws.pdf")
    assert stop.value.code == 2
    assert "--figure laws.pdf: the name must end in .png or .svg" in capsys.readouterr().err
