"""Models and runs from anywhere (weights, configurations, run folders): taken, or refused in one message."""

import json
import shutil
from pathlib import Path

import pytest
from commandline import accepts_or_refuses, call
from hostile import altered, damaged_bytes, fuzzing, tree, write_json_as_is
from hypothesis import given
from hypothesis import strategies as st

from noiselaw.hub import loading
from noiselaw.hub.weights import write_weights

SHORT = ["--length", "8", "--steps", "2", "--quiet"]
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def models(trained_run, tmp_path_factory) -> dict[str, Path]:
    """A folder of every kind that holds a model, by name."""
    folder = tmp_path_factory.mktemp("models")
    made = {"run": trained_run("balanced"), "unigram": trained_run("unigram")}
    for name in ("export", "sharded"):
        made[name] = folder / name
        assert call("export", made["unigram"], "--out", made[name]).code == 0
    weights = loading.load_model(made["sharded"]).model.state_dict()
    (made["sharded"] / "model.safetensors").unlink()
    write_weights(made["sharded"], weights, shard_bytes=10_000)
    return made


@pytest.fixture(scope="module")
def published(reference_dir, tmp_path_factory) -> Path:
    return shutil.copytree(reference_dir / "gidd_tiny", tmp_path_factory.mktemp("published") / "gidd_tiny")


def damage_one_file(data, folder: Path) -> None:
    """One file of the folder, drawn by kind so that the many checkpoints and shards are not all there is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    suffix = data.draw(st.sampled_from(sorted({path.suffix for path in files} - {".md"})))
    path = data.draw(st.sampled_from([path for path in files if path.suffix == suffix]))
    content = path.read_bytes()
    if suffix == ".json" and data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(content))))
    elif suffix == ".safetensors" and data.draw(st.booleans()):
        path.write_bytes(with_header(content, data.draw(altered(header(content)))))
    else:
        path.write_bytes(data.draw(damaged_bytes(content)))


def header(content: bytes) -> dict:
    """What a safetensors file says of its tensors."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def with_header(content: bytes, values) -> bytes:
    """The file with another header, its size right."""
    text = json.dumps(values).encode("utf-8", errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


@fuzzing(30)
@given(data=st.data())
def test_folders_with_a_model(data, models, tmp_path):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models[data.draw(st.sampled_from(sorted(models)))], folder)
    damage_one_file(data, folder)
    before = tree(folder)
    accepts_or_refuses("sample", folder, *SHORT)
    assert tree(folder) == before


@fuzzing(20)
@given(data=st.data())
def test_published_checkpoints(data, published, tmp_path):
    folder = tmp_path / "gidd"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(published, folder)
    damage_one_file(data, folder)
    accepts_or_refuses("sample", folder, *SHORT)


@fuzzing(20)
@given(data=st.data())
def test_finished_runs_that_are_continued_and_exported(data, trained_run, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out"
    for path in (folder, out):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(trained_run("balanced"), folder)
    if data.draw(st.booleans()):
        (folder / "result.json").unlink()
    name = data.draw(st.sampled_from(["run.json", "metrics.jsonl", "result.json", "spec.json", "tokenizer.json"]))
    path = folder / name
    content = path.read_bytes() if path.exists() else b"{}"
    if name.endswith(".json") and data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(content))))
    elif name == "metrics.jsonl" and data.draw(st.booleans()):
        lines = content.splitlines(keepends=True)
        row = data.draw(st.integers(0, len(lines) - 1))
        lines[row] = json.dumps(data.draw(altered(json.loads(lines[row])))).encode() + b"\n"
        path.write_bytes(b"".join(lines))
    else:
        path.write_bytes(data.draw(damaged_bytes(content)))
    if name != "spec.json":  # which may ask for anything
        accepts_or_refuses("train", folder, "--quiet")
    accepts_or_refuses("export", folder, "--out", out)
