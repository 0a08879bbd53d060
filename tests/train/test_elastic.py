"""torchrun starts a run again after a worker was killed; it continues from its last checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noiselaw.metrics import read_latest, read_rows
from noiselaw.train.checkpoint import list_checkpoints

PATIENCE_SECONDS = 240


def torchrun(folder: Path, *, restarts: int) -> list[str]:
    """The command that trains the run in `folder` on two ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, f"--max-restarts={restarts}", "-m", "noiselaw.cli", "train", str(folder), "--quiet"]


def worker(launcher: int, rank: int) -> int | None:
    """The process that `launcher` started as `rank`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
            if parent == launcher and f"RANK={rank}".encode() in (path / "environ").read_bytes().split(b"\0"):
                return int(path.name)
        except (OSError, ValueError):  # it ended while we looked
            continue
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds workers by /proc")
def test_a_killed_worker_is_started_again_and_nothing_is_lost(run_spec, tmp_path):
    spec = run_spec(**{"schedule.num_steps": 600, "runtime.checkpoint_every_seconds": 0.2, "validation.num_points": 2})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    subprocess.run(torchrun(whole, restarts=0), check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    with subprocess.Popen(torchrun(killed, restarts=1), stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline, victim = time.monotonic() + PATIENCE_SECONDS, None
            while not list_checkpoints(killed / "checkpoints") or latest_step(killed) < 100:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            victim = worker(process.pid, 1)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            step = latest_step(killed)
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert 100 <= step < 600
    assert "Signal 9 (SIGKILL)" in errors or "exitcode: -9" in errors.replace(" ", "")
    assert [row for row in read_rows(killed / "metrics.jsonl") if row["kind"] != "speed"] == [
        row for row in read_rows(whole / "metrics.jsonl") if row["kind"] != "speed"
    ]


def latest_step(folder: Path) -> int:
    return read_latest(folder / "metrics.jsonl").get("train", {"step": 0})["step"]
