"""The time a stage will still take: from runs' own speeds, whatever their start-up took."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from noiselaw.study import timing
from noiselaw.study.ledger import Status
from noiselaw.study.timing import START_SECONDS as START
from noiselaw.study.timing import Stopwatch, read_elapsed, seconds_left, timed


@dataclass
class State:
    """As much of a RunState as the estimate reads: a run of `flops` FLOPs at `per_token` FLOPs per token."""

    status: Status
    flops: float
    per_token: float = 10.0
    progress: float = 0.0
    speed: dict | None = None
    run: SimpleNamespace = field(init=False)

    def __post_init__(self):
        self.run = SimpleNamespace(flops=self.flops, flops_per_token=self.per_token)


def speed(tokens_per_second, seconds=60.0):
    return {"tokens_per_second": tokens_per_second, "seconds": seconds}


def test_nothing_is_said_before_a_run_has_shown_its_speed():
    young = State(Status.STARTED, 100, progress=0.01, speed=speed(1.0, seconds=0.5))
    assert seconds_left([young, State(Status.WAITING, 100)], 2) is None


def test_a_run_goes_on_at_its_own_speed():
    running = State(Status.STARTED, 1000, progress=0.6, speed=speed(4.0))
    assert seconds_left([running], 2) == pytest.approx(10.0)


def test_runs_that_wait_are_taken_for_those_nearest_in_size():
    """And for their start-up."""
    small = State(Status.DONE, 1000, per_token=10, progress=1.0, speed=speed(1.0))
    large = State(Status.DONE, 1000, per_token=100, progress=1.0, speed=speed(1.0))
    assert seconds_left([small, large, State(Status.WAITING, 1000, per_token=12)], 1) == pytest.approx(100.0 + START)
    assert seconds_left([small, large, State(Status.WAITING, 1000, per_token=90)], 1) == pytest.approx(10.0 + START)


def test_workers_take_the_runs_in_their_order():
    first = State(Status.STARTED, 1000, progress=0.5, speed=speed(10.0))  # 5 s left, 10 s in all
    waiting = [State(Status.WAITING, 1000) for _ in range(3)]
    assert seconds_left([*waiting, first], 1) == pytest.approx(35.0 + 3 * START)
    assert seconds_left([*waiting, first], 2) == pytest.approx(20.0 + 2 * START)
    assert seconds_left([*waiting, first], 4) == pytest.approx(10.0 + START)


def test_runs_that_ended_take_no_time():
    states = [State(Status.DONE, 1000, speed=speed(1.0)), State(Status.FAILED, 1000, speed=speed(1.0))]
    assert seconds_left(states, 2) == 0.0


def test_time_is_counted_over_interruptions_and_saved_on_the_way(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])

    def interrupted():
        with timed(tmp_path, "grid"):
            now[0] += 5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_elapsed(tmp_path) == {"grid": 5.0}
    watch = Stopwatch(tmp_path, "grid")
    now[0] += 3
    watch.save_now_and_then()
    assert read_elapsed(tmp_path) == {"grid": 5.0}, "not yet"
    now[0] += 8
    watch.save_now_and_then()
    assert read_elapsed(tmp_path) == {"grid": 16.0}, "a kill after this loses only what comes later"
