"""A whole study of a minute: stopped in the middle and continued, it ends as the one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from noiselaw.files import only_writer, read_json

RECIPE = {
    "name": "mini",
    "data": {"source": "", "tokenizer": "bpe:259", "sequence_length": 16},
    "groups": ["autoregressive"],
    "shapes": [{"num_layers": 1, "width": width, "num_heads": 2} for width in (8, 12, 16, 24)],
    "budgets_flops": [5e7, 1e8, 2e8, 4e8],
    "batch_tokens": {"coefficient": 64, "exponent": 0.0},
    "learning_rate": {"coefficient": 0.3, "exponent": 0.0},
    "confirmation": {
        "groups": ["autoregressive"],
        "budget_factor": 2,
        "candidates": [{"num_layers": 1, "width": width, "num_heads": 2} for width in (16, 24, 32)],
    },
    "num_workers": 2,
    "run": {"validation": {"num_sequences": 32, "num_points": 12, "decades": 1.2}},
}


@pytest.fixture(scope="module")
def recipe(tiny_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "mini.yaml"
    source = str(tiny_data.parent / "texts")
    path.write_text(yaml.safe_dump({**RECIPE, "data": {**RECIPE["data"], "source": source}}), encoding="utf-8")
    return path


def command(recipe: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "noiselaw.cli", "study", "run", str(recipe), "--out", str(folder)]


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "whole"
    done = subprocess.run(command(recipe, folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "error" in done.stdout
    return folder


def test_study_leaves_its_tables_laws_and_report(finished):
    laws = read_json(finished / "laws.json")["groups"]["autoregressive"]["laws"]
    assert laws["loss"]["exponent"] < 0
    assert laws["tokens"]["exponent"] == pytest.approx(1 - laws["flops_per_token"]["exponent"])
    result = read_json(finished / "confirmation.json")["groups"]["autoregressive"][0]
    assert result["error_percent"] == pytest.approx(100 * (result["predicted"] / result["measured_loss"] - 1))
    assert (finished / "report.html").stat().st_size > 1_000_000
    record = read_json(finished / "study.json")
    assert record["num_runs"] == 5
    assert set(record["elapsed_seconds"]) == {"data", "grid", "confirmation", "total"}


def test_prediction_is_older_than_the_run_that_tests_it(finished):
    prediction = read_json(finished / "prediction.json")
    run = finished / "runs" / prediction["groups"]["autoregressive"]["run"]
    assert (finished / "prediction.json").stat().st_mtime < (run / "run.json").stat().st_mtime
    assert datetime.fromisoformat(prediction["written_at"]).tzinfo is not None


def test_same_command_again_changes_nothing(finished, recipe):
    names = ("laws.json", "prediction.json", "confirmation.json", "curves.csv")
    before = {name: (finished / name).read_bytes() for name in names}
    subprocess.run(command(recipe, finished), check=True, capture_output=True)
    assert {name: (finished / name).read_bytes() for name in names} == before


def test_interrupted_and_continued_ends_the_same(finished, recipe, tmp_path):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(command(recipe, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size > 2000 for path in folder.glob("runs/*/metrics.jsonl")):
            os.kill(process.pid, signal.SIGINT)
            break
        time.sleep(0.05)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert not (folder / "laws.json").exists()
    subprocess.run(command(recipe, folder), check=True, capture_output=True)
    for name in ("laws.json", "curves.csv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    one, other = (read_json(at / "confirmation.json")["groups"] for at in (folder, finished))
    assert one == other


def test_status_as_json(finished, recipe):
    words = ["study", "status", str(recipe), "--out", str(finished), "--json"]
    done = subprocess.run([sys.executable, "-m", "noiselaw.cli", *words], check=True, capture_output=True, text=True)
    states = json.loads(done.stdout)
    assert len(states) == 4
    assert {state["status"] for state in states} == {"done"}


def test_failed_run_is_named_and_the_rest_kept(recipe, tmp_path):
    words = ["--run.model.norm-epsilon", "1e-6", "--learning-rate.coefficient", "1e30"]
    done = subprocess.run([*command(recipe, tmp_path / "wild"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "runs did not finish; the rest is kept" in done.stderr
    assert "Lower optimizer.learning_rate" in done.stderr


def test_folder_with_other_files_is_refused(recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty and holds no study" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_study_in_one_folder_is_refused(recipe, tmp_path):
    with only_writer(tmp_path):
        done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another process is working in this folder" in done.stderr
    assert list(tmp_path.iterdir()) == []
