"""Files made to harm: nothing in them is executed, nothing outside the folder is read as a part or written."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commandline import call, refused
from stages import Desk

from noiselaw.data.manifest import TOKENIZER_NAME
from noiselaw.files import read_json, write_json


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def proof(tmp_path):
    """The file that is there where code was executed."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def test_the_trap_works(tmp_path):
    """Unpickled by somebody careless, it does execute."""
    pickle.loads(pickle.dumps(Touch(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


TAGS = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/new:subprocess.check_output [['touch', '{}']]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_executes_nothing(tag, proof, tmp_path):
    tag = tag.format(proof)
    path = tmp_path / "spec.yaml"
    path.write_text(f"name: {tag}\n", encoding="utf-8")
    for words in (["train", path], ["study", "run", path]):
        assert "not readable as YAML or JSON" in refused(*words)
    path.write_text("name: fine\n", encoding="utf-8")
    assert "is not a value" in refused("train", path, "--name", tag)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
"""A billion words in 300 letters."""


@pytest.mark.parametrize("key", ["name", "data", "model", "objective", "optimizer", "seed"])
def test_small_files_that_stand_for_gigabytes_are_refused_in_few_words(key, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(f"{BOMB}{key}: *j\n", encoding="utf-8")
    assert f"{key}:" in refused("train", path)
    path.write_text(f"{BOMB}groups: *j\nrun: {{x: *j}}\n", encoding="utf-8")
    assert "groups" in refused("study", "run", path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5000, '{"a":' * 100_000], ids=["lists", "flow", "objects"])
def test_settings_nested_beyond_measure_are_refused(text, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    assert "not readable as YAML or JSON" in refused("train", path)


@pytest.fixture
def data(tiny_data, tmp_path):
    """Prepared data that a test may damage."""
    return shutil.copytree(tiny_data, tmp_path / "data")


def test_token_counts_are_not_unpickled(data, proof, tmp_path):
    with (data / "train.counts.npy").open("wb") as stream:
        np.save(stream, np.array([Touch(proof)], dtype=object), allow_pickle=True)
    manifest = read_json(data / "manifest.json")
    manifest["splits"]["train"]["counts"]["sha256"] = sha256(data / "train.counts.npy")
    write_json(data / "manifest.json", manifest)
    desk = Desk(tmp_path)
    unigram = ["--objective.noise", "{shift: 0.0, reference: unigram}"]
    assert "train.counts.npy" in refused("train", desk.write_spec("spec"), "--out", tmp_path / "run", *unigram)


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_kept_frequencies_are_not_unpickled(trained_run, proof, tmp_path):
    run = shutil.copytree(trained_run("unigram"), tmp_path / "run")
    with (run / "token_frequencies.npy").open("wb") as stream:
        np.save(stream, np.array([Touch(proof)], dtype=object), allow_pickle=True)
    assert "token_frequencies.npy: damaged" in refused("sample", run, "--quiet")


def test_checkpoints_and_weights_are_not_unpickled(copied_run, proof, tmp_path):
    export = tmp_path / "export"
    assert call("export", copied_run, "--out", export).code == 0
    weights = [path for path in copied_run.joinpath("checkpoints").rglob("*") if path.is_file()]
    for path in [*weights, export / "model.safetensors"]:
        torch.save(Touch(proof), path)
    assert "checkpoint" in refused("sample", copied_run, "--quiet")
    assert "model.safetensors: damaged" in refused("sample", export, "--quiet")


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/passwd", "sub/train.bin", "..", "."])
def test_a_manifest_names_files_of_its_folder_only(name, data, tmp_path):
    shutil.copy(data / "train-00000.bin", tmp_path / "secret.bin")
    manifest = read_json(data / "manifest.json")
    manifest["splits"]["train"]["shards"][0]["name"] = name
    write_json(data / "manifest.json", manifest)
    message = refused("data", "inspect", data)
    assert "must be a plain file name inside the folder" in message


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "pytorch_model.bin"])
def test_an_index_names_files_of_its_folder_only(name, copied_run, tmp_path):
    export = tmp_path / "export"
    assert call("export", copied_run, "--out", export).code == 0
    (export / "model.safetensors").rename(tmp_path / "model.safetensors")
    write_json(export / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": name}})
    assert "only .safetensors files beside the index are read" in refused("sample", export, "--quiet")


def test_the_name_of_a_run_never_leads_out_of_its_folder(tiny_data, tmp_path, monkeypatch):
    """Without --out a run lies in runs/NAME."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    spec = yaml.safe_load(Desk(tmp_path).write_spec("spec").read_text(encoding="utf-8"))
    spec |= {"name": "../../escaped", "data": {"path": str(tiny_data), "sequence_length": 16}}
    spec["schedule"] = {"num_steps": 1}
    (here / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert "name" in refused("train", "spec.yaml", "--quiet")
    assert not list(tmp_path.glob("escaped"))


def test_a_tokenizer_of_a_prepared_folder_is_the_one_it_was_prepared_with(data):
    (data / TOKENIZER_NAME).write_text("{}", encoding="utf-8")
    assert "altered since it was prepared" in refused("data", "inspect", data)
