"""The published pre-tokenised layout, bucket=*/*.parquet with a column of token ids: read as it is, from anywhere."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models

from noiselaw.data import parts as parts_module
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData
from noiselaw.data.tokenizer import TextTokenizer, load_tokenizer, train_bpe

SETTINGS = {"tokens_column": "tokens", "validation_fraction": 0.25, "shard_tokens": 5000}


@pytest.fixture(scope="module")
def tokenizer(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_bpe(texts, 300).to_json())
    return path


def write_buckets(folder: Path, texts: list[str], tokenizer: Path, kind: pa.DataType) -> Path:
    """Texts of similar length share a bucket; each bucket has two files; odd rows bring their end-of-text along."""
    known: TextTokenizer = load_tokenizer(tokenizer)
    rows = [ids.tolist() + [known.end_of_text_id] * (n % 2) for n, ids in enumerate(known.encode(texts))]
    for bucket in range(3):
        (folder / f"bucket={bucket}").mkdir(parents=True)
        for part in range(2):
            here = rows[2 * bucket + part :: 6]
            table = pa.table({"length": [len(row) for row in here], "tokens": pa.array(here, kind)})
            pq.write_table(table, folder / f"bucket={bucket}" / f"part.{part}.parquet", row_group_size=3)
    (folder / "_SUCCESS").touch()
    (folder / "README.md").write_text("not tokens")
    return folder


KINDS = [pa.list_(pa.int32()), pa.large_list(pa.uint32()), pa.list_(pa.int64())]


@pytest.fixture(scope="module")
def buckets(texts: list[str], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_buckets(tmp_path_factory.mktemp("web") / "data", texts, tokenizer, KINDS[0])


@pytest.fixture(scope="module")
def repacked(buckets: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return prepare([str(buckets)], tmp_path_factory.mktemp("repacked") / "out", tokenizer=str(tokenizer), **SETTINGS)


def shards(data: TokenData) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.folder.glob("*.bin")}


def documents(data: TokenData) -> list[str]:
    found = []
    for name in ("train", "validation"):
        split = data.split(name)
        tokens = split.sequences(np.array([0]), split.num_tokens)[0]
        parts = np.split(tokens, np.flatnonzero(tokens == data.end_of_text_id)[:-1] + 1)
        found += [load_tokenizer(data.tokenizer_path).decode(part[:-1]) for part in parts]
    return found


def test_tokens_are_those_of_the_text(repacked: TokenData, texts: list[str]):
    """Every document once, each with one end-of-text; bytes of the text are known from the tokens alone."""
    assert sorted(documents(repacked)) == sorted(texts)
    num_bytes = [repacked.split(name).num_bytes for name in ("train", "validation")]
    assert sum(num_bytes) == sum(len(text.encode()) for text in texts)
    assert min(num_bytes) > 0


@pytest.mark.parametrize("kind", KINDS[1:], ids=str)
def test_any_list_of_whole_numbers_will_do(
    kind, repacked: TokenData, texts: list[str], tokenizer: Path, tmp_path: Path
):
    folder = write_buckets(tmp_path / "in", texts, tokenizer, kind)
    assert shards(prepare([str(folder)], tmp_path / "out", tokenizer=str(tokenizer), **SETTINGS)) == shards(repacked)


def test_streamed_from_memory(repacked: TokenData, buckets: Path, tokenizer: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(parts_module, "LEAST_PART_BYTES", 2000)
    memory = fsspec.filesystem("memory")
    memory.put(str(buckets), "/web", recursive=True)
    try:
        data = prepare(["memory://web"], tmp_path / "out", tokenizer=str(tokenizer), **SETTINGS)
    finally:
        memory.rm("/web", recursive=True)
    assert shards(data) == shards(repacked)
    assert data.fingerprint == repacked.fingerprint


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_streamed_over_http_by_two_workers(
    repacked: TokenData, buckets: Path, tokenizer: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(parts_module, "LEAST_PART_BYTES", 10_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=buckets))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        data = prepare([f"{address}/"], tmp_path / "out", tokenizer=str(tokenizer), workers=2, **SETTINGS)
        with pytest.raises(ValueError, match=r"source '.*/nothing/': (no files there|cannot be listed)"):
            prepare([f"{address}/nothing/"], tmp_path / "none", tokenizer=str(tokenizer), **SETTINGS)
    finally:
        server.shutdown()
        server.server_close()
    assert shards(data) == shards(repacked)


def test_text_is_read_from_addresses_too(texts: list[str], corpus: Path, data: TokenData, tmp_path: Path):
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus), "/texts", recursive=True)
    try:
        found = prepare(
            ["memory://texts"], tmp_path / "out", tokenizer="bpe:300", validation_fraction=0.25, shard_tokens=500
        )
    finally:
        memory.rm("/texts", recursive=True)
    assert found.fingerprint == data.fingerprint


def write(path: Path, values, kind: pa.DataType | None = None, name: str = "tokens") -> str:
    pq.write_table(pa.table({name: pa.array(values, kind)}), path)
    return str(path)


LISTS = pa.list_(pa.int32())
BAD = {
    "beyond the vocabulary": ([[1, 2], None, [], [7, 300]], LISTS, r"a.parquet:3: .* holds token 300, .* ends at 299"),
    "negative": ([[1, -1]], LISTS, r"a.parquet:0: 'tokens' holds token -1"),
    "missing": ([[1], [2, None]], LISTS, r"a.parquet:1: 'tokens' holds token None"),
    "far beyond": ([[1], [2**64 - 1]], pa.list_(pa.uint64()), r"a.parquet:1: .* holds token 18446744073709551615"),
    "text": (["one"], None, r"a.parquet: column 'tokens' holds string, not lists of whole numbers"),
    "numbers": ([[0.5]], None, r"a.parquet: column 'tokens' holds list<.*double>, not lists"),
    "the mask": ([[5], [4, 257]], LISTS, r"a.parquet:1: holds the mask token 257"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_tokens_are_one_clear_error(name: str, tokenizer: Path, tmp_path: Path):
    values, kind, message = BAD[name]
    mask_id = load_tokenizer(tokenizer).mask_id
    values = [[mask_id if token == 257 else token for token in row] if isinstance(row, list) else row for row in values]
    with pytest.raises(ValueError, match=message.replace("257", str(mask_id))):
        prepare([write(tmp_path / "a.parquet", values, kind)], tmp_path / "out", tokenizer=str(tokenizer), **SETTINGS)


def test_wrong_requests(tokenizer: Path, tmp_path: Path):
    parquet, out = write(tmp_path / "a.parquet", [[1]], LISTS, name="ids"), tmp_path / "out"
    with pytest.raises(ValueError, match="no column 'tokens'; columns there: ids; choose one with --tokens-column"):
        prepare([parquet], out, tokenizer=str(tokenizer), **SETTINGS)
    with pytest.raises(ValueError, match="none can be trained on token ids; give the"):
        prepare([parquet], out, tokenizer="bpe:300", **SETTINGS)
    with pytest.raises(ValueError, match="leave --text-column and --separator out"):
        prepare([parquet], out, tokenizer=str(tokenizer), separator="|", **SETTINGS)
    (tmp_path / "b.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"b.jsonl: no Parquet, which --tokens-column needs"):
        prepare([str(tmp_path / "b.jsonl")], out, tokenizer=str(tokenizer), **SETTINGS)
    with pytest.raises(ValueError, match=r"source 'nosuch://x': cannot be listed"):
        prepare(["nosuch://x"], out, tokenizer=str(tokenizer), **SETTINGS)
    with pytest.raises(ValueError, match=r"source 'memory://nothing': no files there; check the address"):
        prepare(["memory://nothing"], out, tokenizer=str(tokenizer), **SETTINGS)


def test_a_vocabulary_of_131072(tmp_path: Path):
    words = {f"w{n}": n for n in range(131_069)} | {"<|endoftext|>": 131_069, "<|mask|>": 131_070, "<|empty|>": 131_071}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))
    rows = [[131_068, n] for n in range(200)]
    parquet = write(tmp_path / "a.parquet", rows, LISTS)
    data = prepare([parquet], tmp_path / "out", tokenizer=str(tmp_path), **SETTINGS)
    assert (data.vocab_size, data.manifest.dtype) == (131_072, "<u4")
    first, _, last = data.split("train").sequences(np.array([0]), 3)[0].tolist()
    assert (first, last) == (131_068, 131_069)
