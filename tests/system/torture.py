"""Kills noiselaw at random moments, starts it again, and counts what was lost: `make torture`.

    python tests/system/torture.py [--kills 100] [--seed 0] [--keep FOLDER]

Every stage of the work has a folder, the victim. Its command is killed (SIGKILL), started again, killed again, up to
four times, then left alone: it must end well, and with the results, bit by bit, of one that was never killed. Two
thirds of the kills strike in a system call that changes a file, before it, after it, or half-way through a write; the
others after a random time. In a study they strike the study, one of its runs, or all of them at once. Commands are
forked with everything imported (server.py), so that kills strike work and not start-up; the runs of a study are
processes of their own. Prints every kill and a tally; exits 1 where anything was lost.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults import AtCall, AtTime, Commands, End, Moment
from stages import STAGES, Desk, Outcome, Stage, half_written, holding_secrets

SHARES = {"prepare": 20, "export": 14, "train": 24, "checkpoint": 22, "collect": 14, "study": 6}
"""Of 100 kills; the slowest stages come last."""
STUDIES = ("collect", "study")
"""Stages that want a finished study on the desk."""
MOST_KILLS = 4
"""Of one victim in a row."""
TIMED_SHARE = 1 / 3
"""Of the kills that strike after a random time."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The command, left alone."""

    outcome: Outcome
    seconds: float
    calls: int
    """To the system that change a file."""


@dataclass
class Tally:
    """What became of one stage."""

    stage: str
    kills: int = 0
    victims: int = 0
    """Folders in which it was killed at least once."""
    resumed: int = 0
    """Of them, those in which the same command ended well."""
    identical: int = 0
    """Of them, those whose results are bit by bit those of the reference."""
    faults: list[str] = field(default_factory=list)


def measure(stage: Stage, desk: Desk, folder: Path, commands: Commands) -> Reference:
    """Run the stage's command once without harm. Raises RuntimeError where it fails by itself."""
    counts = folder / "counts"
    victim = folder / "whole"
    victim.mkdir()
    words = stage.begin(desk, victim)
    started = time.monotonic()
    end = commands.run(words, under=victim / stage.under, counts=counts)
    seconds = time.monotonic() - started
    if end.code:
        raise RuntimeError(f"{stage.name} fails unharmed:\n{end.output}")
    calls = max(map(int, counts.read_text(encoding="utf-8").split()))
    return Reference(stage.outcome(victim), seconds, calls)


def draw_moment(stage: str, reference: Reference, draw: random.Random) -> Moment:
    """When to kill."""
    if draw.random() < TIMED_SHARE:
        whom = draw.choice(("command", "child", "all")) if stage == "study" else "command"
        return AtTime(draw.uniform(0, reference.seconds), whom)
    return AtCall(draw.randint(1, reference.calls), draw.choice(("before", "after", "torn")))


def torture(
    stage: Stage,
    desk: Desk,
    folder: Path,
    commands: Commands,
    tally: Tally,
    *,
    kills: int,
    draw: random.Random,
    say: Callable[[str], None],
) -> None:
    """Kill the stage's command `kills` times in folders below `folder`, and count in `tally`."""
    reference = measure(stage, desk, folder, commands)
    say(f"{stage.name}: {reference.seconds:.1f} s and {reference.calls} calls unharmed")
    while tally.kills < kills:
        victim = folder / f"victim{tally.victims}"
        victim.mkdir()
        words = stage.begin(desk, victim)
        before = tally.kills
        for _ in range(min(draw.randint(1, MOST_KILLS), kills - tally.kills)):
            end = commands.run_and_kill(words, draw_moment(stage.name, reference, draw), victim / stage.under)
            _note_kill(tally, end, half_written(victim), say)
            if end.killed is None:
                break
        if tally.kills > before:
            end = commands.run(words)
            outcome = stage.outcome(victim) if end.code == 0 else {}
            _note_end(tally, end, differing(outcome, reference.outcome), say)
            tally.faults += [f"{stage.name}: left behind: {path.name}" for path in victim.rglob(".*.tmp")]
            tally.faults += [f"{stage.name}: holds a secret: {path.name}" for path in holding_secrets(victim)]
        shutil.rmtree(victim)


def _note_kill(tally: Tally, end: End, damage: list[str], say: Callable[[str], None]) -> None:
    if end.killed is None:
        if end.code:
            tally.faults.append(f"{tally.stage}: not killed, yet it failed: {end.output[-500:]}")
        return
    tally.kills += 1
    say(f"  kill {tally.kills:3} of {tally.stage}: {end.killed}")
    tally.faults += [f"{tally.stage}: half written after {end.killed}: {path}" for path in damage]


def _note_end(tally: Tally, end: End, differs: list[str], say: Callable[[str], None]) -> None:
    """Count what the command made of a victim once it was left alone."""
    tally.victims += 1
    if end.code:
        tally.faults.append(f"{tally.stage}: does not resume: {end.output[-2000:]}")
        return
    tally.resumed += 1
    tally.identical += not differs
    tally.faults += [f"{tally.stage}: differs after kills: {name}" for name in differs]
    say(f"  {tally.stage} resumed, {'DIFFERS' if differs else 'identical'}")


def differing(one: Outcome, other: Outcome) -> list[str]:
    """Names under which two outcomes differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def make_desk(folder: Path, commands: Commands) -> Desk:
    """Texts, tokens and a finished run."""
    folder.mkdir()
    desk = Desk(folder)
    desk.write_texts()
    for words in desk.first_words():
        do(commands, words)
    return desk


def do(commands: Commands, words: Sequence[object]) -> None:
    """Run what must not fail. Raises RuntimeError."""
    end = commands.run(words)
    if end.code:
        raise RuntimeError(f"{words} failed:\n{end.output}")


def table(tallies: list[Tally]) -> str:
    """The tally for people, as Markdown has it."""
    total = Tally("all")
    for name in ("kills", "victims", "resumed", "identical", "faults"):
        setattr(total, name, sum((getattr(tally, name) for tally in tallies), type(getattr(total, name))()))
    lines = ["| stage | kills | folders | resumed | bit-identical | faults |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {one.stage} | {one.kills} | {one.victims} | {one.resumed} | {one.identical} | {len(one.faults)} |"
        for one in (*tallies, total)
    ]
    return "\n".join(lines)


def main() -> int:
    """Torture every stage; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for everything, kept afterwards; by default a temporary one")
    options = parser.parse_args()
    draw, started = random.Random(options.seed), time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:7.1f} s] {text}", flush=True)

    root = options.keep or Path(tempfile.mkdtemp(prefix="noiselaw-torture-"))
    root.mkdir(parents=True, exist_ok=True)
    tallies = []
    try:
        with Commands(root) as commands:
            desk = make_desk(root / "desk", commands)
            say("the desk is laid")
            for name, share in SHARES.items():
                folder = root / name
                folder.mkdir()
                if name in STUDIES and not desk.study.exists():
                    do(commands, ["study", "run", desk.write_recipe(), "--out", desk.study])
                kills = max(1, round(share * options.kills / 100))
                tallies.append(tally := Tally(name))
                torture(STAGES[name], desk, folder, commands, tally, kills=kills, draw=draw, say=say)
    except KeyboardInterrupt:
        print("stopped; the tally so far:")
    finally:
        if options.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    faults = [fault for tally in tallies for fault in tally.faults]
    print(f"\nseed {options.seed}\n{table(tallies)}\n", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
