"""The command line of evaluation: what it prints and what it refuses."""

import json

import pytest

from noiselaw.cli.evaluate import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    from noiselaw.specs import RunSpec, parse_spec
    from noiselaw.train.loop import train

    values = {
        "data": {"path": tiny_data, "sequence_length": 16},
        "model": {"num_layers": 1, "width": 16, "num_heads": 2},
        "objective": {"kind": "diffusion", "noise": "balanced"},
        "batch_sequences": 4,
        "schedule": {"num_steps": 5},
        "validation": {"num_sequences": 4, "num_points": 1},
        "runtime": {"num_threads": 1, "device": "cpu"},
    }
    folder = tmp_path_factory.mktemp("run") / "run"
    train(parse_spec(RunSpec, values, "test"), folder, [])
    return folder


def test_data_text_and_texts_written(run, tiny_data, tmp_path, capsys):
    def answer(*arguments):
        evaluate([str(run), *arguments, "--json", "--device", "cpu"])
        return json.loads(capsys.readouterr().out)

    data = answer("--data", str(tiny_data), "--num-sequences", "4")
    terms = data["diffusion"] + data["reconstruction"] + data["prior"]
    assert data["nats_per_token"] == pytest.approx(terms)
    assert data["standard_error"] > 0
    text = answer("--text", "alpha", "--prompt", "beta ", "--draws", "8")
    assert text["num_prompt_tokens"] == 5
    assert text["nats_per_token"] == pytest.approx(text["nats"] / 5)
    quality = answer(
        "--generate", "--scorer", str(run), "--steps", "2", "4", "--num-samples", "2", "--figure", str(tmp_path)
    )
    assert [point["steps"] for point in quality["curve"]] == [2, 4]
    assert (tmp_path / "quality.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of"),
        (["--text", "a", "--generate"], "got --text and --generate"),
        (["--text", ""], "no tokens"),
        (["--text", "a" * 9, "--prompt", "b" * 9], "longer than the 16"),
        (["--generate"], "name a model with --scorer"),
        (["--generate", "--scorer", "nowhere"], "--scorer nowhere: neither a run folder"),
        (["--generate", "--scorer", "nowhere", "--num-samples", "0"], "must be at least 1"),
        (["--data", "nowhere"], "no prepared data here"),
        (
            ["--text", "a", "--limit", "3", "--num-sequences", "4"],
            "--num-sequences, --limit: without effect with --text",
        ),
        (["--data", "x", "--prompt", "a"], "--prompt: without effect with --data; leave it out"),
        (["--generate", "--scorer", "x", "--draws", "4"], "--draws: without effect with --generate"),
        (["--text", "a", "--draws", "0"], "--draws 0: give at least 1"),
    ],
)
def test_mistakes_are_named(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate([str(run), *arguments])


def test_an_autoregressive_model_has_neither_steps_nor_draws(trained_run, capsys):
    run = str(trained_run("autoregressive"))
    for options in (["--text", "a", "--draws", "8"], ["--generate", "--scorer", run, "--steps", "8"]):
        with pytest.raises(ValueError, match="without effect on an autoregressive model"):
            evaluate([run, *options])
    evaluate([run, "--generate", "--scorer", run, "--num-samples", "2", "--length", "8", "--json", "--device", "cpu"])
    (point,) = json.loads(capsys.readouterr().out)["curve"]
    assert point["steps"] == 8


def test_a_missing_extra_is_named(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.delitem(sys.modules, "noiselaw.evaluation.harness", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'noiselaw\[evaluate\]'"):
        evaluate([str(run), "--tasks", "piqa"])
