"""Side by side on the cores of the machine: every run has the same threads, however often it is continued."""

import sys
from types import SimpleNamespace

import pytest

from noiselaw.files import write_json
from noiselaw.study import run as study_run
from noiselaw.study.executors import local
from noiselaw.study.executors.local import Exit, core_shares, execute, log_tail, worker_count


@pytest.mark.parametrize(("num_cores", "num_workers", "size"), [(2, 2, 1), (2, 1, 2), (3, 2, 1), (8, 3, 2), (1, 1, 1)])
def test_shares_are_equal_and_disjoint(num_cores, num_workers, size, monkeypatch):
    monkeypatch.setattr(local, "available_cores", lambda: list(range(num_cores)))
    shares = core_shares(num_workers)
    assert [len(share) for share in shares] == [size] * num_workers
    assert len({core for share in shares for core in share}) == size * num_workers


def test_workers_by_cores_and_runs(monkeypatch):
    monkeypatch.setattr(local, "available_cores", lambda: [0, 1, 2, 3])
    assert [worker_count(4, num_runs) for num_runs in (0, 1, 3, 9)] == [1, 1, 3, 4]
    assert [worker_count(2, num_runs) for num_runs in (1, 9)] == [1, 2]
    assert worker_count(64, 99) == 4


def planned(folder, name):
    """As much of a PlannedRun as a stage reads of it."""
    schedule = SimpleNamespace(num_steps=10)
    return SimpleNamespace(folder=folder / name, spec=SimpleNamespace(name=name, schedule=schedule))


def test_a_continued_stage_gives_its_last_run_the_threads_it_would_have_had(tmp_path, monkeypatch):
    """Not those of the whole machine: more threads sum in another order, and the last digits of a curve differ."""
    runs = [planned(tmp_path, f"run{index}") for index in range(4)]
    for run in runs[1:]:
        run.folder.mkdir()
        write_json(run.folder / "result.json", {"validation": None, "speed": None})
    monkeypatch.setattr(local, "available_cores", lambda: [0, 1])
    calls = []
    monkeypatch.setattr(
        study_run, "execute", lambda left, num_workers, on_poll: calls.append((left, num_workers)) or []
    )
    display = SimpleNamespace(say=lambda text: None, update=lambda *_: None)
    study_run.run_all(runs, 2, "grid", display, SimpleNamespace())
    assert calls == [([runs[0]], 2)]


def test_every_run_is_executed_once_and_its_end_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(local, "available_cores", lambda: [0, 1])
    real, running, most = local.subprocess.Popen, [], []

    def start(run, cores):
        assert len(cores) == 1
        code = "import os, signal, time; time.sleep(0.05); " + run.spec.name
        process = real([sys.executable, "-c", code])
        running.append(process)
        most.append(sum(other.poll() is None for other in running))
        return process

    monkeypatch.setattr(local, "_start", start)
    names = ["exit(0)", "exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "exit(0)"]
    exits = execute([planned(tmp_path, name) for name in names], 2, lambda: None)
    assert {end.run.spec.name: end.reason for end in exits} == dict(
        zip(names, ["exit 0", "exit 3", "killed by SIGKILL", "exit 0"], strict=True)
    )
    assert len(exits) == 4
    assert max(most) == 2


def test_an_interruption_stops_what_runs(tmp_path, monkeypatch):
    process = local.subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(local, "_start", lambda run, cores: process)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute([planned(tmp_path, "run")], 1, interrupt)
    assert process.poll() is not None


def test_the_end_of_a_runs_output(tmp_path):
    run = planned(tmp_path, "run")
    assert log_tail(run) == ""
    run.folder.mkdir()
    (run.folder / "log.txt").write_bytes(b"one\ntwo\nthree \xff\n")
    assert log_tail(run, 2) == "two\nthree \ufffd"
    assert Exit(run, -9).reason == "killed by SIGKILL"
