"""How long the stages of a study took, and how long one will still take by the measured speed of its runs."""

import bisect
import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from noiselaw.files import read_json, write_json
from noiselaw.study.ledger import RunState, Status

TRUSTED_SECONDS = 2.0
"""A run's speed counts once it has trained this long; its start-up never does."""
START_SECONDS = 3.0
"""What a run that waits will need before its first step: imports, checks of its data, the machine's matmul rate."""
SAVE_SECONDS = 10.0
"""How often the time a stage takes is written down while it runs."""


def seconds_left(states: Sequence[RunState], num_workers: int) -> float | None:
    """Seconds until all runs are done, `num_workers` at a time in this order; None as long as no speed is known.

    A run goes on at its own speed. One that has not shown any is given the FLOPs per second of the run nearest in size:
    small models reach far less of a machine's peak than large ones.
    """
    # By size, so that the nearest is found by bisection; of equal sizes the first counts.
    known = {state.run.flops_per_token: rate for state in reversed(states) if (rate := _flops_per_second(state))}
    if not known:
        return None
    sizes = sorted(known)
    free = [0.0] * num_workers  # when each is free again
    started = [state for state in states if state.status is Status.STARTED]
    waiting = [state for state in states if state.status is Status.WAITING]
    for state in (*started, *waiting):
        rate = _flops_per_second(state) or _nearest(state.run.flops_per_token, sizes, known)
        seconds = state.run.flops * (1 - state.progress) / rate
        heapq.heapreplace(free, free[0] + seconds + (START_SECONDS if state.status is Status.WAITING else 0.0))
    return max(free)


def _flops_per_second(state: RunState) -> float | None:
    """FLOPs per second as the budget counts them, head not included."""
    if state.speed is None or state.speed["seconds"] < TRUSTED_SECONDS:
        return None
    return state.speed["tokens_per_second"] * state.run.flops_per_token


def _nearest(size: int, sizes: Sequence[int], known: Mapping[int, float]) -> float:
    """What is known of the size nearest by ratio."""
    place = bisect.bisect_left(sizes, size)
    return known[min(sizes[max(0, place - 1) : place + 1], key=lambda other: abs(math.log(size / other)))]


class Stopwatch:
    """Adds the wall-clock time since it was made to that of a stage, in elapsed.json."""

    def __init__(self, folder: Path, stage: str) -> None:
        self._folder, self._stage, self._before = folder, stage, read_elapsed(folder)
        self._start = self._saved = time.monotonic()

    def save_now_and_then(self) -> None:
        """Save what a kill may cost no more than SAVE_SECONDS of."""
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        seconds = self._before.get(self._stage, 0.0) + self._saved - self._start
        write_json(self._folder / "elapsed.json", self._before | {self._stage: seconds})


@contextmanager
def timed(folder: Path, stage: str) -> Iterator[Stopwatch]:
    """Count the time of the block, also when it is interrupted."""
    watch = Stopwatch(folder, stage)
    try:
        yield watch
    finally:
        watch.save()


def read_elapsed(folder: Path) -> dict[str, float]:
    """Seconds by stage, over all the times the study was started."""
    path = folder / "elapsed.json"
    return read_json(path) if path.exists() else {}
