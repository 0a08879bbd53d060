"""Reading anybody's table: formats, guesses, conventions, and every bad table refused or flagged."""

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from noiselaw.laws.build import build_table
from noiselaw.laws.columns import GUESSES, ReadOptions, choose_columns
from noiselaw.laws.conventions import CONVENTIONS
from noiselaw.laws.read import read_table

PAPER = Path(str(files("noiselaw.laws") / "data" / "isoflops.csv"))
PARAMS = np.repeat([1e8, 2e8, 4e8], 3)
TOKENS = np.tile([1e9, 2e9, 4e9], 3)
LOSS = 1.7 + 400 * PARAMS**-0.34 + 410 * TOKENS**-0.28


def rows_of(**columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain_rows():
    return rows_of(N=PARAMS.tolist(), D=TOKENS.tolist(), loss=LOSS.tolist())


def write_rows(path, rows, delimiter=","):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    import pyarrow  # noqa: ICN001 (as the project spells it)
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_text(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


FORMATS = {
    "runs.csv": write_rows,
    "runs.tsv": lambda path, rows: write_rows(path, rows, "\t"),
    "semicolons.csv": lambda path, rows: write_rows(path, rows, ";"),
    "runs.jsonl": lambda path, rows: write_text(path, "\n".join(map(json.dumps, rows)) + "\n"),
    "runs.json": lambda path, rows: write_text(path, json.dumps(rows)),
    "columns.json": lambda path, rows: write_text(path, json.dumps(columns_of(rows))),
    "runs.parquet": write_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_table(tmp_path, name):
    table = read_table(FORMATS[name](tmp_path / name, plain_rows()))
    np.testing.assert_array_equal(table.params, PARAMS)
    np.testing.assert_array_equal(table.loss, LOSS)
    np.testing.assert_allclose(table.flops, 6 * PARAMS * TOKENS)
    assert table.convention == "6P"
    assert set(table.group) == {"all"}
    assert np.unique(table.run).size == 9
    assert table.flags == ()


def test_the_shipped_table_reads_without_any_option():
    table = read_table(PAPER)
    assert table.loss.size == 1023
    assert list(dict.fromkeys(table.group.tolist())) == ["masked", "low-uniform", "balanced", "high-uniform", "uniform"]
    assert table.convention == "given"
    assert "params: column 'non_emb_params'" in table.notes
    assert "group: column 'noise'" in table.notes
    assert table.flags == ("FLOPs are 1.22 to 1.67 times 6 P D: they count more than parameters, or in several ways",)


def test_rows_are_chosen_by_conditions():
    table = read_table(PAPER, ReadOptions(where=("in_fit_mask=1", "noise!=uniform", "loss<3.5")))
    assert 0 < table.loss.size < 840
    assert table.loss.max() < 3.5
    assert "uniform" not in table.group


def test_a_column_named_wins_over_the_likelier_guess(tmp_path):
    rows = [row | {"val_loss": 9.0, "run_id": f"r{index}"} for index, row in enumerate(plain_rows())]
    path = write_rows(tmp_path / "t.csv", rows)
    assert (read_table(path).loss == 9.0).all()
    assert "loss: column 'val_loss' (not 'loss')" in read_table(path).notes
    table = read_table(path, ReadOptions(loss="loss"))
    np.testing.assert_allclose(table.loss, LOSS)
    assert table.run[3] == "r3"


def test_every_guess_names_one_role_only():
    names = [(name, role) for role, known in GUESSES.items() for name in known]
    assert len({name for name, _ in names}) == len(names)


def test_text_is_not_guessed_to_be_a_number():
    choice = choose_columns({"size": ["125M", "1B"], "N": ["1", "2"], "loss": ["3", "2"]}, ReadOptions())
    assert choice.columns["params"] == "N"


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("missing", ["params", "tokens", "flops"])
def test_the_third_size_follows_from_two_by_the_convention(convention, missing):
    layers, width, length = np.repeat([8.0, 12.0, 16.0], 3), np.repeat([512.0, 768.0, 1024.0], 3), 2048.0
    params = 12 * layers * width**2
    per_token = {
        "6P": 6 * params,
        "6P+12Lds": 6 * params + 12 * layers * width * length,
        "72Ld2+12Lds": 72 * layers * width**2 + 12 * layers * width * length,
    }[convention]
    sizes = {"params": params, "tokens": TOKENS, "flops": per_token * TOKENS}
    known = {name: values for name, values in sizes.items() if name != missing}
    table = build_table(
        loss=LOSS, convention=convention, layers=layers, width=width, sequence_length=length, **known
    )  # fmt: skip
    for name, values in sizes.items():
        np.testing.assert_allclose(getattr(table, name), values, rtol=1e-12)
    np.testing.assert_allclose(table.flops_per_token * table.tokens, table.flops, rtol=1e-12)
    assert table.convention == convention
    assert table.flags == ()


def test_spellings_of_conventions():
    for spelling, name in {"72Ld²+12Lds": "72Ld2+12Lds", "6P+attention": "6P+12Lds"}.items():
        columns = {"layers": np.full(9, 8.0), "width": np.full(9, 512.0), "sequence_length": 2048}
        assert build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, convention=spelling, **columns).convention == name


def test_params_are_a_sixth_of_flops_per_token_where_nobody_counted():
    for convention, named in ((None, "6P"), ("given", "given")):
        table = build_table(loss=LOSS, flops=7 * PARAMS * TOKENS, tokens=TOKENS, convention=convention)
        assert table.convention == named
        np.testing.assert_allclose(table.flops_per_token, 7 * PARAMS)
        np.testing.assert_allclose(table.params, 7 * PARAMS / 6)
        assert "params" in table.notes[0]


def test_unique_tokens_follow_from_epochs():
    table = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, epochs=np.full(9, 4.0))
    np.testing.assert_allclose(table.unique_tokens, TOKENS / 4)


def test_batches_in_sequences_become_tokens(tmp_path):
    rows = [row | {"batch_size": 64, "seq_len": 2048} for row in plain_rows()]
    path = write_rows(tmp_path / "t.csv", rows)
    assert (read_table(path, ReadOptions(batch_unit="sequences")).batch_tokens == 64 * 2048).all()
    table = read_table(path)
    assert (table.batch_tokens == 64).all()
    assert any("batches in tokens (else --batch-unit sequences)" in note for note in table.notes)
    lone = write_rows(tmp_path / "u.csv", [row | {"batch_sequences": 64} for row in plain_rows()])
    with pytest.raises(ValueError, match="batches in sequences need --sequence-length"):
        read_table(lone, ReadOptions(batch="batch_sequences"))
    assert read_table(lone).batch_tokens is None
    assert any("'batch_sequences' is not used as batch" in note for note in read_table(lone).notes)
    assert (read_table(lone, ReadOptions(sequence_length="2048")).batch_tokens == 64 * 2048).all()


def test_of_two_named_sizes_the_third_is_derived_not_guessed(tmp_path):
    rows = [row | {"flops": 10 * row["N"] * row["D"]} for row in plain_rows()]
    path = write_rows(tmp_path / "t.csv", rows)
    table = read_table(path, ReadOptions(params="N", tokens="D"))
    np.testing.assert_allclose(table.flops, 6 * PARAMS * TOKENS)
    assert (table.convention, table.flags) == ("6P", ())
    assert "flops: derived; column 'flops' counts if named by --flops" in table.notes
    for options in (ReadOptions(), ReadOptions(params="N", tokens="D", flops="flops")):
        assert read_table(path, options).convention == "given"
        np.testing.assert_allclose(read_table(path, options).flops, 10 * PARAMS * TOKENS)
    by_flops = read_table(path, ReadOptions(params="N", flops="flops"))
    np.testing.assert_allclose(by_flops.tokens, 10 / 6 * TOKENS)


def test_a_study_folder_is_its_grid_with_its_own_convention(tmp_path):
    shape = {"layers": 2, "width": 64}
    per_token = 72 * 2 * 64**2 + 12 * 2 * 64 * 128
    rows = [
        {"run": f"{role}-{index}", "group": "masked", "role": role, **shape, "params": 98304, "tokens": tokens,
         "flops_per_token": per_token, "flops": per_token * tokens, "loss": 3.0 - index / 10}
        for role in ("grid", "repeated", "confirmation")
        for index, tokens in enumerate((1e5, 2e5, 4e5))
    ]  # fmt: skip
    write_rows(tmp_path / "curves.csv", rows)
    facts = {"flops_convention": "72Ld2+12Lds", "sequence_length": 128, "budgets": [1e9, 2e9]}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    table = read_table(tmp_path)
    assert table.run.tolist() == ["grid-0", "grid-1", "grid-2"]
    assert (table.convention, table.budgets, table.flags) == ("72Ld2+12Lds", (1e9, 2e9), ())
    assert read_table(tmp_path, ReadOptions(where=("role=confirmation",))).run[0] == "confirmation-0"
    assert read_table(tmp_path, repeated=True).run.tolist()[2:4] == ["grid-2", "repeated-0"]
    with pytest.raises(ValueError, match=r"a folder without curves.csv is no study"):
        read_table(tmp_path.parent)


def change(column, value, row=4):
    def spoil(rows):
        rows[row][column] = value
        return rows

    return spoil


BAD_VALUES = {
    "NaN": (change("loss", "nan"), r"column loss, row 5: no number .NaN or empty.; correct it, or .*--where"),
    "infinite": (change("loss", "inf"), "column loss, row 5: inf is not positive"),
    "negative": (change("D", -1e9), r"column D, row 5: -1e\+09 is not positive"),
    "zero": (change("N", 0), "column N, row 5: 0 is not positive"),
    "zero loss": (change("loss", 0.0), "column loss, row 5: 0 is not positive"),
    "empty": (change("loss", ""), "column loss, row 5: no number"),
    "missing": (change("loss", "N/A"), "column loss, row 5: no number"),
    "text": (change("loss", "diverged"), "column loss, row 5: 'diverged' is not a number; correct it, or leave"),
    "groups of digits": (change("D", "1,00,000"), "column D, row 5: '1,00,000' is not a number"),
    "unit on a loss": (change("loss", "3.1B"), "column loss, row 5: '3.1B' is not a number"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_name_column_row_and_remedy(tmp_path, spoil, message):
    path = write_rows(tmp_path / "t.csv", spoil(plain_rows()))
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_the_remedy_for_bad_rows_works(tmp_path):
    path = write_rows(tmp_path / "t.csv", change("loss", "diverged")(plain_rows()))
    assert read_table(path, ReadOptions(where=("loss>0",))).loss.size == 8
    spoilt = write_rows(tmp_path / "u.csv", change("D", "x", 7)(change("loss", "", 2)(plain_rows())))
    with pytest.raises(ValueError, match="column D, row 8"):
        read_table(spoilt, ReadOptions(where=("loss>0",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ReadOptions(params="Np"), r"--params 'Np': no such column; did you mean 'N'\?"),
        (ReadOptions(loss="quality"), r"--loss 'quality': no such column; columns: N, D, loss"),
        (ReadOptions(params="N", tokens="N"), "column 'N' is named for params and tokens"),
        (ReadOptions(convention="8P"), "unknown FLOPs convention '8P'; known: 6P"),
        (ReadOptions(convention="6P+attention"), "convention 6P.12Lds needs layers, width, sequence length"),
        (ReadOptions(convention="given"), "convention given needs tokens and FLOPs in every row"),
        (ReadOptions(where=("loss~3",)), "--where 'loss~3': say COLUMN=VALUE"),
        (ReadOptions(where=("los<3",)), r"--where 'los': no such column; did you mean 'loss'\?"),
        (ReadOptions(where=("loss<0",)), "--where 'loss<0': no row is left"),
    ],
)
def test_bad_options_name_the_thing_and_the_remedy(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_table(write_rows(tmp_path / "t.csv", plain_rows()), options)


BAD_FILES = {
    "no rows": ("t.csv", "N,D,loss\n", "no rows"),
    "empty file": ("t.csv", "", "no rows"),
    "no loss": ("t.csv", "N,D\n1,2\n", "no column looks like a loss among N, D; name it with --loss"),
    "one size column": ("t.csv", "N,loss\n1,2\n", "sizes: only params known; name two of --params, --tokens, --flops"),
    "ragged row": ("t.csv", "N,D,loss\n1,2,3,4\n", "row 1: 4 fields under 3 columns"),
    "same name twice": ("t.csv", "N,N,loss\n1,2,3\n", "column 'N' appears twice"),
    "truncated line": ("t.jsonl", '{"N": 1, "D": 2, "loss": 3}\n{"N": 1, "D"', r"line 2: not JSON .*cut short, remove"),
    "rows of numbers": ("t.json", "[1, 2]", "expected rows as JSON objects"),
    "ragged columns": ("t.json", '{"N": [1], "loss": [1, 2]}', "columns of unequal length"),
    "no parquet": ("t.parquet", "N,D,loss", "not a Parquet file"),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_no_table(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_table(write_text(tmp_path / name, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such file"):
        read_table(tmp_path / "nowhere.csv")


def test_rows_that_repeat_others_are_dropped_and_flagged(tmp_path):
    rows = plain_rows()
    table = read_table(write_rows(tmp_path / "t.csv", [*rows, rows[2], rows[5]]))
    assert table.loss.size == 9
    assert table.flags == ("2 rows of the table repeated others exactly and left out",)


def test_repeats_of_a_point_are_kept_without_runs_and_refused_within_one(tmp_path):
    rows = [*plain_rows(), plain_rows()[4] | {"loss": 3.0}]
    table = read_table(write_rows(tmp_path / "t.csv", rows))
    assert table.loss.size == 10
    assert "1 row with a size and a budget of another row: kept as repeats" in table.notes
    named = [row | {"run": f"r{index % 9}"} for index, row in enumerate(rows)]
    named[9]["run"] = "r4"
    with pytest.raises(ValueError, match=r"run r4: rows 5 and 10 give losses .* name the runs apart"):
        read_table(write_rows(tmp_path / "u.csv", named))


def test_a_column_that_tells_pooled_rows_apart_is_named(tmp_path):
    both = [
        row | {"Kind": kind, "loss": row["loss"] + shift}
        for kind, shift in (("a", 0), ("b", 0.1))
        for row in plain_rows()
    ]
    table = read_table(write_rows(tmp_path / "t.csv", both))
    assert table.flags == ("rows of equal size and budget differ in column 'Kind': --group 'Kind' fits them apart",)
    assert not read_table(tmp_path / "t.csv", ReadOptions(group="Kind")).flags
    same = [row | {"Kind": "a"} for row in both]
    assert not read_table(write_rows(tmp_path / "u.csv", same)).flags


def test_mixed_conventions_are_flagged_with_their_range():
    mixed = np.where(np.arange(9) % 2, 6.0, 9.0) * PARAMS * TOKENS
    (flag,) = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, flops=mixed).flags
    assert "mixed conventions: FLOPs are 1 to 1.5 times 6 P D" in flag
    drifting = np.repeat([6.0, 7.0, 8.0], 3) * PARAMS * TOKENS
    (flag,) = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, flops=drifting).flags
    assert "FLOPs are 1 to 1.33 times 6 P D" in flag
    (flag,) = build_table(loss=LOSS, params=PARAMS / 1e6, tokens=TOKENS, flops=6 * PARAMS * TOKENS).flags
    assert "another unit" in flag


def test_a_named_convention_that_the_flops_break_is_flagged_and_obeyed():
    table = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, flops=9 * PARAMS * TOKENS, convention="6P")
    assert table.flags == ("FLOPs in the table are 1.5 times those by convention 6P: counted anew",)
    np.testing.assert_allclose(table.flops, 6 * PARAMS * TOKENS)
    close = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, flops=6.01 * PARAMS * TOKENS, convention="6P")
    np.testing.assert_allclose(close.flops, 6.01 * PARAMS * TOKENS)
    assert close.flags == ()


def test_flops_that_are_not_the_product_are_flagged():
    table = build_table(
        loss=LOSS, params=PARAMS, tokens=TOKENS, flops=6 * PARAMS * TOKENS, flops_per_token=3 * PARAMS
    )  # fmt: skip
    assert table.flags == ("FLOPs are 2 times FLOPs per token times tokens; C / D is taken as FLOPs per token",)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="column tokens has 3 rows but loss has 9"):
        build_table(loss=LOSS, params=PARAMS, tokens=TOKENS[:3])
    with pytest.raises(ValueError, match="column run has 2 rows but loss has 9"):
        build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, run=["a", "b"])


def test_runs_are_rows_or_sizes():
    by_size = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, run_by="size")
    assert np.unique(by_size.run).size == 3
    unique = np.where(np.arange(9) % 3 > 0, 1e9, 5e8)
    by_data = build_table(loss=LOSS, params=PARAMS, tokens=TOKENS, unique_tokens=unique, run_by="size")
    assert np.unique(by_data.run).size == 6


def test_cooldown_is_yes_or_no(tmp_path):
    rows = [row | {"cooldown": "yes" if index % 2 else "no"} for index, row in enumerate(plain_rows())]
    assert read_table(write_rows(tmp_path / "t.csv", rows)).cooldown.sum() == 4
    rows[0]["cooldown"] = "perhaps"
    doubtful = write_rows(tmp_path / "u.csv", rows)
    with pytest.raises(ValueError, match="column cooldown: 'perhaps' says neither yes nor no"):
        read_table(doubtful, ReadOptions(cooldown="cooldown"))
    assert read_table(doubtful).cooldown is None


def test_reading_needs_neither_torch_nor_what_other_formats_need():
    code = (
        "import sys; import noiselaw.laws.read, noiselaw.laws.surfacelaws; "
        "print([name for name in ('torch', 'pyarrow', 'polars', 'matplotlib', 'scipy.optimize') if name in sys.modules])"  # noqa: E501 (one row of a table)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
