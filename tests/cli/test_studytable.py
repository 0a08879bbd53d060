"""A study on the terminal: every run in one row, nothing cut at 80 columns, an honest time left."""

import io
from types import SimpleNamespace

from rich.console import Console

from noiselaw.cli import studytable
from noiselaw.cli.studytable import StudyDisplay, study_table
from noiselaw.study.ledger import RunState, Status

SPEED = {"tokens_per_second": 123_456.0, "seconds": 50.0, "share_of_matmul_peak": 0.123}


def state(name, status, step, *, speed=None, loss=None):
    schedule = SimpleNamespace(num_steps=100)
    spec = SimpleNamespace(name=name, schedule=schedule, tokens_per_step=236_779)
    run = SimpleNamespace(spec=spec, flops=1e9, flops_per_token=1000.0)
    return RunState(run, status, step, None if loss is None else {"loss": loss}, speed, None)


STATES = [
    state("autoregressive-L12-d768-a4a71355", Status.DONE, 100, speed=SPEED, loss=12.3456),
    state("masked-L1-d12-422f7792", Status.STARTED, 50, speed=SPEED),
    state("uniform-L1-d12-422f7792", Status.WAITING, 0),
    state("balanced-L1-d12-422f7792", Status.FAILED, 3, speed=SPEED),
]


def test_every_cell_is_whole_at_80_columns():
    screen = io.StringIO()
    Console(file=screen, width=80).print(study_table(STATES))
    header, *rows = screen.getvalue().splitlines()
    assert header.split() == ["run", "status", "done", "tokens", "held-out", "tokens/s", "peak"]
    assert rows[0].split() == [
        "autoregressive-L12-d768-a4a71355", "done", "100%", "23,677,900", "12.3456", "123,456", "12%",
    ]  # fmt: skip
    assert [row.split()[1] for row in rows[1:4]] == ["started", "waiting", "failed"]
    assert "nats per token" in rows[4]


def test_elsewhere_a_line_tells_how_far_it_is_and_how_long_it_will_take(capsys, monkeypatch):
    monkeypatch.setattr(studytable, "LINE_SECONDS", 0.0)
    with StudyDisplay() as display:
        display.say("a very long line " * 20)
        display.update("grid", STATES[2:3], 2)
        display.update("grid", STATES, 1)
    long, unknown, known = capsys.readouterr().out.splitlines()
    assert long == "[0:00] " + "a very long line " * 20
    assert unknown == "[0:00] grid: 0 of 1 runs done"
    # At 123,456 tokens/s and 1000 FLOPs per token: half a run and a whole one of 8.1 s, and its start-up of 3.
    assert known == "[0:00] grid: 1 of 4 runs done, about 0:15 left"
