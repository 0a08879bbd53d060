"""A whole study of a minute: stopped in the middle and continued, it ends as the one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from noiselaw.cli.main import main
from noiselaw.cli.overrides import read_with_overrides
from noiselaw.files import read_json, write_json
from noiselaw.laws import read_book
from noiselaw.lease import LEASE_NAME, Holder, lease
from noiselaw.study.attempts import read_attempts
from noiselaw.study.design import StudySpec
from noiselaw.study.run import check_folder, planned_runs, run_study

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


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(recipe, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(study: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = study.communicate(timeout=120)
    return study.returncode, output


def trainer(
    folder: Path, study: subprocess.Popen[str], pattern: str = "*", previous: int | None = None
) -> tuple[int, Path]:
    """Waits for a run of the study that trains: the id of its process and its folder.

    `previous` is a process that was killed: /proc shows it for as long as it takes to die.
    """
    deadline = time.monotonic() + 120
    while study.poll() is None and time.monotonic() < deadline:
        for run in folder.glob(f"runs/{pattern}"):
            rows = run / "metrics.jsonl"
            if rows.exists() and rows.stat().st_size > 2000 and not (run / "result.json").exists():
                for process in Path("/proc").glob("[0-9]*"):
                    if process.name == str(previous):
                        continue
                    with suppress(OSError):  # a process may end while it is looked at
                        if str(run / "spec.json").encode() in (process / "cmdline").read_bytes().split(b"\0"):
                            return int(process.name), run
        time.sleep(0.02)
    pytest.fail(f"no run of {folder} was seen training")


def interrupt(study: subprocess.Popen[str], process: int) -> None:
    """Ctrl-C for the study, while its run `process` is held back: it would else be done before it is told to stop."""
    os.kill(process, signal.SIGSTOP)
    study.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 120
    while not is_told_to_stop(process):
        assert study.poll() is None, "the study ended without stopping its run"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process, signal.SIGCONT)


def is_told_to_stop(process: int) -> bool:
    """Whether SIGTERM waits for it."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    waiting = next(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return bool(waiting >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_killed_and_interrupted_at_every_stage_it_ends_the_same(finished, recipe, tmp_path):
    """A run killed, the study killed, the study interrupted: each time the same command again, at once."""
    folder = tmp_path / "stopped"
    study = start(recipe, folder)
    process, killed = trainer(folder, study)
    os.kill(process, signal.SIGKILL)
    trainer(folder, study, killed.name, previous=process)  # tried again
    study.kill()  # its runs are told to stop and save, while the next study already wants to continue them
    finish(study)
    reasons = [attempt.reason for attempt in read_attempts(killed)]
    assert reasons[0] == "killed by SIGKILL"
    assert len(reasons) == 2
    assert not (folder / "laws.json").exists()

    study = start(recipe, folder)
    confirming = read_json(finished / "prediction.json")["groups"]["autoregressive"]["run"]
    process, _ = trainer(folder, study, confirming)
    interrupt(study, process)
    code, output = finish(study)
    assert code == 130
    assert "stopped; the same command continues from there" in output
    assert (folder / "prediction.json").exists()
    assert not (folder / "confirmation.json").exists()

    written_at = read_json(folder / "prediction.json")["written_at"]
    assert finish(start(recipe, folder))[0] == 0
    assert read_json(folder / "prediction.json")["written_at"] == written_at
    for name in ("laws.json", "curves.csv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    for name in ("prediction.json", "confirmation.json"):
        assert read_json(folder / name)["groups"] == read_json(finished / name)["groups"]


UNIQUE = 20_000
"""Tokens: fewer than two of the four runs of the grid see."""


def test_repeats_are_trained_beside_a_study_that_stands(finished, recipe, tmp_path, monkeypatch, capsys):
    """Neither grid nor laws nor prediction depend on them; their own law is what the command prints."""
    folder = tmp_path / "repeats"
    shutil.copytree(finished, folder)
    curves = (folder / "curves.csv").read_text().splitlines()
    words = [*command(recipe, folder), "--data.unique-tokens", f"[{UNIQUE}]"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "grid: 2 of 6 runs to do" in done.stdout
    assert "autoregressive: repeats " in done.stdout
    for name in ("laws.json", "prediction.json", "confirmation.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert set(curves) < set((folder / "curves.csv").read_text().splitlines())
    rows = pl.read_csv(folder / "curves.csv")
    fresh, repeated = (rows.filter((pl.col("role") == "repeated") == which) for which in (False, True))
    assert fresh["unique_tokens"].equals(fresh["tokens"])
    assert repeated["unique_tokens"].equals(repeated["tokens"].clip(upper_bound=UNIQUE))
    assert sorted(repeated.filter(pl.col("tokens") > UNIQUE)["width"].unique()) == [8, 12]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f'id="table-{name}"' in page for name in ("repeats", "repeated-runs"))

    law = read_json(folder / "token_laws.json")["groups"]["autoregressive"]["repeated"]
    assert read_book([folder]).repeat_value("autoregressive").inverse_tokens == law["parameters"]["inverse_R_D"]
    for words in ((folder,), (folder / "curves.csv", "--where", "role!=confirmation")):
        monkeypatch.setattr(
            sys, "argv", ["noiselaw", "laws", "tokens", *map(str, words), "--repeated-draws", "2", "--json"]
        )
        main()
        printed = json.loads(capsys.readouterr().out)["groups"]["autoregressive"]["repeated"]
        assert printed["parameters"] == pytest.approx(law["parameters"])

    states = planned_runs(read_with_overrides(StudySpec, folder / "recipe.json", [], ()), folder)
    assert [state.run.role for state in states] == ["grid"] * 4 + ["repeated"] * 2 + ["confirmation"]
    run_study(read_with_overrides(StudySpec, recipe, [], ()), folder, Silent())
    assert not (folder / "token_laws.json").exists()
    assert (folder / "curves.csv").read_text().splitlines() == curves


def test_status_as_json(finished, recipe):
    words = ["study", "status", str(recipe), "--out", str(finished), "--json"]
    done = subprocess.run([sys.executable, "-m", "noiselaw.cli", *words], check=True, capture_output=True, text=True)
    states = json.loads(done.stdout)
    assert [state["role"] for state in states] == ["grid"] * 4 + ["confirmation"]
    assert {state["status"] for state in states} == {"done"}
    by_folder = [sys.executable, "-m", "noiselaw.cli", "study", "status", str(finished)]
    shown = subprocess.run(by_folder, check=True, capture_output=True, text=True).stdout
    assert shown.count("done   100%") == 5
    assert all(state["run"] in shown for state in states)


def test_status_of_a_study_that_was_not_started(recipe, tmp_path):
    study = read_with_overrides(StudySpec, recipe, [], ())
    with pytest.raises(ValueError, match="no study has been started here; start it with `noiselaw study run`"):
        planned_runs(study, tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="its data are still being prepared"):
        planned_runs(study, tmp_path)


def test_another_recipe_never_overwrites_a_prediction(finished, recipe):
    before = {path.name: path.read_bytes() for path in finished.glob("*.json")}
    done = subprocess.run([*command(recipe, finished), "--seed", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds the prediction of another recipe (seed was 0); choose another --out" in done.stderr
    assert {path.name: path.read_bytes() for path in finished.glob("*.json")} == before


def test_a_prediction_is_never_made_after_the_fact(finished, recipe, tmp_path):
    """Laws that change once a confirming run has started: the run must not count as a test of them."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    old = read_json(folder / "prediction.json")
    old["groups"]["autoregressive"]["loss"]["value"] += 0.1
    write_json(folder / "prediction.json", old)
    with pytest.raises(ValueError, match=r"the laws changed after .* had started, so this would be no prediction"):
        run_study(read_with_overrides(StudySpec, recipe, [], ()), folder, Silent())
    assert read_json(folder / "prediction.json") == old


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None: ...
    def update(self, title: str, states: list, num_workers: int) -> None: ...


def test_what_a_kill_left_of_the_first_file_is_no_obstacle(tmp_path):
    (tmp_path / ".recipe.json.123.tmp").write_text("{")
    check_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no study"):
        check_folder(tmp_path)
    with pytest.raises(ValueError, match="holds no study"):
        check_folder(tmp_path / "notes.txt")


def test_a_study_goes_on_without_a_run_that_fails_and_says_so(finished, recipe, tmp_path):
    """One whose folder holds another run fails at every attempt; the laws come from the rest."""
    folder = tmp_path / "gap"
    shutil.copytree(finished, folder)
    confirming = read_json(folder / "prediction.json")["groups"]["autoregressive"]["run"]
    shutil.rmtree(folder / "runs" / confirming)
    for name in ("prediction.json", "confirmation.json", "study.json", "laws.json"):
        (folder / name).unlink()
    broken = next(folder.glob("runs/*-d24-*"))
    (broken / "result.json").unlink()
    write_json(broken / "run.json", {"fingerprint": "another"})

    words = [*command(recipe, folder), "--max-attempts", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{broken.name}: exit 2 (2 of 2 attempts failed); given up" in done.stdout
    assert "1 run(s) did not finish; the rest is kept" in done.stderr
    assert "holds another run (fingerprint another" in done.stderr
    assert (folder / "report.html").stat().st_mtime > (folder / "laws.json").stat().st_mtime
    (missing,) = read_json(folder / "study.json")["missing"]
    assert (missing["run"], missing["fault"], missing["attempts"]) == (broken.name, "exit 2", 3)
    assert "fingerprint another" in missing["log"]
    assert read_json(folder / "prediction.json")["missing"] == [broken.name]
    assert "-d24-" not in (folder / "curves.csv").read_text().replace(confirming, "")
    assert read_json(folder / "confirmation.json")["groups"]["autoregressive"]

    listed = subprocess.run([*words[:3], "study", "status", str(folder)], check=True, capture_output=True, text=True)
    assert f"{broken.name}: exit 2 at step " in listed.stdout

    names = ("laws.json", "prediction.json", "confirmation.json", "curves.csv")
    before = {name: (folder / name).read_bytes() for name in names}
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "to do" not in again.stdout  # the prediction made without it has been tested
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_runs_whose_loss_is_no_number_are_not_tried_again(recipe, tmp_path):
    words = ["--run.model.norm-epsilon", "1e-6", "--learning-rate.coefficient", "1e30"]
    done = subprocess.run([*command(recipe, tmp_path / "wild"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "group autoregressive: no run of it finished" in done.stderr
    assert "4 run(s) did not finish; the rest is kept" in done.stderr
    assert "Lower optimizer.learning_rate" in done.stderr
    assert done.stdout.count("not tried again") == 4
    missing = read_json(tmp_path / "wild" / "study.json")["missing"]
    assert [run["attempts"] for run in missing] == [1] * 4
    assert all(run["fault"].startswith(("loss", "weights")) for run in missing)


def test_folder_with_other_files_is_refused(recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty and holds no study" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_study_in_one_folder_is_refused(recipe, tmp_path):
    with lease(tmp_path):
        for executor in ("local", "slurm"):
            words = [*command(recipe, tmp_path), "--executor", executor]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert f"another process is working in this folder: process {os.getpid()} on" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_one_on_another_machine_is_refused_while_it_is_alive(recipe, tmp_path):
    """Its kernel's lock is not seen here: only the beat in its file moves."""
    holder = Holder("token", "node7", 4321, "another boot", beat=0)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.2):
            nonlocal holder
            holder = replace(holder, beat=holder.beat + 1)
            write_json(tmp_path / LEASE_NAME, asdict(holder))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    finally:
        stop.set()
        thread.join()
    assert done.returncode == 2
    assert "another process is working in this folder: process 4321 on node7" in done.stderr
