"""What the benchmarks share: interleaved timing, peak memory, the machine's name, numbers beside their targets."""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from noiselaw.train.machine import choose_float32_products, float32_products

Job = Callable[[], object]


@dataclass(frozen=True)
class Claim:
    """A measured number and what was asked of it."""

    what: str
    value: float
    target: float | None = None
    """None where nothing was asked."""
    at_most: bool = True
    """Whether smaller is better."""

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def parser(description: str, *, threads: bool = True) -> argparse.ArgumentParser:
    """Options that benchmarks share; `threads` for those whose number of threads may be chosen."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if threads:
        found.add_argument("--threads", type=int, default=2)
    found.add_argument("--claims", type=Path, help="also write the numbers that have targets, as JSON, to this file")
    return found


def write_claims(claims: Sequence[Claim], path: Path | None) -> None:
    """For `benchmarks/run_all.py`, where a path is given."""
    if path is not None:
        path.write_text(json.dumps([asdict(claim) for claim in claims]), encoding="utf-8")


@contextmanager
def fastest_products() -> Iterator[str]:
    """Float32 products on the CPU by the library that training would choose; its name."""
    library = choose_float32_products("auto", torch.device("cpu"))
    with float32_products(library):
        yield library


def machine() -> str:
    """Processor, threads and versions, for the head of a table."""
    return f"{cpu_name()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def best_seconds(timed: Mapping[str, Job], num_rounds: int) -> dict[str, float]:
    """Best wall time of each job, rounds interleaved so that a busy machine troubles all of them alike."""
    best = dict.fromkeys(timed, math.inf)
    for _ in range(num_rounds):
        for name, job in timed.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Without what the profiler's own code writes to file descriptor 2 whenever it starts and stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def peak_megabytes(job: Job) -> float:
    """Largest sum of what the job holds at one time, from the allocator's own events."""
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        job()
    # Allocations are events named [memory]; the profiler gives no running total on a CPU.
    steps = sorted(
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held, peak = 0, 0
    for _, num_bytes in steps:
        held += num_bytes
        peak = max(peak, held)
    return peak / 2**20
