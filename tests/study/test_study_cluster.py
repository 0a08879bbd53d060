"""Studies on a real Ray cluster and a real Slurm cluster on this machine: `make test-cluster`.

Nodes are killed, jobs cancelled and preempted, the study itself is killed while its jobs go on. Each time every run
finishes, none trains twice at once, and laws and curves equal those of the local executor to the last byte.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

import polars as pl
import pytest
import yaml
from test_study_run import RECIPE, command

from noiselaw.files import read_json
from noiselaw.study.attempts import Attempt, read_attempts

pytestmark = pytest.mark.skipif(
    "NOISELAW_CLUSTER" not in os.environ, reason="starts Ray and Slurm on this machine: make test-cluster"
)
GROUP = "autoregressive"
BUDGETS = [1.25e7, 2.5e7, 5e7, 1e8]
PATIENCE_SECONDS = 600
ROUNDED = ["loss", "standard_error", "bits_per_byte"]
"""Of the columns of a curve."""


@pytest.fixture(scope="module")
def recipe(tiny_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "mini.yaml"
    data = {**RECIPE["data"], "source": str(tiny_data.parent / "texts"), "unique_tokens": [5000]}
    changes = {"budgets_flops": BUDGETS, "data": data}
    path.write_text(yaml.safe_dump(RECIPE | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reference(recipe, tmp_path_factory) -> Path:
    """The study as the local executor carries it out, undisturbed."""
    folder = tmp_path_factory.mktemp("studies") / "local"
    subprocess.run(command(recipe, folder), check=True, capture_output=True)
    return folder


def processes() -> dict[int, list[str]]:
    """The words of every process on this machine, by its id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end while it is looked at
            found[int(path.name)] = (path / "cmdline").read_bytes().decode().split("\0")
    return found


def trainings(folder: Path) -> Counter[str]:
    """How many processes train each run of the study in `folder` at this moment."""
    specs = {str(path / "spec.json"): path.name for path in folder.glob("runs/*")}
    return Counter(
        specs[words[4]]
        for words in processes().values()
        if words[1:4] == ["-m", "noiselaw.cli", "train"] and words[4] in specs
    )


class Guard:
    """Looks all the time whether a run trains twice at once."""

    def __init__(self, folder: Path) -> None:
        self.most, self._folder, self._stop = Counter(), folder, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.most |= trainings(self._folder)


def descendants(root: int) -> set[int]:
    """A process and all that came from it, sessions of their own or not."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    family, grown = set(), {root}
    while grown - family:
        family |= grown
        grown = {child for child, parent in parents.items() if parent in family}
    return family


def kill_family(root: int) -> None:
    """All at one instant, as a machine that loses power: first nobody may react, then nobody lives."""
    family = descendants(root)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with suppress(ProcessLookupError):
                os.kill(process, number)


def start(recipe: Path, folder: Path, executor: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command(recipe, folder), "--executor", executor, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for(what, study: subprocess.Popen[str], describe: str):
    """The first true answer of `what()`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := what()):
        if study.poll() is not None or time.monotonic() > deadline:
            study.kill()
            pytest.fail(f"{describe}: never seen; the study said\n{study.communicate()[0]}")
        time.sleep(0.1)
    return answer


def in_training(folder: Path, among: set[int] | None = None) -> str | None:
    """A run that has trained some steps, and is trained by one of the processes `among`."""
    for process, words in processes().items():
        if words[1:4] != ["-m", "noiselaw.cli", "train"] or not words[4].startswith(str(folder)):
            continue
        rows = Path(words[4]).parent / "metrics.jsonl"
        if (among is None or process in among) and rows.exists() and rows.stat().st_size > 2000:
            return rows.parent.name
    return None


def attempts_at(folder: Path, run: str) -> list[Attempt]:
    return read_attempts(folder / "runs" / run)


def finish(study: subprocess.Popen[str]) -> str:
    """Wait for the end of a study that succeeds; what it said."""
    try:
        output, _ = study.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        study.kill()
        pytest.fail(f"the study did not end; it said\n{study.communicate()[0]}")
    assert study.returncode == 0, output
    return output


def check_equal(folder: Path, reference: Path) -> None:
    """Laws and curves to the last byte; predictions and measured losses too."""
    for name in ("laws.json", "token_laws.json", "curves.csv"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("prediction.json", "confirmation.json"):
        assert read_json(folder / name)["groups"] == read_json(reference / name)["groups"]
    assert read_json(folder / "study.json")["missing"] == []


def check_equal_within_rounding(folder: Path, reference: Path) -> None:
    """Every run trained once, on two processes; its losses differ by the order of float32 sums."""
    for run in (folder / "runs").iterdir():
        assert [attempt.reason for attempt in read_attempts(run)] == ["done"]
        assert read_json(run / "run.json")["machine"]["num_processes"] == 2
    found, expected = (pl.read_csv(path / "curves.csv") for path in (folder, reference))
    assert found.drop(ROUNDED).equals(expected.drop(ROUNDED))
    for column in ROUNDED:
        assert found[column].to_list() == pytest.approx(expected[column].to_list(), rel=1e-5), column


def kill_the_study_and_start_it_again(
    study: subprocess.Popen[str], recipe: Path, folder: Path, executor: str, **environment: str
) -> tuple[subprocess.Popen[str], str]:
    """kill -9 while a job goes on; returns the new study and the run that must not be started again."""
    run = wait_for(lambda: in_training(folder), study, "a run that trains")
    study.kill()
    study.communicate()
    return start(recipe, folder, executor, **environment), run


@pytest.fixture
def ray_nodes(tmp_path_factory, monkeypatch):
    """Two nodes of two cores each: the cluster's address, and the process of the second."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # a token of this cluster's own, whatever this user has
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    logs, nodes, address = tmp_path_factory.mktemp("ray"), [], f"127.0.0.1:{free_port()}"

    def add(*words: str) -> None:
        program = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        words = (*words, "--num-cpus", "2", "--node-ip-address", "127.0.0.1")
        path = logs / str(len(nodes))
        with path.open("wb") as log:
            nodes.append(subprocess.Popen([*program, *words], stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "Ray runtime started" not in path.read_text():
            assert nodes[-1].poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.2)

    try:
        add("--head", "--port", address.partition(":")[2], "--include-dashboard", "false")
        add("--address", address)
        yield address, nodes[1]
    finally:
        for node in reversed(nodes):
            kill_family(node.pid)
            node.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_packages_are_there():
    """Called by `make test-cluster`, where nothing may be skipped."""
    import ray
    import submitit

    assert ray.__version__
    assert submitit.__version__
    for program in ("srun", "sbatch", "squeue", "scancel"):
        assert shutil.which(program)
    assert "SLURM_CONF" in os.environ, "run me under scripts/slurm_on_one_machine.sh"


def test_a_node_is_lost_and_the_study_killed_under_ray(reference, recipe, tmp_path, ray_nodes):
    folder, (address, second) = tmp_path / "ray", ray_nodes
    with Guard(folder) as guard:
        study = start(recipe, folder, "ray", RAY_ADDRESS=address)
        lost = wait_for(lambda: in_training(folder, descendants(second.pid)), study, "a run on the second node")
        kill_family(second.pid)
        assert attempts_at(folder, lost)[-1].reason is None
        wait_for(lambda: len(attempts_at(folder, lost)) == 2, study, f"another attempt at {lost}")

        study, kept = kill_the_study_and_start_it_again(study, recipe, folder, "ray", RAY_ADDRESS=address)
        attempts = len(attempts_at(folder, kept))
        output = finish(study)
    assert "found again by their jobs' names" in output
    assert len(attempts_at(folder, kept)) == attempts
    assert [attempt.reason for attempt in attempts_at(folder, lost)] == [None, "done"]
    assert set(guard.most.values()) == {1}
    check_equal(folder, reference)


def test_runs_on_two_nodes_each_under_ray(recipe, tmp_path, ray_nodes):
    """At a learning rate that does not blow rounding up (docs/log.md: one of 0.3 does within 50 steps)."""
    words = ["--learning-rate.coefficient", "0.03", "--data.unique-tokens", "[]"]
    alone, pairs = tmp_path / "alone", tmp_path / "pairs"
    finish(start(recipe, alone, "local", *words))
    finish(start(recipe, pairs, "ray", *words, "--nodes-per-run", "2", RAY_ADDRESS=ray_nodes[0]))
    check_equal_within_rounding(pairs, alone)


def jobs() -> dict[str, str]:
    """Slurm's running jobs: ids by names."""
    words = ["squeue", "--noheader", "--states", "RUNNING", "--format", "%j %i"]
    return dict(line.split() for line in subprocess.check_output(words, text=True).splitlines())


def job_of(run: str) -> str:
    return next(number for name, number in jobs().items() if name.endswith(run))


def test_jobs_are_cancelled_preempted_and_the_study_killed_under_slurm(reference, recipe, tmp_path):
    folder = tmp_path / "slurm"
    with Guard(folder) as guard:
        study = start(recipe, folder, "slurm")
        cancelled = wait_for(lambda: in_training(folder), study, "a run that trains")
        subprocess.run(["scancel", job_of(cancelled)], check=True)
        wait_for(lambda: len(attempts_at(folder, cancelled)) == 2, study, f"another attempt at {cancelled}")

        study, kept = kill_the_study_and_start_it_again(study, recipe, folder, "slurm")
        attempts = len(attempts_at(folder, kept))
        confirming = lambda: (folder / "prediction.json").exists() and in_training(folder)  # noqa: E731
        preempted = wait_for(confirming, study, "the confirming run")
        job = job_of(preempted)
        subprocess.run(["scancel", "--signal", "USR2", job], check=True)  # what Slurm sends before it takes the node
        output = finish(study)
    assert "found again by their jobs' names" in output
    assert len(attempts_at(folder, kept)) == attempts
    assert [attempt.reason for attempt in attempts_at(folder, cancelled)] == ["stopped", "done"]
    assert [attempt.reason for attempt in attempts_at(folder, preempted)] == ["stopped", "done"]
    assert preempted == read_json(folder / "prediction.json")["groups"][GROUP]["run"]
    assert (folder / "slurm" / f"{job}_0_result.pkl").exists(), "requeued, not submitted anew"
    assert set(guard.most.values()) == {1}
    check_equal(folder, reference)
