"""`prepare` keeps every document whole, writes all or nothing, and repeats itself byte for byte."""

import hashlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData
from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.files import FolderInUseError, only_writer

SETTINGS = {"tokenizer": "bpe:300", "validation_fraction": 0.25}


def decoded(data: TokenData, name: str) -> list[str]:
    split = data.split(name)
    tokens = split.sequences(np.array([0]), split.num_tokens)[0]
    assert tokens[-1] == data.end_of_text_id
    documents = np.split(tokens, np.flatnonzero(tokens == data.end_of_text_id)[:-1] + 1)
    tokenizer = load_tokenizer(data.tokenizer_path)
    return [tokenizer.decode(document[:-1]) for document in documents]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_document_is_kept_whole_on_one_side(data: TokenData, texts: list[str]):
    train, validation = decoded(data, "train"), decoded(data, "validation")
    assert sorted(train + validation) == sorted(texts)
    assert [text for text in texts if text in train] == train
    assert 0 < len(validation) < len(train)


def test_counts(data: TokenData):
    for name in ("train", "validation"):
        split, documents = data.split(name), decoded(data, name)
        assert split.num_documents == len(documents)
        assert split.num_bytes == sum(len(text.encode()) for text in documents)
        assert split.bytes_per_token == split.num_bytes / split.num_tokens
    assert data.vocab_size == 300
    assert data.manifest.dtype == "<u2"


def test_split_depends_on_the_document_alone(data: TokenData, texts: list[str], tmp_path: Path):
    """Neither order nor neighbours nor the format move a document to the other side."""
    validation = set(decoded(data, "validation"))
    folder = tmp_path / "reversed"
    folder.mkdir()
    for number, text in enumerate(reversed(texts)):
        (folder / f"{number:02d}.txt").write_bytes(text.encode())
    (folder / "99.txt").write_text("one more document " * 50)
    other = prepare([str(folder)], tmp_path / "out", **SETTINGS)
    assert set(decoded(other, "validation")) - {"one more document " * 50} == validation


def test_the_share_held_out(tmp_path: Path):
    (tmp_path / "a.txt").write_text("|".join(f"document number {n}" for n in range(4000)))
    data = prepare(
        [str(tmp_path / "a.txt")], tmp_path / "out", tokenizer="bpe:270", validation_fraction=0.1, separator="|"
    )
    assert abs(data.split("validation").num_documents - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)


def test_the_same_request_gives_the_same_bytes(corpus: Path, tmp_path: Path):
    first = prepare([str(corpus)], tmp_path / "a", **SETTINGS)
    second = prepare([str(corpus)], tmp_path / "b", **SETTINGS)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert first.fingerprint == second.fingerprint


def test_a_finished_folder_is_left_alone(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    calls = []
    prepare([str(corpus)], out, **SETTINGS, observer=lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2]
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == [
        "reading",
        "training the tokenizer",
        "encoding",
        "writing shards",
    ]
    before = {path: path.stat().st_mtime_ns for path in (out, *out.iterdir())}
    calls.clear()
    prepare([str(corpus)], out, **SETTINGS, observer=lambda *call: calls.append(call))
    assert not calls
    assert before == {path: path.stat().st_mtime_ns for path in (out, *out.iterdir())}


def test_another_request_does_not_overwrite(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    prepare([str(corpus)], out, **SETTINGS)
    before = content(out)
    with pytest.raises(ValueError, match=r"prepared with tokenizer = 'bpe:300', not 'bpe:301'; choose another folder"):
        prepare([str(corpus)], out, **{**SETTINGS, "tokenizer": "bpe:301"})
    assert content(out) == before


def test_an_output_folder_with_other_files_is_refused(corpus: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files; choose one that is empty"):
        prepare([str(corpus)], tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="is a file; choose a folder"):
        prepare([str(corpus)], tmp_path / "thesis.txt", **SETTINGS)
    assert content(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_folder_being_prepared_is_left_to_its_process(corpus: Path, tmp_path: Path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "shard").write_bytes(b"theirs")
    with only_writer(partial), pytest.raises(FolderInUseError, match="another process is working in this folder"):
        prepare([str(corpus)], tmp_path / "out", **SETTINGS)
    assert content(partial) == {"shard": b"theirs"}


def test_an_empty_output_folder_is_used(corpus: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    prepare([str(corpus)], tmp_path / "out", **SETTINGS)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_the_output_may_lie_inside_the_source(texts: list[str], tmp_path: Path):
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    for _ in range(2):
        data = prepare([str(tmp_path)], tmp_path / "out", **SETTINGS)
        assert sum(data.split(name).num_documents for name in ("train", "validation")) == len(texts)


def test_documents_without_text_are_left_out(corpus: Path, tmp_path: Path):
    for name, text in {"blank.txt": b" \n", "empty.txt": b"", "image.bin": b"\xff\x00"}.items():
        (tmp_path / name).write_bytes(text)
    data = prepare([str(corpus), str(tmp_path)], tmp_path / "out", **SETTINGS)
    assert data.manifest.num_skipped_documents == 3
    assert sum(data.split(name).num_documents for name in ("train", "validation")) == 40


def test_a_tokenizer_given_by_file(data: TokenData, corpus: Path, tmp_path: Path):
    other = prepare([str(corpus)], tmp_path / "out", tokenizer=str(data.folder), validation_fraction=0.25)
    for name in ("train", "validation"):
        assert decoded(other, name) == decoded(data, name)


def test_the_tokenizer_learns_from_training_documents_alone(data: TokenData, tmp_path: Path):
    (tmp_path / "all").mkdir()
    for number, text in enumerate(decoded(data, "train")):
        (tmp_path / "all" / f"{number}.txt").write_bytes(text.encode())
    held_out = next(f"qqqq zzzz {n} " * 4000 for n in range(99) if falls_on_validation(f"qqqq zzzz {n} " * 4000))
    (tmp_path / "all" / "held_out.txt").write_text(held_out)
    other = prepare([str(tmp_path / "all")], tmp_path / "out", **SETTINGS)
    assert other.tokenizer_path.read_text() == data.tokenizer_path.read_text()


def falls_on_validation(text: str) -> bool:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()[0] < 64  # a quarter of all hashes


def test_large_vocabularies_take_four_bytes(corpus: Path, tmp_path: Path):
    words = {f"w{n}": n for n in range(70_000)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w69999"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    data = prepare([str(corpus)], tmp_path / "out", tokenizer=str(tmp_path), validation_fraction=0.25)
    assert data.manifest.dtype == "<u4"
    tokens = data.split("train").sequences(np.array([0]), 2)[0]
    assert tokens.tolist() == [69_999, data.end_of_text_id]


def test_text_that_encodes_to_the_mask_is_refused(corpus: Path, tmp_path: Path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "<mask>": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "bad.txt").write_text("a <mask> in the text")
    with pytest.raises(ValueError, match=r"bad.txt: its text encodes to the mask token 1"):
        prepare([str(corpus), str(tmp_path / "bad.txt")], tmp_path / "out", tokenizer=str(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_validation_fraction_out_of_range(fraction: float, corpus: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=f"validation fraction {fraction} must lie between 0 and 1"):
        prepare([str(corpus)], tmp_path / "out", tokenizer="bpe:300", validation_fraction=fraction)


def test_a_single_document_cannot_be_split(tmp_path: Path):
    (tmp_path / "a.txt").write_text("the only document there is")
    with pytest.raises(ValueError, match="the validation split got no document; give more documents"):
        prepare([str(tmp_path / "a.txt")], tmp_path / "out", tokenizer="bpe:260", validation_fraction=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_sources_without_any_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(ValueError, match=r"the sources hold no text \(1 files, 1 bytes\)"):
        prepare([str(tmp_path / "a.txt")], tmp_path / "out", tokenizer="bpe:260")


def test_a_full_disk_leaves_nothing_behind(corpus: Path, tmp_path: Path):
    """A limit on file size stands for the full disk: writing fails in the middle of a shard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*out: .*free space or choose another folder"):
            prepare([str(corpus)], tmp_path / "out", **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
from noiselaw.data.prepare import prepare

def observe(stage, done, total):
    if stage == "encoding" and done == total:
        print("ready", flush=True)
        time.sleep(60)

prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer="bpe:300", validation_fraction=0.25, observer=observe)
"""


def test_a_kill_leaves_nothing_half_written(corpus: Path, data: TokenData, tmp_path: Path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, corpus, out], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(ValueError, match="another process is working in this folder"):
            prepare([str(corpus)], out, **SETTINGS)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    again = prepare([str(corpus)], out, **SETTINGS)
    assert list(tmp_path.iterdir()) == [out]
    assert decoded(again, "train") == decoded(data, "train")


def test_preparing_and_reading_never_load_torch():
    code = "import sys, noiselaw.data.prepare, noiselaw.data.shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
