"""Side by side on this machine: equal shares of cores and GPUs, the same threads however often a run is continued."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from noiselaw.specs import SpecError
from noiselaw.study import machine
from noiselaw.study import run as study_run
from noiselaw.study.attempts import log_tail
from noiselaw.study.executors import local
from noiselaw.study.executors.local import LocalExecutor
from noiselaw.study.executors.protocol import EXECUTORS, JobRequest, missing_package, open_executor
from noiselaw.study.job import Launch, describe_exit
from noiselaw.study.layout import Layout
from noiselaw.study.machine import Share, shares, visible_gpus


@pytest.fixture
def box(monkeypatch):
    """A function: a machine of so many cores and GPUs."""

    def make(num_cores, gpus=""):
        monkeypatch.setattr(machine, "available_cores", lambda: list(range(num_cores)))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return make


@pytest.mark.parametrize(("num_cores", "num_workers", "size"), [(2, 2, 1), (2, 1, 2), (3, 2, 1), (8, 3, 2), (1, 1, 1)])
def test_shares_are_equal_and_disjoint(num_cores, num_workers, size, box):
    box(num_cores)
    each = shares(num_workers)
    assert [len(share.cores) for share in each] == [size] * num_workers
    assert len({core for share in each for core in share.cores}) == size * num_workers
    assert all(share.gpus == () for share in each)


@pytest.mark.parametrize(
    ("num_workers", "gpus_per_run", "gpus"),
    [
        (2, 1, [("0",), ("1",)]),
        (4, 1, [("0",), ("1",), ("0",), ("1",)]),
        (4, 0.5, [("0",), ("1",), ("0",), ("1",)]),
        (1, 2, [("0", "1")]),
    ],
)
def test_runs_have_gpus_in_turn(num_workers, gpus_per_run, gpus, box):
    box(8, "0,1")
    each = shares(num_workers, gpus_per_run)
    assert [share.gpus for share in each] == gpus
    assert each[0].environment["CUDA_VISIBLE_DEVICES"] == ",".join(gpus[0])


def test_gpus_are_those_the_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8a")
    assert visible_gpus() == ["3", "GPU-8a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus() == ["0", "1"]


def test_threads_are_those_of_the_whole_stage():
    layout = Layout(num_workers=4, num_cores=8)
    assert [layout.side_by_side(num_runs) for num_runs in (0, 1, 3, 9)] == [1, 1, 3, 4]
    assert [layout.threads(num_runs) for num_runs in (1, 3, 9)] == [8, 2, 2]
    assert Layout(64, 4).side_by_side(99) == 4
    assert Layout(2, 8, num_threads=3).threads(1) == 3


def test_a_continued_stage_gives_its_last_run_the_threads_it_would_have_had(tmp_path, monkeypatch):
    """Not those of the whole machine: more threads sum in another order, and the last digits of a curve differ."""
    runs = [planned(tmp_path, f"run{index}") for index in range(2)]
    runs += [planned(tmp_path, f"run{index}", "repeated") for index in (2, 3)]
    for run in runs[1:]:
        run.folder.mkdir()
        (run.folder / "result.json").write_text('{"validation": null, "speed": null}')
    calls = []
    monkeypatch.setattr(study_run, "open_executor", lambda study, folder, layout, num_runs: num_runs)
    monkeypatch.setattr(study_run, "carry_out", lambda left, stage: calls.append((left, stage.num_threads)))
    site = SimpleNamespace(folder=tmp_path, study=SimpleNamespace(max_attempts=1))
    display = SimpleNamespace(say=lambda text: None)
    missing = study_run.run_all(site, runs, Layout(8, 8), "grid", display=display, watch=SimpleNamespace())
    assert calls == [([runs[0]], 4)], "whether or not runs that repeat their data came with it"
    assert [state.run for state in missing] == [runs[0]]


def planned(folder, name, role="grid"):
    """As much of a PlannedRun as a stage reads of it."""
    schedule = SimpleNamespace(num_steps=10)
    return SimpleNamespace(folder=folder / name, role=role, spec=SimpleNamespace(name=name, schedule=schedule))


def program(monkeypatch, code):
    """Jobs are this program instead."""
    started = []

    def start_job(folder, launch, environment):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        started.append((folder, launch, environment, process))
        return process

    monkeypatch.setattr(local, "start_job", start_job)
    return started


def test_local_jobs_have_a_share_each_and_give_it_back(tmp_path, monkeypatch):
    started = program(monkeypatch, "import time; time.sleep(0.2)")
    cores = tuple(machine.available_cores()[:1])
    executor = LocalExecutor([Share(cores, ("0",)), Share(cores, ("1",))], num_processes=1)
    for name in "ab":
        assert executor.submit(JobRequest(name, tmp_path / name))
    assert executor.capacity() == 0
    assert executor.poll() == {"a", "b"}
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, _, environment, _ in started] == ["0", "1"]
    assert started[0][1] == Launch("local", "a")
    for *_, process in started:
        process.wait()
    assert executor.poll() == set()
    assert executor.capacity() == 2


def test_local_jobs_that_are_cancelled_end(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "STOP_SECONDS", 0.3)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    started = program(monkeypatch, deaf)
    executor = LocalExecutor([Share(tuple(machine.available_cores()))])
    executor.submit(JobRequest("a", tmp_path))
    time.sleep(0.2)
    executor.cancel(["a", "another"])
    assert started[0][3].wait(timeout=10) < 0
    assert executor.poll() == set()


def test_a_run_on_many_processes_is_started_by_torchrun(tmp_path):
    words = Launch("ray", "job", num_processes=4, num_nodes=2, node=1, rendezvous="node0:29500").words(tmp_path)
    assert words[1:3] == ["-m", "torch.distributed.run"]
    assert words[3:] == [
        *("--nnodes", "2", "--node-rank", "1", "--rdzv-id", "job"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "node0:29500"),
        *("--rdzv-conf", "is_host=false", "--nproc-per-node", "4"),
        *("-m", "noiselaw.cli", "train", str(tmp_path / "spec.json"), "--out", str(tmp_path)),
    ]
    assert "--standalone" in Launch("local", "job", num_processes=2).words(tmp_path)
    assert Launch("local", "job").words(tmp_path)[1:4] == ["-m", "noiselaw.cli", "train"]


def test_the_end_of_a_runs_output(tmp_path):
    assert log_tail(tmp_path) == ""
    (tmp_path / "log.txt").write_bytes(b"one\ntwo\nthree \xff\n")
    assert log_tail(tmp_path, 2) == "two\nthree \ufffd"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(3) == "exit 3"


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_an_executor_whose_package_is_not_installed_says_what_to_install(name, monkeypatch, site, tmp_path):
    package = {"ray": "ray", "slurm": "submitit"}[name]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, EXECUTORS[name], raising=False)
    with pytest.raises(ImportError, match=rf"executor {name} needs its package .*pip install 'noiselaw\[{name}\]'"):
        open_executor(site(executor=name).study, tmp_path, Layout(1, 1), 1)
    assert "\n" not in str(missing_package(name, ImportError("No module named x")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes_per_run": 2}, "nodes_per_run 2 needs --executor ray or slurm"),
        ({"gpus_per_run": 1.5}, "gpus_per_run 1.5 must be whole"),
        ({"gpus_per_run": 0.5, "executor": "slurm"}, "gpus_per_run 0.5 must be whole"),
        ({"gpus_per_run": 0.5, "executor": "ray", "nodes_per_run": 2}, "gpus_per_run 0.5 with nodes_per_run 2"),
        ({"executor": "rya"}, "executor: .*did you mean 'ray'"),
        ({"slurm": {"partiton": "gpu"}}, r"slurm.partiton: unknown key.*did you mean 'partition'"),
    ],
)
def test_what_no_executor_can_do_is_refused(changes, message, site):
    with pytest.raises(SpecError, match=message):
        site(**changes)
