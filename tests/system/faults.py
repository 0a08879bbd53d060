"""Commands failed on purpose: killed at a chosen call to the system, on a disk that errs, by a clock that jumps."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from stages import SECRETS

SOURCE = Path(__file__).with_name("faults.c")
SERVER = Path(__file__).with_name("server.py")
ENDLESS_SECONDS = 600.0
"""A command that takes longer hangs."""


class NoCompilerError(OSError):
    """There is no C compiler, or it cannot make a library to preload."""


@dataclass(frozen=True, slots=True)
class AtCall:
    """Killed in a call to the system that changes files: by its number, from 1, over all that the command makes."""

    number: int
    how: Literal["before", "after", "torn"]


@dataclass(frozen=True, slots=True)
class AtTime:
    """Killed so many seconds after its start: the command itself, one of the processes it started, or all of them."""

    seconds: float
    whom: Literal["command", "child", "all"] = "command"


Moment = AtCall | AtTime


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended."""

    code: int
    killed: str | None
    """Where the kill struck; None where the command ended before it could."""
    output: str


def build_shim(folder: Path) -> Path:
    """The library to preload, compiled into `folder`. Raises NoCompilerError."""
    library = folder / "faults.so"
    compiler = next(filter(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")), None)
    if sys.platform != "linux" or compiler is None:
        raise NoCompilerError("faults are injected by a preloaded C library: Linux with a C compiler (CC) needed")
    command = [compiler, "-shared", "-fPIC", "-O1", str(SOURCE), "-o", str(library), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompilerError(f"{compiler} failed: {done.stderr.strip()}")
    return library


class Commands:
    """Runs commands, one at a time, under faults. Use as a context manager; the shim is compiled into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.shim = build_shim(folder)
        self._output = folder / "output.txt"
        self._token = folder / "token"

    def __enter__(self) -> Self:
        environment = {**os.environ, **SECRETS, "LD_PRELOAD": str(self.shim), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(self, words: Sequence[object], **faults: object) -> End:
        """The command to its end. `under`, `at`, `how`, ... are settings of the shim (faults.c)."""
        self.start(words, **faults)
        return self.finish()

    def run_and_kill(self, words: Sequence[object], moment: Moment, under: Path) -> End:
        """The command, killed (SIGKILL) at `moment` unless it ends before; calls count on files below `under` only."""
        if isinstance(moment, AtTime):
            return self._kill_at(words, moment, under)
        note = self._token.with_name(f"{self._token.name}.call")
        note.unlink(missing_ok=True)
        self._token.touch()
        self.start(words, under=under, at=moment.number, how=moment.how, token=self._token)
        end = self.finish()
        if not note.exists():
            return end
        return replace(end, killed=note.read_text(encoding="utf-8").strip().replace(f"{under}/", ""))

    def _kill_at(self, words: Sequence[object], moment: AtTime, under: Path) -> End:
        child = self.start(words)
        if self._ended_within(moment.seconds):
            return self.finish()
        others = list(processes_of(under))
        victims = {"command": [child], "child": others[:1] or [child], "all": [child, *others]}[moment.whom]
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        whom = {"command": "the command", "child": "a run" if others else "the command", "all": "all"}[moment.whom]
        return self.finish(f"{whom} after {moment.seconds:.2f} s")

    def start(self, words: Sequence[object], **faults: object) -> int:
        """Start the command; the process that does it. `finish` ends it."""
        self._output.unlink(missing_ok=True)
        settings = {f"FAULTS_{name.upper()}": str(value) for name, value in faults.items()}
        request = {"words": list(map(str, words)), "env": settings, "output": str(self._output)}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer("pid")

    def finish(self, killed: str | None = None) -> End:
        """Wait for the command that was started. Raises TimeoutError where it hangs."""
        if not self._ended_within(ENDLESS_SECONDS):
            raise TimeoutError(f"the command hangs: {self._output.read_text(encoding='utf-8')}")
        code = self._answer("code")
        return End(code, killed, self._output.read_text(encoding="utf-8", errors="replace"))

    def _ended_within(self, seconds: float) -> bool:
        return bool(select.select([self._server.stdout], [], [], seconds)[0])

    def _answer(self, name: str) -> int:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())[name]


def processes_of(folder: Path) -> Iterator[int]:
    """Processes whose command line names a place in `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end while it is looked at
            if str(folder).encode() in (process / "cmdline").read_bytes():
                yield int(process.name)
