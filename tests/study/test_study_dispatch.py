"""Every run to its end, the executor a dictionary: what is tried again, given up, found again, never run twice."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from noiselaw.files import write_json
from noiselaw.lease import lease
from noiselaw.study import dispatch
from noiselaw.study.attempts import begin, end, read_attempts
from noiselaw.study.dispatch import NEVER_STARTED, Stage, carry_out
from noiselaw.study.executors.protocol import job_prefix
from noiselaw.study.ledger import Status, read_state
from noiselaw.study.run import describe_missing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(dispatch, "_write_spec", lambda run, num_threads: run.folder.mkdir(exist_ok=True))


def planned(folder, name):
    """As much of a PlannedRun as a stage reads of it."""
    spec = SimpleNamespace(name=name, schedule=SimpleNamespace(num_steps=10))
    return SimpleNamespace(folder=folder / name, spec=spec, group="masked", role="grid")


def train(folder, step):
    with (folder / "metrics.jsonl").open("a") as rows:
        rows.write(f'{{"kind": "train", "step": {step}}}\n')


def succeed(folder):
    begin(folder, "fake", "job", "here")
    write_json(folder / "result.json", {"validation": None, "speed": None})
    end(folder, "done")


def crash(folder):
    begin(folder, "fake", "job", "here")
    (folder / "log.txt").write_text("Out of memory\n")
    end(folder, "killed by SIGKILL")


def lose(folder):
    """The machine dies: nobody notes the end."""
    begin(folder, "fake", "job", "here")


def preempt(folder):
    begin(folder, "fake", "job", "here")
    train(folder, 1 + read_attempts(folder)[-1].first_step)
    end(folder, "stopped")


def diverge(folder):
    crash(folder)
    write_json(folder / "failure.json", {"step": 3, "fault": "loss nan"})


def vanish(folder):
    """The job ends before it starts anything."""


@dataclass
class Fake:
    """Each job runs one of its fates and is gone at the next poll."""

    fates: dict
    room: int = 2
    alive: set = field(default_factory=set)
    submitted: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    name: str = "fake"

    def capacity(self):
        return self.room - len(self.alive)

    def submit(self, job):
        assert job.name not in self.alive
        run = job.name.split("-", 2)[2]
        self.submitted.append(run)
        self.alive.add(job.name)
        fates = self.fates[run]
        (fates.pop(0) if len(fates) > 1 else fates[0])(job.folder)
        return True

    def poll(self):
        assert len(self.alive) <= self.room
        was, self.alive = self.alive, set()
        return was if self.cancelled else set()

    def cancel(self, names):
        self.cancelled += names


def stage(folder, executor, said=None, on_poll=lambda runs: None):
    return Stage(folder, executor, 1, 3, (said if said is not None else []).append, on_poll)


def carried_out(folder, **fates):
    executor, said = Fake({name: list(each) for name, each in fates.items()}), []
    runs = [planned(folder, name) for name in fates]
    carry_out(runs, stage(folder, executor, said))
    return {run.spec.name: read_state(run) for run in runs}, executor.submitted, said


def test_what_fails_is_tried_again_up_to_the_limit_and_the_rest_goes_on(tmp_path):
    states, submitted, said = carried_out(
        tmp_path, good=[succeed], shaky=[crash, lose, succeed], hopeless=[crash], diverging=[diverge]
    )
    assert {name: state.status for name, state in states.items()} == {
        "good": Status.DONE,
        "shaky": Status.DONE,
        "hopeless": Status.FAILED,
        "diverging": Status.FAILED,
    }
    assert [submitted.count(name) for name in ("good", "shaky", "hopeless", "diverging")] == [1, 3, 3, 1]
    assert "hopeless: killed by SIGKILL (3 of 3 attempts failed); given up" in said
    assert "diverging: loss nan at step 3; not tried again" in said


def test_the_cause_of_a_failure_is_kept(tmp_path):
    states, _, _ = carried_out(tmp_path, hopeless=[crash], diverging=[diverge])
    record = states["hopeless"].missing_record()
    assert record == {
        "run": "hopeless",
        "group": "masked",
        "role": "grid",
        "attempts": 3,
        "step": 0,
        "fault": "killed by SIGKILL",
        "log": "Out of memory",
    }
    assert states["diverging"].missing_record()["fault"] == "loss nan"
    text = describe_missing(list(states.values()))
    assert text.startswith("2 run(s) did not finish; the rest is kept")
    assert f"{tmp_path / 'hopeless'} (killed by SIGKILL at step 0):\nOut of memory" in text


def test_being_stopped_after_some_steps_never_counts(tmp_path):
    """Preemption and time limits: a long run may need many jobs."""
    states, submitted, _ = carried_out(tmp_path, long=[*[preempt] * 8, succeed])
    assert states["long"].status is Status.DONE
    assert len(submitted) == 9


def test_a_job_that_ends_before_it_starts_counts_and_says_so(tmp_path):
    states, submitted, _ = carried_out(tmp_path, never=[vanish])
    assert states["never"].status is Status.FAILED
    assert states["never"].cause == f"{NEVER_STARTED} at step 0"
    assert len(submitted) == 3


def test_jobs_that_an_earlier_study_left_are_found_and_not_started_again(tmp_path):
    """The earlier one was killed; its job finishes its run while this one watches."""
    run = planned(tmp_path, "orphan")
    run.folder.mkdir()
    executor, said = Fake({"orphan": [crash]}), []
    polls = iter([True, True, False])

    def poll():
        alive = next(polls)
        if not alive:
            succeed(run.folder)
        return {job_prefix(tmp_path) + "orphan"} if alive else set()

    executor.poll = poll
    carry_out([run], stage(tmp_path, executor, said))
    assert executor.submitted == []
    assert said == ["1 of the runs wait or train already: found again by their jobs' names"]


def test_a_run_that_somebody_works_on_is_not_submitted(tmp_path):
    """Under another executor, say, which this one knows nothing of."""
    run = planned(tmp_path, "busy")
    run.folder.mkdir()
    executor, polls = Fake({"busy": [crash]}), []
    held = lease(run.folder)
    held.__enter__()

    def on_poll(runs):
        polls.append(runs)
        if len(polls) == 5:
            succeed(run.folder)
            held.__exit__(None, None, None)

    carry_out([run], stage(tmp_path, executor, on_poll=on_poll))
    assert len(polls) >= 5
    assert executor.submitted == []


def test_jobs_are_told_to_stop_when_the_study_is(tmp_path):
    executor = Fake({"one": [vanish], "two": [vanish]})

    def interrupt(runs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out([planned(tmp_path, "one"), planned(tmp_path, "two")], stage(tmp_path, executor, on_poll=interrupt))
    assert executor.cancelled == [job_prefix(tmp_path) + name for name in ("one", "two")]


def test_a_queue_that_is_full_is_asked_again(tmp_path):
    executor, answers = Fake({"one": [succeed]}), [False, False, True]
    submit = executor.submit
    executor.submit = lambda job: answers.pop(0) and submit(job)
    carry_out([planned(tmp_path, "one")], stage(tmp_path, executor))
    assert answers == []
    assert executor.submitted == ["one"]


def test_names_of_jobs_belong_to_one_study(tmp_path):
    assert job_prefix(tmp_path / "a") != job_prefix(tmp_path / "b")
    assert job_prefix(tmp_path / "a") == job_prefix(tmp_path / "b" / ".." / "a")
