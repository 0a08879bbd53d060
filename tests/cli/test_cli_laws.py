"""`noiselaw laws METHOD TABLE`: what scripts rely on, and what a bad table is told."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

TRUTH = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}


def write_runs(path, *, columns=("n", "d", "l"), loss=None):
    rows = [
        (n, d, TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"])
        for n in np.geomspace(1e7, 1e10, 8)
        for d in np.geomspace(1e9, 1e12, 8)
    ]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows((n, d, value if loss is None or index else loss) for index, (n, d, value) in enumerate(rows))
    return path


def noiselaw(*arguments):
    command = [sys.executable, "-m", "noiselaw.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_surface_prints_the_contracts_object(tmp_path):
    runs = write_runs(tmp_path / "runs.csv")
    done = noiselaw("laws", "surface", runs, "--params", "n", "--tokens", "d", "--loss", "l", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["method"] == "surface"
    assert printed["convention"] == "6P"
    found = printed["groups"]["all"]
    for name, value in TRUTH.items():
        assert found["parameters"][name] == pytest.approx(value, rel=1e-6), name
    total = TRUTH["alpha"] + TRUTH["beta"]
    assert found["laws"]["params"]["exponent"] == pytest.approx(TRUTH["beta"] / total, rel=1e-6)
    assert {"flags", "certificate"} <= found.keys()


@pytest.mark.parametrize(
    ("arguments", "loss", "named"),
    [
        (("--params", "size"), None, "size"),
        (("--params", "n"), "nan", "nan"),
        (("--params", "n"), "-1.0", "-1"),
        (("--params", "n"), "high", "high"),
    ],
)
def test_a_bad_table_gets_one_clear_line(tmp_path, arguments, loss, named):
    runs = write_runs(tmp_path / "runs.csv", loss=loss)
    done = noiselaw("laws", "surface", runs, *arguments, "--tokens", "d", "--loss", "l", "--json")
    assert done.returncode == 2
    assert named in done.stderr.lower()
    assert "Traceback" not in done.stderr
