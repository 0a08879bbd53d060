"""torchrun starts a run again after a worker was killed; it continues from its last checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parallel_jobs import curves
from rank_pool import RankPool

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
    spec = run_spec(**{"schedule.num_steps": 200, "runtime.checkpoint_every_seconds": 0.5, "validation.num_points": 2})
    pool = RankPool(2, tmp_path)
    (expected,) = pool.run(2, curves, [spec.model_dump(mode="json")], tmp_path / "whole")[0]
    pool.close()
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    with subprocess.Popen(torchrun(killed, restarts=1), stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not list_checkpoints(killed / "checkpoints") or latest_step(killed) < 20:
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
    assert 20 <= step < 200
    assert "exitcode: -9" in errors
    assert [row for row in read_rows(killed / "metrics.jsonl") if row["kind"] != "speed"] == expected


def latest_step(folder: Path) -> int:
    return read_latest(folder / "metrics.jsonl").get("train", {"step": 0})["step"]
