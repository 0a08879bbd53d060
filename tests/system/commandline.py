"""The command line inside the test's own process: what it says, and that a user's mistake is never a traceback."""

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from noiselaw.cli.main import EXIT_USER_ERROR, main

HUNG_SECONDS = 120
"""A command on a small file that takes longer counts as hung."""
LONGEST_MESSAGE = 4000
"""Characters of a message that somebody reads."""


class HungError(Exception):
    """A command that did not come back."""


@dataclass(frozen=True, slots=True)
class Said:
    """The exit code and what was printed."""

    code: int
    out: str
    err: str


def call(*words: object) -> Said:
    """`noiselaw WORDS`. Whatever exception reaches the user as a traceback comes out of here. Raises HungError."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["noiselaw", *map(str, words)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _hanging_is_an_error():
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    assert isinstance(code, int), code
    return Said(code, out.getvalue(), err.getvalue())


def refused(*words: object) -> str:
    """The message with which the command refuses: exit 2, short, and one thing named."""
    said = call(*words)
    assert said.code == EXIT_USER_ERROR, said
    return check_message(said)


def accepts_or_refuses(*words: object) -> Said:
    """The command either works or refuses as it should."""
    said = call(*words)
    if said.code:
        assert said.code == EXIT_USER_ERROR, said
        check_message(said)
    return said


def check_message(said: Said) -> str:
    """The last thing said to the user, checked for being a message and no accident of the program's insides."""
    *_, message = (
        said.err.partition("noiselaw: ") if said.err.startswith("noiselaw: ") else said.err.rpartition("\nnoiselaw: ")
    )
    assert message, said
    assert message.strip(), said
    assert "Traceback" not in said.err
    assert len(message) < LONGEST_MESSAGE, message[:LONGEST_MESSAGE]
    return message


@contextlib.contextmanager
def _hanging_is_an_error() -> Iterator[None]:
    def give_up(number: int, frame: object) -> None:
        raise HungError(f"no answer within {HUNG_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HUNG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
