"""Settings from anywhere (runs, recipes, prepared data, tokenizers): taken, or refused in one message; never a hang."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from commandline import accepts_or_refuses
from hostile import altered, damaged_bytes, fuzzing, tree, write_json_as_is
from hypothesis import given
from hypothesis import strategies as st

from noiselaw.cli import study as study_command
from noiselaw.cli import train as train_command

ROOT = Path(__file__).parents[2]


@pytest.fixture
def only_read(monkeypatch):
    """Runs and studies end where they would begin."""
    result = {"validation": {"step": 1, "tokens": 1, "loss": 1.0, "standard_error": 0.1, "bits_per_byte": 1.0}}
    monkeypatch.setattr(train_command, "train_run", lambda *_: result)
    monkeypatch.setattr(train_command, "starting_point", lambda _: None)
    monkeypatch.setattr(study_command, "run_study", lambda *_: None)
    monkeypatch.setattr(study_command, "write_report", lambda folder: folder)


@fuzzing(20)
@given(data=st.data())
def test_settings_of_a_run_and_recipes_of_a_study(data, desk, only_read):
    write, words = data.draw(
        st.sampled_from(
            [(desk.write_spec("spec"), ["train", "--quiet"]), (ROOT / "recipes" / "laptop.yaml", ["study", "run"])]
        )
    )
    values = yaml.safe_load(write.read_text(encoding="utf-8"))
    path = desk.folder / data.draw(st.sampled_from(["drawn.yaml", "drawn.json"]))
    if data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(values)))
    else:
        path.write_bytes(data.draw(damaged_bytes(write.read_bytes())))
    before = tree(desk.folder)
    accepts_or_refuses(*words, path, "--out", desk.folder / "out")
    assert tree(desk.folder) == before


@fuzzing(20)
@given(data=st.data())
def test_manifests_and_files_of_prepared_data(data, desk, tmp_path):
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(desk.data, folder)
    name = data.draw(st.sampled_from(["manifest.json", "manifest.json", *sorted(p.name for p in folder.iterdir())]))
    path = folder / name
    if name == "manifest.json" and data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(path.read_text(encoding="utf-8")))))
    else:
        path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    unchanged = path.read_bytes() == (desk.data / name).read_bytes()
    said = accepts_or_refuses("data", "inspect", folder)
    if name != "manifest.json":
        assert (said.code == 0) == unchanged
        assert unchanged or name in said.err


@fuzzing(20)
@given(data=st.data())
def test_tokenizers(data, desk, tmp_path):
    path = tmp_path / "tokenizer.json"
    content = (desk.data / "tokenizer.json").read_bytes()
    if data.draw(st.booleans()):
        write_json_as_is(path, data.draw(altered(json.loads(content))))
    else:
        path.write_bytes(data.draw(damaged_bytes(content)))
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    accepts_or_refuses("data", "prepare", desk.texts, "--tokenizer", path, "--out", out, "--quiet")
