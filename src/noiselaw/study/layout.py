"""How many runs side by side: measured on this machine, once per study, on the study's own middle-sized run.

One process per core is best for small models, fewer processes with more threads for large ones; where the border lies
depends on the machine. The choice is kept in `layout.json`, because the number of threads changes the last digits of a
run and a study that continues must not change them.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiselaw.files import read_json, write_json
from noiselaw.study.design import PlannedRun
from noiselaw.study.executors.local import available_cores, core_shares, start_training

MEASURE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Runs side by side, and what was measured to choose them."""

    num_workers: int
    num_cores: int
    tokens_per_second: Mapping[int, float]
    """Of all runs together, by the number of them side by side."""

    def describe(self) -> str:
        """One line for people."""
        rates = ", ".join(
            f"{workers} x {self.num_cores // workers} thread(s) {rate:,.0f}"
            for workers, rate in self.tokens_per_second.items()
        )
        return f"{self.num_workers} runs side by side (tokens/s in all: {rates})"

    def record(self) -> dict[str, Any]:
        rates = {str(workers): rate for workers, rate in self.tokens_per_second.items()}
        return {"num_workers": self.num_workers, "num_cores": self.num_cores, "tokens_per_second": rates}


def choose_layout(folder: Path, runs: list[PlannedRun], say: Callable[[str], None]) -> int:
    """Runs side by side for the study in `folder`: as chosen before, or measured now and written to layout.json."""
    path = folder / "layout.json"
    cores = len(available_cores())
    if path.exists() and (found := read_json(path))["num_cores"] == cores:
        return found["num_workers"]
    middle = sorted(runs, key=lambda run: run.flops_per_token)[len(runs) // 2]
    layout = measure_layout(middle, folder / ".measure.json")
    write_json(path, layout.record())
    say(f"layout: {layout.describe()}")
    return layout.num_workers


def measure_layout(run: PlannedRun, scratch: Path) -> Layout:
    """Try one process per core, then half as many with twice the threads, as long as that is faster.

    `scratch` is where the run's spec is written meanwhile. Raises ValueError with a run's own words when it fails.
    """
    num_cores = workers = len(available_cores())
    rates: dict[int, float] = {}
    while True:
        rates[workers] = _tokens_per_second(run, workers, scratch)
        if workers == 1 or rates[workers] < max(rates.values()):
            break
        workers //= 2
    return Layout(max(rates, key=rates.__getitem__), num_cores, rates)


def _tokens_per_second(run: PlannedRun, num_workers: int, scratch: Path) -> float:
    shares = core_shares(num_workers)
    runtime = run.spec.runtime.model_copy(update={"num_threads": len(shares[0])})
    scratch.write_text(run.spec.model_copy(update={"runtime": runtime}).model_dump_json(), encoding="utf-8")
    arguments = [str(scratch), "--measure", str(MEASURE_SECONDS)]
    processes = [start_training(arguments, cores, output=subprocess.PIPE, errors=subprocess.PIPE) for cores in shares]
    try:
        answers = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
        scratch.unlink()
    for process, (_, errors) in zip(processes, answers, strict=True):
        if process.returncode != 0:
            raise ValueError(f"measuring {run.spec.name} failed:\n{errors.decode(errors='replace')}")
    return sum(json.loads(output)["tokens_per_second"] for output, _ in answers)
