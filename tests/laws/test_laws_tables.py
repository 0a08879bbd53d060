"""Tables as people have them: odd names, spellings and units, holes, spare columns, several seeds."""

import csv
import json
import math

import numpy as np
import pytest

from noiselaw.laws.columns import ReadOptions
from noiselaw.laws.numerals import read_numbers, split_name, unit_of, uses_decimal_commas
from noiselaw.laws.read import read_table
from noiselaw.laws.surfacelaws import fit_surface_table

PARAMS, TOKENS = (grid.ravel() for grid in np.meshgrid([1e8, 3e8, 1e9], [2e9, 7e9, 3e10], indexing="ij"))
LOSS = 1.7 + 400 * PARAMS**-0.34 + 410 * TOKENS**-0.28


def write(path, header, *columns, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))
    return path


def assert_same(table):
    np.testing.assert_allclose(table.params, PARAMS, rtol=1e-6)
    np.testing.assert_allclose(table.tokens, TOKENS, rtol=1e-6)
    np.testing.assert_allclose(table.loss, LOSS, rtol=1e-6)
    np.testing.assert_allclose(table.flops, 6 * PARAMS * TOKENS, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), (" 1.5e9 ", 1.5e9), ("1E9", 1e9), ("1,234", 1234), ("1,234,567.5", 1234567.5), ("-1,000", -1000),
        ("1 234 567", 1234567), ("1\u202f234", 1234), ("1'000'000", 1e6), ("1_000", 1000), ("1.5×10^9", 1.5e9),
        ("2 x 10^18", 2e18), ("10**21", 1e21), ("3·10²¹", 3e21), ("10⁻³", 1e-3), ("125M", 125e6), ("1.3 B", 1.3e9),
        ("70m", 70e6), ("1,024k", 1024e3), ("2T", 2e12), ("−3", -3),
    ],
)  # fmt: skip
def test_spellings_of_numbers(text, value):
    assert read_numbers([text], decimal_commas=False, suffixes=True).values == [pytest.approx(value, rel=1e-12)]


@pytest.mark.parametrize("text", ["diverged", "1,00", "12,34,567", "1.2.3", "M", "B12", "1e", "3 4", "1-2", "x10^3"])
def test_what_is_no_number(text):
    assert read_numbers([text], decimal_commas=False, suffixes=True).values == [None]


@pytest.mark.parametrize("text", ["", "NA", "n/a", "NaN", "null", "None", "-", "–", None])
def test_cells_without_a_number(text):
    (value,) = read_numbers([text], decimal_commas=False, suffixes=True).values
    assert math.isnan(value)


def test_commas_are_decimal_marks_where_one_can_be_nothing_else():
    assert uses_decimal_commas([["3,14"], ["1,234"]])
    assert uses_decimal_commas([["1.234,5"]])
    assert not uses_decimal_commas([["1,234", "12,345,678"], [3.14, None, "3.14"]])
    assert read_numbers(["1,234", "1.234.567,5"], decimal_commas=True, suffixes=False).values == [1.234, 1234567.5]
    assert read_numbers(["1.234.567", "0,5e3"], decimal_commas=True, suffixes=False).values == [1234567, 500]


@pytest.mark.parametrize(
    ("name", "bare", "unit"),
    [
        ("params (M)", "params", 1e6), ("Tokens [B]", "Tokens", 1e9), ("N in millions", "N", 1e6),
        ("tokens_B", "tokens", 1e9), ("D [B tokens]", "D", 1e9), ("N (M parameters)", "N", 1e6),
        ("model_size_b", "model_size", 1e9), ("C (1e18)", "C", 1e18), ("FLOPs (10^20)", "FLOPs", 1e20),
        ("compute (PF-days)", "compute", 8.64e19), ("C [exaFLOPs]", "C", 1e18), ("loss (nats)", "loss", None),
        ("Training FLOP", "Training FLOP", None), ("N", "N", None),
        ("non_embedding_params", "non_embedding_params", None),
    ],
)  # fmt: skip
def test_units_in_names(name, bare, unit):
    assert split_name(name) == (bare, unit)


def test_units_by_name():
    units = ("M", "millions", "1e6", "PF-days", "petaflop/s-days", "10^6")
    assert [unit_of(text) for text in units] == [1e6, 1e6, 1e6, 8.64e19, 8.64e19, 1e6]
    assert unit_of("nats") is None
    assert unit_of("0") is None


def test_odd_names_and_thousands_and_suffixes(tmp_path):
    path = write(
        tmp_path / "t.csv", ["Größe (#)", "Δ tokens; seen", "Validation loss [nats/token]", "comment"],
        [f"{value / 1e6:g}M" for value in PARAMS], [f"{value:,.0f}" for value in TOKENS], LOSS, ["a, b"] * 9,
    )  # fmt: skip
    table = read_table(path, ReadOptions(params="Größe (#)", tokens="Δ tokens; seen"))
    assert_same(table)
    assert "column 'Δ tokens; seen': commas stand between thousands" in table.notes
    assert "column 'Größe (#)': K, M, B and T are 1e3, 1e6, 1e9 and 1e12" in table.notes
    assert "loss: column 'Validation loss [nats/token]'" in table.notes


def test_a_spreadsheet_of_another_country(tmp_path):
    """Byte-order mark, semicolons, decimal commas, points between thousands, empty columns and rows at the ends."""
    german = [f"{value:.10f}".replace(".", ",") for value in LOSS]
    tokens = [f"{value:,.0f}".replace(",", ".") for value in TOKENS]
    path = write(
        tmp_path / "t.csv", ["params", "tokens", "loss", "", ""],
        [*map(int, PARAMS), "", ""], [*tokens, "", ""], [*german, "", ""], [""] * 11, [""] * 11,
        delimiter=";", encoding="utf-8-sig",
    )  # fmt: skip
    assert_same(read_table(path))


def test_row_numbers_without_a_name_comments_and_spaces(tmp_path):
    lines = [
        f"{row} {n:.0f} {d:.0f} {loss:.12f}" for row, (n, d, loss) in enumerate(zip(PARAMS, TOKENS, LOSS, strict=True))
    ]
    path = tmp_path / "t.txt"
    path.write_text("# by hand\nrow N D loss\n" + "\n".join(lines) + "\n\n", encoding="utf-8")
    assert_same(read_table(path))
    pandas = write(tmp_path / "p.csv", ["", "N", "D", "loss"], range(9), PARAMS, TOKENS, LOSS)
    assert_same(read_table(pandas))


def test_json_with_a_mark_nested_objects_and_a_wrapper(tmp_path):
    rows = [
        {"config": {"n_params": n, "n_tokens": d}, "metrics": {"val_loss": loss}}
        for n, d, loss in zip(PARAMS, TOKENS, LOSS, strict=True)
    ]
    path = tmp_path / "t.json"
    path.write_text("\ufeff" + json.dumps({"source": "mine", "runs": rows}), encoding="utf-8")
    options = ReadOptions(params="config.n_params", tokens="config.n_tokens", loss="metrics.val_loss")
    assert_same(read_table(path, options))


def test_units_in_names_are_applied_and_said(tmp_path):
    path = write(tmp_path / "t.csv", ["params (M)", "tokens_B", "loss"], PARAMS / 1e6, TOKENS / 1e9, LOSS)
    for options in (ReadOptions(), ReadOptions(params="params (M)", tokens="tokens_B")):
        table = read_table(path, options)
        assert_same(table)
        assert table.flags == ()
        assert "column 'params (M)': times 1e+06, by its name (else --unit 'params (M)=1')" in table.notes
    overruled = read_table(path, ReadOptions(unit=("params (M)=1", "tokens_B=1e9")))
    np.testing.assert_allclose(overruled.params, PARAMS / 1e6)


def test_counts_under_a_name_that_says_millions_stay(tmp_path):
    table = read_table(write(tmp_path / "t.csv", ["params_m", "tokens", "loss"], PARAMS, TOKENS, LOSS))
    np.testing.assert_allclose(table.params, PARAMS)


def test_millions_under_a_name_that_says_nothing_are_flagged_until_the_unit_is_given(tmp_path):
    path = write(tmp_path / "t.csv", ["N", "D", "loss"], PARAMS / 1e6, TOKENS, LOSS)
    (flag,) = read_table(path).flags
    assert "column 'N' counts no single params (its middle is 300): say what it counts, such as --unit 'N=1e6'" in flag
    for unit in ("N=1e6", "N=M", "N=millions"):
        assert_same(read_table(path, ReadOptions(unit=(unit,))))
    with pytest.raises(ValueError, match=r"--unit 'N': say COLUMN=FACTOR"):
        read_table(path, ReadOptions(unit=("N",)))
    with pytest.raises(ValueError, match=r"--unit 'NN': no such column; did you mean 'N'"):
        read_table(path, ReadOptions(unit=("NN=1e6",)))


def test_compute_in_petaflop_days(tmp_path):
    path = write(
        tmp_path / "t.csv", ["N", "compute (PF-days)", "loss"], PARAMS, 6 * PARAMS * TOKENS / 8.64e19, LOSS
    )  # fmt: skip
    assert_same(read_table(path, ReadOptions(params="N", flops="compute (PF-days)")))


def test_holes_in_columns_that_nobody_asked_for_do_no_harm(tmp_path):
    holes = [*["1e-3"] * 8, ""]
    path = write(
        tmp_path / "t.csv", ["N", "D", "loss", "lr", "epochs", "cooldown", "run", "group"],
        PARAMS, TOKENS, LOSS, holes, [*[1] * 8, 0], [2000] * 9, ["a"] * 9, [*["x"] * 8, ""],
    )  # fmt: skip
    table = read_table(path)
    assert_same(table)
    assert (table.learning_rate, table.unique_tokens, table.cooldown) == (None, None, None)
    assert set(table.group) == {"all"}
    assert np.unique(table.run).size == 9
    for said in (
        "column 'lr' is not used as learning rate: row 9 holds ''; name it with --learning-rate if it is",
        "column 'cooldown' is not used as cooldown: '2000' says neither yes nor no",
        "column 'run' is not used as run: 'a' has several sizes; if it is one run name it with --run",
        "column 'group' is not used as group: row 9 is empty",
    ):
        assert said in table.notes
    with pytest.raises(ValueError, match="column lr, row 9: no number"):
        read_table(path, ReadOptions(learning_rate="lr"))
    with pytest.raises(ValueError, match=r"column group, row 9: empty; .*--where 'group!='"):
        read_table(path, ReadOptions(group="group"))
    assert read_table(path, ReadOptions(group="group", where=("group!=",))).loss.size == 8


def test_missing_losses_are_refused_and_left_out_by_the_remedy(tmp_path):
    losses = [*LOSS[:7].tolist(), "", "diverged"]
    path = write(tmp_path / "t.csv", ["N", "D", "loss"], PARAMS, [f"{value:,.0f}" for value in TOKENS], losses)
    with pytest.raises(ValueError, match=r"column loss, row 9: 'diverged' is not a number"):
        read_table(path)
    assert read_table(path, ReadOptions(where=("loss>0",))).loss.size == 7
    assert read_table(path, ReadOptions(where=("loss>0", "D>2.5e9"))).loss.size == 4


def test_seeds_are_repeats_even_where_rounding_makes_them_alike(tmp_path):
    doubled = [np.tile(column, 2) for column in (PARAMS, TOKENS, LOSS.round(2))]
    seeds, numbers = np.repeat([0, 1], 9), range(18)
    table = read_table(write(tmp_path / "t.csv", ["N", "D", "loss", "seed", "id"], *doubled, seeds, numbers))
    assert table.loss.size == 18
    assert table.flags == ()
    assert "9 rows with a size and a budget of another row: kept as repeats" in table.notes
    twice = read_table(write(tmp_path / "u.csv", ["N", "D", "loss", "id"], *doubled, numbers))
    assert twice.loss.size == 9
    assert twice.flags == ("9 rows of the table repeated others exactly and left out",)


def test_losses_of_several_groups_in_one_table(tmp_path):
    losses = np.concatenate([LOSS, LOSS + 0.2])
    names = np.repeat(["masked", "7"], 9)
    path = write(tmp_path / "t.csv", ["N", "D", "l", "kind"], *(np.tile(x, 2) for x in (PARAMS, TOKENS)), losses, names)
    fits = fit_surface_table(read_table(path, ReadOptions(loss="l", group="kind")), num_draws=20)
    assert {name: pytest.approx(fit.fit.E, abs=1e-6) for name, fit in fits.items()} == {"masked": 1.7, "7": 1.9}


def test_rows_are_numbered_as_in_the_file_whatever_was_left_out(tmp_path):
    rows = [["r1", 1e8, 2e9, 3.0], ["r1", 1e8, 2e9, 3.1], ["r2", 3e8, 2e9, 2.9]]
    path = write(tmp_path / "t.csv", ["run", "N", "D", "loss"], *zip(["r0", 1e8, 2e9, 9.0], *rows, strict=True))
    with pytest.raises(ValueError, match=r"rows 2 and 3 give losses 3 and 3\.1"):
        read_table(path, ReadOptions(where=("loss<5",)))


def test_another_encoding_says_what_to_do(tmp_path):
    path = write(tmp_path / "t.csv", ["Größe", "D", "loss"], PARAMS, TOKENS, LOSS, encoding="utf-16")
    with pytest.raises(ValueError, match=r"not a CSV file in UTF-8 .*; save it as such"):
        read_table(path)
