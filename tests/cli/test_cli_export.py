"""`noiselaw export` and `noiselaw train --init` as typed: what they print, and one clear line for each mistake."""

import json
import re
import shutil

import pytest

from noiselaw.cli.main import EXIT_USER_ERROR, main
from noiselaw.files import read_json

SPEC = """
name: tuned
data: {{path: {data}, sequence_length: 32}}
model: {{num_layers: 1, width: 16, num_heads: 2}}
objective: {{kind: diffusion, noise: masked}}
batch_sequences: 4
schedule: {{num_steps: 2}}
validation: {{num_sequences: 4, num_points: 1}}
runtime: {{num_threads: 1, device: cpu}}
"""


@pytest.fixture
def noiselaw(monkeypatch, capsys, tmp_path, tiny_data):
    """A function that runs the program in a folder that holds spec.yaml; returns (standard output, standard error)."""
    (tmp_path / "spec.yaml").write_text(SPEC.format(data=tiny_data), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["noiselaw", *map(str, arguments)])
        main()
        return capsys.readouterr()

    return call


@pytest.fixture
def fails(noiselaw, capsys):
    """The one line of the error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            noiselaw(*arguments)
        assert stop.value.code == EXIT_USER_ERROR
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("noiselaw: ")
        return line

    return call


def test_a_run_goes_out_and_comes_back(trained_run, noiselaw, tmp_path):
    """Exported, sampled from, scored and trained further: the first loss is that of the exported model."""
    run = trained_run("masked")
    out, err = noiselaw("export", run, "--out", "out")
    assert (out, err) == ("out: masked after 60 steps; state its licence in out/README.md\n", "")
    record = json.loads(noiselaw("export", run, "--out", "again", "--json").out)
    assert (record["folder"], record["step"], record["sequence_length"]) == ("again", 60, 32)
    options = ("--prompt", "alpha", "--json", "--device", "cpu")
    texts = [json.loads(noiselaw("sample", place, *options).out)["samples"] for place in (run, "out")]
    assert texts[0] == texts[1]
    scores = [json.loads(noiselaw("evaluate", place, "--text", "alpha", "--json").out) for place in (run, "out")]
    assert scores[0]["nats"] == scores[1]["nats"]
    out, _ = noiselaw(
        "train", "spec.yaml", "--init", "out", "--out", "tuned", "--quiet", "--optimizer.learning-rate", "1e-30"
    )
    found = float(re.search(r"held-out loss ([\d.]+)", out)[1])
    spec = ("--data", read_json(tmp_path / "tuned" / "spec.json")["data"]["path"], "--num-sequences", "4", "--json")
    assert found == pytest.approx(json.loads(noiselaw("evaluate", "out", *spec).out)["nats_per_token"], abs=1e-4)


def test_a_wrong_folder_is_named(trained_run, fails, tiny_data, tmp_path):
    assert "nowhere: is no run folder (no spec.json)" in fails("export", "nowhere", "--out", "out")
    assert f"{tiny_data}: is no run folder" in fails("export", tiny_data, "--out", "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "full: exists already and is not empty" in fails("export", trained_run("masked"), "--out", "full")
    message = fails("export", trained_run("masked"), "--out", "out", "--laws", "nowhere")
    assert "--laws nowhere: no such study nor laws.json" in message
    assert not (tmp_path / "out").exists()


def test_an_unstarted_run_has_nothing_to_export(trained_run, fails, tmp_path):
    run = shutil.copytree(trained_run("masked"), tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint to load; train it further" in fails("export", run, "--out", "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init", "nowhere"), "nowhere: no such folder; give a run folder"),
        (("--model.width", "32"), "its model differs from the spec's in width; add --model.width 16"),
        (("--init.head-std", "0.1"), "not a group of settings; give init whole"),
        (("--data.path", "nowhere"), "no prepared data here"),
    ],
)
def test_a_wrong_start_is_named(trained_run, fails, tmp_path, options, message):
    init = () if options[0].startswith("--init") and "." not in options[0] else ("--init", trained_run("masked"))
    assert message in fails("train", "spec.yaml", *init, *options, "--quiet")
    assert not (tmp_path / "runs").exists()
