"""The benchmarks that need other machines or much time, on shapes of seconds: that they run, and what they write."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(tmp_path, *words):
    claims = tmp_path / "claims.json"
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:], "--claims", str(claims)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, {claim["what"]: claim for claim in json.loads(claims.read_text(encoding="utf-8"))}


def test_the_gpu_script_runs_on_a_cpu(tmp_path):
    printed, claims = run(tmp_path, "gpu.py", "--device", "cpu", "--shapes", "smoke", "--noises", "balanced")
    assert "smoke, balanced" in printed
    assert claims["smoke, balanced: utilisation"]["value"] > 0
    assert claims["smoke, balanced: head / bare products"]["target"] == 1.3


def test_the_head_is_set_beside_its_products_and_full_logits(tmp_path):
    shape = (
        "--vocab-size",
        "4000",
        "--width",
        "32",
        "--tokens",
        "600",
        "--chunk-tokens",
        "32",
        "--rounds",
        "1",
        "--threads",
        "1",
    )
    _, claims = run(tmp_path, "head.py", *shape, "--full", "balanced")
    memory = claims["head, float32, balanced: memory of full logits / ours"]
    assert memory["value"] > memory["target"] == 20
    assert claims["head, float32, balanced: x bare products"]["target"] == 1.2


def test_a_large_study_is_planned_listed_collected_and_fitted(tmp_path):
    printed, claims = run(tmp_path, "studies.py", "--runs", "50", "--steps", "20", "--rounds", "1")
    assert "plan the grid" in printed
    assert claims["study of 50 runs: seconds in all"]["value"] > 0
