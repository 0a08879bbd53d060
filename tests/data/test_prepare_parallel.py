"""Preparing in many processes, with interruptions, gives the bytes that one process gives at one go."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noiselaw.data import parts as parts_module
from noiselaw.data.encode import EncodeJob, encode_part
from noiselaw.data.parts import Part, cut_parts
from noiselaw.data.prepare import prepare
from noiselaw.data.readers import Piece, ReadOptions, read_documents
from noiselaw.data.sources import SourceFile, find_files
from noiselaw.data.tokenizer import train_bpe

SETTINGS = {"tokenizer": "bpe:300", "validation_fraction": 0.25, "shard_tokens": 5000}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "LEAST_PART_BYTES", 9000)


def write_all_kinds(folder: Path, texts: list[str]) -> Path:
    """The corpus once in each format, most of it in files larger than a part."""
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"a{text}"}) + "\n" for text in texts))
    pq.write_table(pa.table({"text": [f"b{text}" for text in texts]}), folder / "b.parquet", row_group_size=3)
    (folder / "c.txt").write_bytes("<|endoftext|>".join(f"c{text}" for text in texts).encode())
    for number, text in enumerate(texts[:5]):
        (folder / f"d{number}.txt").write_bytes(f"d{text}".encode())
    return folder


def test_any_number_of_workers_gives_the_same_bytes(texts: list[str], tmp_path: Path, monkeypatch):
    source = str(write_all_kinds(tmp_path / "in", texts))
    settings = {**SETTINGS, "separator": "<|endoftext|>"}
    whole = prepare([source], tmp_path / "whole", **settings)
    monkeypatch.setattr(parts_module, "LEAST_PART_BYTES", 9000)
    assert len(cut_parts(find_files([source]), ReadOptions(separator="<|endoftext|>"))) > 12
    prepare([source], tmp_path / "one", **settings)
    prepare([source], tmp_path / "three", **settings, workers=3)
    assert whole.manifest.splits["train"].num_documents + whole.manifest.splits["validation"].num_documents == 125
    assert content(tmp_path / "whole") == content(tmp_path / "one") == content(tmp_path / "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "one", "three", "whole"]


@pytest.mark.parametrize("part_bytes", [1, 2, 5, 7, 11, 64])
def test_cut_files_give_every_document_once(part_bytes: int, tmp_path: Path, monkeypatch):
    """Cuts fall inside separators, line ends, characters and empty documents."""
    monkeypatch.setattr(parts_module, "LEAST_PART_BYTES", part_bytes)
    monkeypatch.setattr("noiselaw.data.readers.READ_BYTES", 3)
    documents = ["", "größer", "", "|a", "数" * 9, "b|", ""]
    (tmp_path / "a.txt").write_bytes("<|>".join(documents).encode())
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n\n" for text in documents))
    pq.write_table(pa.table({"text": documents}), tmp_path / "c.parquet", row_group_size=2)
    (tmp_path / "d.txt").write_bytes(b"ababa")  # "aba" overlaps itself: such text stays whole
    for separator, name in (("<|>", "a.txt"), ("<|>", "b.jsonl"), ("<|>", "c.parquet"), ("aba", "d.txt")):
        options = ReadOptions(separator=separator)
        parts = cut_parts(find_files([str(tmp_path / name)]), options)
        found = [document.text for part in parts for document in read_documents(part.pieces, options)]
        assert found == (["", "ba"] if name == "d.txt" else documents)
        assert len(parts) > 1 or part_bytes > 7 or name == "d.txt"


def test_places_are_those_in_the_whole_file(tmp_path: Path, small_parts: None):
    lines = [json.dumps({"text": "x" * 90}) for _ in range(200)]
    lines[177] = "{"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"a\.jsonl:178: not JSON"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "out", **SETTINGS, workers=2)
    (tmp_path / "a.txt").write_bytes(b"|".join([b"x" * 90] * 170 + [b"\xff"] + [b"x" * 90] * 30))
    with pytest.raises(ValueError, match=r"a\.txt:170: not UTF-8 text"):
        prepare([str(tmp_path / "a.txt")], tmp_path / "out", **SETTINGS, separator="|")


KILLED = """
import sys
from pathlib import Path
from noiselaw.data import parts
from noiselaw.data.prepare import prepare

parts.LEAST_PART_BYTES = 9000

def observe(stage, done, total):
    print(stage, done, total, flush=True)

if __name__ == "__main__":
    prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer="bpe:300", validation_fraction=0.25, shard_tokens=5000,
            workers=2, observer=observe)
"""


def test_killed_again_and_again(corpus: Path, texts: list[str], tmp_path: Path):
    """Each life gets a little further, in whatever stage it dies; workers die with their parent."""
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED)
    done = {"encoding": 0, "writing shards": 0}
    lives = 0
    while not out.exists():
        lives += 1
        before = dict(done)
        with subprocess.Popen([sys.executable, script, corpus, out], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                stage, number, _ = line.rsplit(" ", 2)
                if stage in done:
                    assert int(number) >= done[stage]
                    done[stage] = int(number)
                if done != before and lives < 3:
                    process.send_signal(signal.SIGKILL)
                    break
            process.wait()
    assert lives == 3
    whole = prepare([str(corpus)], tmp_path / "whole", **SETTINGS)
    assert content(out) == content(whole.folder)
    assert not list(tmp_path.glob(".*"))


def test_finished_parts_are_not_encoded_again(corpus: Path, tmp_path: Path, small_parts: None, monkeypatch):
    calls = []

    def observe(stage: str, *_: object) -> None:
        calls.append(stage)
        if calls.count("encoding") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(corpus)], tmp_path / "out", **SETTINGS, observer=observe)
    kept = list((tmp_path / ".out.partial" / "parts").glob("*.json"))
    assert len(kept) == 3
    times = {path: path.stat().st_mtime_ns for path in kept}
    encoded = []
    monkeypatch.setattr("noiselaw.data.preparation.encode_part", lambda job: (encoded.append(job), encode_part(job))[1])

    def check(stage: str, *_: object) -> None:
        if stage == "writing shards":
            assert times == {path: path.stat().st_mtime_ns for path in kept}

    prepare([str(corpus)], tmp_path / "out", **SETTINGS, observer=check)
    parts = cut_parts(find_files([str(corpus)]), ReadOptions())
    assert len(encoded) == len(parts) - len(kept)


def test_a_part_whose_source_changed_is_encoded_again(texts: list[str], tmp_path: Path, small_parts: None):
    source = write_all_kinds(tmp_path / "in", texts)

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "writing shards":
            raise KeyboardInterrupt

    settings = {**SETTINGS, "tokenizer": str(train_tokenizer(tmp_path, texts))}
    with pytest.raises(KeyboardInterrupt):
        prepare([str(source)], tmp_path / "out", **settings, observer=stop)
    time.sleep(0.01)
    (source / "d0.txt").write_bytes((source / "d0.txt").read_bytes()[::-1].replace(b"\n", b" "))
    prepare([str(source)], tmp_path / "out", **settings)
    prepare([str(source)], tmp_path / "fresh", **settings)
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def train_tokenizer(folder: Path, texts: list[str]) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(train_bpe(texts, 300).to_json())
    return path


def die(_: EncodeJob) -> None:
    os._exit(9)


def test_a_worker_that_dies_is_named(corpus: Path, tmp_path: Path, small_parts: None, monkeypatch):
    monkeypatch.setattr("noiselaw.data.preparation.encode_part", die)
    with pytest.raises(ChildProcessError, match=r"a worker process died .* the same command continues"):
        prepare([str(corpus)], tmp_path / "out", **SETTINGS, workers=2)


def test_a_worker_holds_a_batch_not_a_file(texts: list[str], tmp_path: Path, monkeypatch):
    """Eight times the file takes the same memory (NumPy's and Python's; the tokenizer's own is per text)."""
    monkeypatch.setattr("noiselaw.data.encode.BATCH_CHARS", 20_000)
    tokenizer = train_tokenizer(tmp_path, texts)
    peaks = []
    for times in (4, 4, 32):
        file = tmp_path / f"{times}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * times))
        part = Part((Piece(SourceFile(str(file), file.stat().st_size, strict=True), file.stat().st_size),))
        tracemalloc.start()
        encode_part(EncodeJob(part, ReadOptions(), 0.25, tokenizer, tmp_path, f"part{times}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "32.jsonl").stat().st_size > 4 * peaks[2]
    assert peaks[2] < 1.1 * peaks[1]


def test_ray_gives_the_same_bytes(corpus: Path, tmp_path: Path, small_parts: None, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray: make test-cluster")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    prepare([str(corpus)], tmp_path / "here", **SETTINGS)
    prepare([str(corpus)], tmp_path / "ray", **SETTINGS, workers=2, executor="ray")
    assert content(tmp_path / "here") == content(tmp_path / "ray")


def test_without_ray_the_extra_is_named(corpus: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs the package ray; install it with pip install 'noiselaw\[ray\]'"):
        prepare([str(corpus)], tmp_path / "out", **SETTINGS, executor="ray")
    assert not list(tmp_path.iterdir())


def test_tokens_of_parts_are_kept_whole_on_their_way_into_shards(corpus: Path, tmp_path: Path, small_parts: None):
    data = prepare([str(corpus)], tmp_path / "out", **SETTINGS)
    for name in ("train", "validation"):
        sizes = [shard.num_tokens for shard in data.manifest.splits[name].shards]
        assert set(sizes[:-1]) <= {5000}
        tokens = data.split(name).sequences(np.array([0]), data.split(name).num_tokens)[0]
        assert (tokens == data.end_of_text_id).sum() == data.split(name).num_documents


def test_a_source_named_twice_counts_twice(corpus: Path, tmp_path: Path, small_parts: None):
    once = prepare([str(corpus)], tmp_path / "once", **SETTINGS)
    twice = prepare([str(corpus)] * 2, tmp_path / "twice", **SETTINGS, workers=2)
    for name in ("train", "validation"):
        assert twice.split(name).num_documents == 2 * once.split(name).num_documents
