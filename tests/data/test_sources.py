"""Every format yields the same documents; damaged or unsuitable input is one clear error."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from noiselaw.data.parts import cut_parts
from noiselaw.data.readers import ReadOptions, read_documents
from noiselaw.data.sources import find_files

SEPARATOR = "<|endoftext|>"


def read(*sources: Path | str, **options) -> list[str]:
    choice = ReadOptions(**options)
    parts = cut_parts(find_files([str(source) for source in sources]), choice)
    return [document.text for part in parts for document in read_documents(part.pieces, choice)]


def json_lines(texts: list[str], key: str = "text") -> bytes:
    return b"".join(json.dumps({"id": n, key: text}).encode() + b"\n" for n, text in enumerate(texts))


def write_folder(path: Path, texts: list[str]) -> None:
    path.mkdir()
    for number, text in enumerate(texts):
        (path / f"{number:02d}.md").write_bytes(text.encode())


WRITERS = {
    "folder": write_folder,
    "a.jsonl": lambda path, texts: path.write_bytes(json_lines(texts)),
    "a.json.gz": lambda path, texts: path.write_bytes(gzip.compress(json_lines(texts))),
    "a.jsonl.gz": lambda path, texts: path.write_bytes(
        gzip.compress(json_lines(texts[:7])) + gzip.compress(json_lines(texts[7:]))
    ),
    "a.jsonl.zst": lambda path, texts: path.write_bytes(zstandard.compress(json_lines(texts))),
    "a.parquet": lambda path, texts: pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path, texts: list[str]):
    WRITERS[name](tmp_path / name, texts)
    assert read(tmp_path / name) == texts


@pytest.mark.parametrize("compress", [lambda content: content, gzip.compress, zstandard.compress])
def test_separator_cuts_a_text_file(compress, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("noiselaw.data.readers.READ_BYTES", 7)  # separators straddle blocks
    suffix = {gzip.compress: ".gz", zstandard.compress: ".zst"}.get(compress, "")
    path = tmp_path / f"all.txt{suffix}"
    path.write_bytes(compress(SEPARATOR.join(texts).encode()))
    assert read(path, separator=SEPARATOR) == texts
    assert read(path) == [SEPARATOR.join(texts)]


@pytest.mark.parametrize("name", WRITERS)
def test_progress_adds_up_to_the_files(name: str, tmp_path: Path, texts: list[str]):
    WRITERS[name](tmp_path / name, texts)
    files = find_files([str(tmp_path / name)])
    assert sum(part.size for part in cut_parts(files, ReadOptions())) == sum(file.size for file in files)


def test_other_column(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(["x"], key="content"))
    pq.write_table(pa.table({"content": ["y", None]}), tmp_path / "b.parquet")
    assert read(tmp_path, text_column="content") == ["x", "y", ""]


def test_folder_is_searched_in_order_without_hidden_and_binary_files(tmp_path: Path):
    for name, content in {
        "b.txt": b"b",
        "a/z.txt": b"az",
        "a/c/d": b"acd",
        ".git/config": b"hidden",
        "a/latin.txt": b"\xff\xfe",
        "b.bin": b"\x00\x01",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path) == ["acd", "", "az", "", "b"]


def test_half_a_surrogate_pair_is_not_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud800"}\n{"text": "fine"}\n')
    assert read(tmp_path) == ["", "fine"]


def test_python_source_is_the_standard_library():
    files = find_files(["python"])
    paths = [Path(file.address) for file in files]
    names = [path.name for path in paths]
    assert {"os.py", "dataclasses.py", "LICENSE.txt"} <= set(names)
    assert not any("site-packages" in path.parts for path in paths)
    assert {path.suffix for path in paths} <= {".py", ".txt", ".rst", ".md"}
    assert sum(file.size for file in files) > 10_000_000
    assert [path.parts for path in paths] == sorted(path.parts for path in paths)
    contents = [path.read_bytes() for path in paths]
    assert len(set(contents)) == len(contents)


def damaged_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:-10])


BAD_INPUT = {
    "no-such-place": (lambda _: None, "no such file or folder"),
    "empty": (lambda path: path.mkdir(), "no files with text"),
    "latin.txt": (lambda path: path.write_bytes(b"caf\xe9"), "not UTF-8 text.*convert it"),
    "cut.txt.gz": (lambda path: path.write_bytes(gzip.compress(b"text" * 99)[:-9]), "cannot be read to its end"),
    "cut.jsonl.zst": (
        lambda path: path.write_bytes(zstandard.compress(json_lines(["a" * 99]))[:-9]),
        "cannot be read to its end",
    ),
    "not.jsonl.gz": (lambda path: path.write_bytes(b"plain"), "cannot be read to its end"),
    "cut.parquet": (damaged_parquet, "cannot be read to its end"),
    "column.parquet": (
        lambda path: pq.write_table(pa.table({"id": [1], "body": ["a"]}), path),
        "no column 'text'; columns there: id, body; choose one with --text-column",
    ),
    "type.parquet": (lambda path: pq.write_table(pa.table({"text": [1]}), path), "holds int, not text"),
    "key.jsonl": (
        lambda path: path.write_bytes(json_lines(["a"], key="body")),
        "key.jsonl:1: no key 'text'; keys there: id, body; choose one with --text-column",
    ),
    "list.jsonl": (lambda path: path.write_text('{"text": "a"}\n[]\n'), "list.jsonl:2: a JSON list; expected"),
    "pretty.json": (lambda path: path.write_text('{\n "text": "a"\n}\n'), "pretty.json:1: not JSON.*one JSON object"),
    "deep.jsonl": (lambda path: path.write_text("[" * 100_000), "deep.jsonl:1: not JSON"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_clear_error(name: str, tmp_path: Path):
    write, message = BAD_INPUT[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_no_source():
    with pytest.raises(ValueError, match="no source given"):
        find_files([])
