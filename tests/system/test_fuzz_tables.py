"""Tables, fitted laws and study folders from anywhere: taken, or refused in one message."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commandline import accepts_or_refuses, call
from hostile import HOSTILE_VALUES, altered, damaged_bytes, fuzzing, tree, write_json_as_is
from hypothesis import given
from hypothesis import strategies as st
from synthetic_study import write_study

ROWS = [
    {"params": n, "tokens": d, "loss": 1.7 + 400 * n**-0.33 + 1800 * d**-0.36, "noise": group, "run": f"{group}{n}"}
    for group in ("masked", "uniform")
    for n in (1e6, 4e6, 1.6e7, 6.4e7)
    for d in (1e8, 4e8, 1.6e9, 6.4e9)
]


def csv_text(rows: list[dict]) -> bytes:
    lines = [",".join(ROWS[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    return "\n".join(lines).encode("utf-8", errors="surrogatepass")


def parquet_bytes(rows: list[dict]) -> bytes:
    stream = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue().to_pybytes()


FORMATS = {
    "runs.csv": csv_text,
    "runs.jsonl": lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    "runs.json": lambda rows: json.dumps(rows).encode(),
    "runs.parquet": parquet_bytes,
}


@fuzzing(30)
@given(data=st.data())
def test_tables_of_runs(data, tmp_path):
    name = data.draw(st.sampled_from(sorted(FORMATS)))
    path = tmp_path / name
    if name != "runs.parquet" and data.draw(st.booleans()):
        rows = data.draw(altered(ROWS))
        if name == "runs.csv" or not isinstance(rows, list):
            rows = rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else ROWS[:3]
        path.write_bytes(FORMATS[name](rows))
    else:
        path.write_bytes(data.draw(damaged_bytes(FORMATS[name](ROWS))))
    accepts_or_refuses("laws", "isoflop", path, "--draws", "20", "--json")


KINDS = [
    pa.date32(), pa.binary(), pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.bool_(), pa.null(),
    pa.decimal128(9, 2), pa.timestamp("ns"), pa.float16(), pa.dictionary(pa.int8(), pa.string()), pa.uint64(),
]  # fmt: skip


@fuzzing(20)
@given(data=st.data())
def test_columns_of_any_type_in_parquet(data, tmp_path):
    """Dates, lists, bytes, nested records where numbers belong."""
    column = data.draw(st.sampled_from(["params", "tokens", "loss", "noise", "run"]))
    kind = data.draw(st.sampled_from(KINDS))
    table = pa.Table.from_pylist(ROWS)
    values = pa.nulls(len(ROWS), kind)
    if data.draw(st.booleans()) and kind != pa.null():
        drawn = [{"a": 1}] if pa.types.is_struct(kind) else [[1]] if pa.types.is_list(kind) else None
        source = drawn * len(ROWS) if drawn else [str(index) for index in range(len(ROWS))]
        try:
            values = pa.array(source, kind) if drawn else pa.array(source).cast(kind)
        except pa.ArrowException:
            values = pa.nulls(len(ROWS), kind)
    path = tmp_path / "runs.parquet"
    pq.write_table(table.set_column(table.column_names.index(column), column, values), path)
    accepts_or_refuses("laws", "isoflop", path, "--draws", "20", "--json")


@pytest.fixture(scope="module")
def laws(tmp_path_factory) -> dict[str, bytes]:
    """What `noiselaw laws METHOD --json` prints, by method."""
    table = tmp_path_factory.mktemp("laws") / "runs.csv"
    table.write_bytes(csv_text(ROWS))
    said = {method: call("laws", method, table, "--draws", "20", "--json") for method in ("isoflop", "surface")}
    assert all(each.code == 0 for each in said.values()), said
    return {method: each.out.encode() for method, each in said.items()}


@fuzzing(20)
@given(data=st.data())
def test_laws_that_a_plan_is_drawn_from(data, laws, tmp_path):
    path = tmp_path / "laws.json"
    content = laws[data.draw(st.sampled_from(sorted(laws)))]
    if data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(content))))
    else:
        path.write_bytes(data.draw(damaged_bytes(content)))
    accepts_or_refuses("plan", "--laws", path, "--flops", "1e20", "--json")


@pytest.fixture(scope="module")
def finished_study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("finished") / "study", unique_tokens=50_000_000)


@fuzzing(12)
@given(data=st.data())
def test_study_folders_that_are_reported(data, finished_study, tmp_path, monkeypatch):
    """The page, not the figures' files: they are drawn from what the page shows, and take most of the time."""
    monkeypatch.setattr("noiselaw.report.exports.write_prints", lambda drawing, folder, style: [])
    folder = tmp_path / "study"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished_study, folder)
    path = folder / data.draw(st.sampled_from(sorted(item.name for item in folder.iterdir())))
    if path.suffix == ".json" and data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(path.read_bytes()))))
    else:
        path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    out = tmp_path / "page.html"
    before = tree(folder)
    accepts_or_refuses("report", folder, "--out", out)
    assert tree(folder) == before


@fuzzing(20)
@given(data=st.data())
def test_texts_to_prepare(data, tmp_path):
    """JSON lines, Parquet and compressed files of documents."""
    rows = [{"text": f"document {index} " * 9} for index in range(60)]
    formats = {
        "texts.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        "texts.parquet": parquet_bytes(rows),
        "texts.txt": "\n".join(row["text"] for row in rows).encode(),
    }
    name = data.draw(st.sampled_from(sorted(formats)))
    folder = tmp_path / "desk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if name == "texts.jsonl" and data.draw(st.booleans()):
        odd = data.draw(st.sampled_from(HOSTILE_VALUES))
        (folder / name).write_bytes(formats[name] + json.dumps({"text": odd}).encode() + b"\n")
    else:
        (folder / name).write_bytes(data.draw(damaged_bytes(formats[name])))
    out = folder / "out"
    said = accepts_or_refuses("data", "prepare", folder / name, "--tokenizer", "bpe:260", "--out", out, "--quiet")
    assert out.exists() == (said.code == 0)
    assert {path.name for path in folder.iterdir()} == {name} | ({"out"} if out.exists() else set())


def test_nothing_in_a_parquet_file_is_unpickled(tmp_path):
    """Arrow's extension types of old carried a pickle (CVE-2023-47248)."""
    proof = tmp_path / "executed"
    pickled = f"cposix\nsystem\n(S'touch {proof}'\ntR.".encode()
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled}
    table = pa.Table.from_pylist(ROWS)
    fields = [field.with_metadata(metadata) if field.name == "loss" else field for field in table.schema]
    path = tmp_path / "runs.parquet"
    pq.write_table(table.cast(pa.schema(fields)), path)
    accepts_or_refuses("laws", "isoflop", path, "--draws", "20", "--json")
    assert not Path(proof).exists()
