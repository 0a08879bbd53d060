"""Clocks that jump and two commands at once in one folder: the results are those of one command on a good clock."""

import os
import subprocess
import sys

import pytest
from commandline import call
from stages import STAGES

from noiselaw.metrics import read_rows


@pytest.fixture(scope="module")
def undisturbed(desk, commands, tmp_path_factory):
    """A function: what comes out of a stage that is left alone."""
    known = {}

    def outcome(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            end = commands.run(STAGES[name].begin(desk, folder))
            assert end.code == 0, end.output
            known[name] = STAGES[name].outcome(folder)
        return known[name]

    return outcome


@pytest.mark.parametrize("name", ["prepare", "train", "export"])
def test_a_wall_clock_that_jumps_by_days_changes_nothing(name, desk, undisturbed, commands, tmp_path):
    end = commands.run(STAGES[name].begin(desk, tmp_path), clock="jumps")
    assert end.code == 0, end.output
    assert STAGES[name].outcome(tmp_path) == undisturbed(name)
    for row in read_rows(tmp_path / "run" / "metrics.jsonl", "speed"):
        assert 0 < row["seconds"] < 600
        assert row["tokens_per_second"] > 0


def test_the_clock_really_jumps(commands):
    look = "import time; looks = [time.time() for _ in range(9)]; print(max(looks) - min(looks), time.monotonic() > 0)"
    environment = os.environ | {"LD_PRELOAD": str(commands.shim), "FAULTS_CLOCK": "jumps"}
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    leap, runs_on = done.stdout.split()
    assert float(leap) > 86_400
    assert runs_on == "True"


@pytest.mark.parametrize("name", ["prepare", "train", "export"])
def test_the_same_command_twice_at_once_leaves_one_whole_result(name, desk, undisturbed, commands, tmp_path):
    words = STAGES[name].begin(desk, tmp_path)
    commands.start(words)
    said = call(*words)
    end = commands.finish()
    assert 0 in (said.code, end.code), (said, end)
    for code, text in ((said.code, said.err), (end.code, end.output)):
        assert code in (0, 2), text
        assert code == 0 or "another process is working" in text or "not empty" in text or "cannot write" in text
    assert STAGES[name].outcome(tmp_path) == undisturbed(name)
    assert call(*words).code == (2 if name == "export" else 0)
