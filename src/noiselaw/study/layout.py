"""How many runs side by side: measured on this machine, once per study, on the study's own middle-sized run.

One process per core is best for small models, fewer processes with more threads for large ones; where the border lies
depends on the machine. On GPUs it is one run per GPU or several. The choice is kept in `layout.json`, because the
number of threads changes the last digits of a run and a study that continues must not change them.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiselaw.files import read_json, write_json
from noiselaw.study.design import PlannedRun, StudySpec
from noiselaw.study.job import start_child
from noiselaw.study.machine import Share, available_cores, shares, visible_gpus

MEASURE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Runs side by side on a machine, and what was measured to choose them."""

    num_workers: int
    num_cores: int
    num_gpus: int = 0
    tokens_per_second: Mapping[int, float] | None = None
    """Of all runs together, by the number of them side by side; None where the recipe decides."""
    num_threads: int | None = None
    """Of each run, where the recipe says so."""

    def side_by_side(self, num_runs: int) -> int:
        """How many of `num_runs` go side by side, as far as there are cores."""
        return min(self.num_workers, self.num_cores, max(1, num_runs))

    def threads(self, num_runs: int) -> int:
        """Threads of each of `num_runs` runs: the same for all, on whatever machine they execute."""
        return self.num_threads or self.num_cores // self.side_by_side(num_runs)

    def describe(self) -> str:
        """One line for people."""
        rates = ", ".join(
            f"{workers} x {self.num_cores // workers} thread(s) {rate:,.0f}"
            for workers, rate in (self.tokens_per_second or {}).items()
        )
        gpus = f" on {self.num_gpus} GPU(s)" if self.num_gpus else ""
        return f"{self.num_workers} runs side by side{gpus} (tokens/s in all: {rates})"

    def record(self) -> dict[str, Any]:
        rates = {str(workers): rate for workers, rate in (self.tokens_per_second or {}).items()}
        gpus = {"num_gpus": self.num_gpus} if self.num_gpus else {}
        return {"num_workers": self.num_workers, "num_cores": self.num_cores, **gpus, "tokens_per_second": rates}


def choose_layout(study: StudySpec, folder: Path, runs: list[PlannedRun], say: Callable[[str], None]) -> Layout:
    """The layout of the study in `folder`: as the recipe says, as chosen before, or measured now.

    A measured one is written to layout.json. It holds for machines with as many cores and GPUs; a cluster's runs have
    the threads of the first choice, wherever the study is started from.
    """
    cores, gpus = len(available_cores()), num_gpus(study)
    num_threads = study.run.get("runtime", {}).get("num_threads")
    num_workers = study.num_workers or workers_by_recipe(study, cores, gpus, num_threads)
    if num_workers is not None:
        return Layout(num_workers, cores, gpus, num_threads=num_threads)
    path = folder / "layout.json"
    if path.exists():
        found = read_json(path)
        chosen = Layout(found["num_workers"], found["num_cores"], found.get("num_gpus", 0))
        if study.executor != "local" or (chosen.num_cores, chosen.num_gpus) == (cores, gpus):
            return chosen
    middle = sorted(runs, key=lambda run: run.flops_per_token)[len(runs) // 2]
    layout = measure_layout(middle, folder / ".measure.json", gpus)
    write_json(path, layout.record())
    say(f"layout: {layout.describe()}")
    return layout


def num_gpus(study: StudySpec) -> int:
    """GPUs of this machine that the study's runs use here."""
    device = study.run.get("runtime", {}).get("device", "auto")
    return 0 if device == "cpu" or study.executor != "local" else len(visible_gpus())


def workers_by_recipe(study: StudySpec, cores: int, gpus: int, num_threads: int | None) -> int | None:
    """Runs side by side where the recipe's threads or GPUs per run decide it."""
    if gpus and study.gpus_per_run is not None:
        return max(1, int(gpus / study.gpus_per_run))
    return None if num_threads is None else max(1, cores // num_threads)


def measure_layout(run: PlannedRun, scratch: Path, gpus: int = 0) -> Layout:
    """Try one process per core, then half as many with twice the threads, as long as that is faster; on GPUs one run
    on each, then twice as many.

    `scratch` is where the run's spec is written meanwhile. Raises ValueError with a run's own words when it fails.
    """
    num_cores = len(available_cores())
    rates: dict[int, float] = {}
    for workers in _candidates(num_cores, gpus):
        rates[workers] = _tokens_per_second(run, workers, scratch)
        if rates[workers] < max(rates.values()):
            break
    return Layout(max(rates, key=rates.__getitem__), num_cores, gpus, rates)


def _candidates(num_cores: int, gpus: int) -> Iterator[int]:
    workers = min(gpus, num_cores) or num_cores
    while 1 <= workers <= num_cores:
        yield workers
        workers = 2 * workers if gpus else workers // 2


def _tokens_per_second(run: PlannedRun, num_workers: int, scratch: Path) -> float:
    each = shares(num_workers)
    runtime = run.spec.runtime.model_copy(update={"num_threads": len(each[0].cores)})
    scratch.write_text(run.spec.model_copy(update={"runtime": runtime}).model_dump_json(), encoding="utf-8")
    processes = [_start_measuring(scratch, share) for share in each]
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


def _start_measuring(scratch: Path, share: Share) -> subprocess.Popen[bytes]:
    return start_child(
        [sys.executable, "-m", "noiselaw.cli", "train", str(scratch), "--measure", str(MEASURE_SECONDS)],
        {**share.environment, "OMP_NUM_THREADS": str(len(share.cores))},
        subprocess.PIPE,
        errors=subprocess.PIPE,
        prepare=share.pin,
    )
