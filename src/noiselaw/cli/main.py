"""`noiselaw VERB ...`: finds the verb, imports only what it needs, turns users' mistakes into one clear line."""

import errno
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

import tyro

from noiselaw import __version__


@dataclass(frozen=True, slots=True)
class Verb:
    """A command of the program."""

    target: str
    """module:function, imported only when the verb is called."""
    help: str
    takes_overrides: bool = False
    """The function reads its own arguments: it accepts --key value for every key of a spec."""


VERBS: dict[tuple[str, ...], Verb] = {
    ("data", "prepare"): Verb("noiselaw.cli.data:prepare", "turn text into token shards"),
    ("data", "inspect"): Verb("noiselaw.cli.data:inspect", "show what a prepared folder holds"),
    ("train",): Verb("noiselaw.cli.train:train", "train one model from a spec", takes_overrides=True),
    ("sample",): Verb(
        "noiselaw.cli.sample:sample", "write, infill or revise text with a trained model", takes_overrides=True
    ),
    ("demo",): Verb("noiselaw.cli.demo:demo", "watch a model write, in a browser on this machine"),
    ("evaluate",): Verb(
        "noiselaw.cli.evaluate:evaluate",
        "score data, texts or benchmark tasks with a trained model",
        takes_overrides=True,
    ),
    ("export",): Verb("noiselaw.cli.export:export", "write a run's model as a folder to share"),
    ("study", "run"): Verb(
        "noiselaw.cli.study:run", "train a family of models, fit the laws, confirm a prediction", takes_overrides=True
    ),
    ("study", "status"): Verb(
        "noiselaw.cli.study:status", "show the state of every run of a study", takes_overrides=True
    ),
    ("study", "watch"): Verb("noiselaw.cli.watch:watch", "follow a running study in a browser, or on the terminal"),
    ("laws", "isoflop"): Verb("noiselaw.cli.laws:isoflop", "fit the best size, tokens and loss at every budget"),
    ("laws", "surface"): Verb("noiselaw.cli.laws:surface", "fit L = E + A N^-alpha + B D^-beta"),
    ("laws", "frontier"): Verb("noiselaw.cli.laws:frontier", "fit the envelope of loss curves"),
    ("laws", "tokens"): Verb("noiselaw.cli.laws:tokens", "fit the best loss and size for scarce or repeated data"),
    ("laws", "hyperparameters"): Verb(
        "noiselaw.cli.laws:hyperparameters", "fit the best batch against tokens, the best learning rate against batch"
    ),
    ("laws", "cooldown"): Verb("noiselaw.cli.laws:cooldown", "fit the factor between runs with and without cooldown"),
    ("laws", "cross"): Verb("noiselaw.cli.laws:cross", "find where one group overtakes another"),
    ("laws", "reproduce"): Verb("noiselaw.cli.reproduce:reproduce", "derive the published laws anew from their points"),
    ("plan",): Verb("noiselaw.cli.plan:plan", "plan the run that spends a budget best"),
    ("report",): Verb("noiselaw.cli.report:report", "write the report page of a study, or of several"),
}

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main() -> None:
    """Entry point of the `noiselaw` command."""
    try:
        _main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has enough (`noiselaw ... | head`): no complaint, but the work may not be done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)


def _main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    if arguments[0] == "--version":
        print(f"noiselaw {__version__}")
        return
    words = next((words for words in VERBS if tuple(arguments[: len(words)]) == words), None)
    if words is None:
        family = [words for words in VERBS if words[0] == arguments[0]]
        if family and arguments[1:] in ([], ["-h"], ["--help"]):
            print(_help(family))
            return
        _fail(_unknown_command(arguments, family))
    # Large tensors in pages of 2 MB: fresh memory costs an eighth. torch looks at this once, at its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        _call(words, arguments[len(words) :])
    except BrokenPipeError:
        raise
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        _fail(_message(error))
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "interrupted", EXIT_INTERRUPTED)


def _call(words: tuple[str, ...], arguments: list[str]) -> None:
    verb = VERBS[words]
    module, function = verb.target.split(":")
    command = getattr(import_module(module), function)
    if verb.takes_overrides:
        command(arguments)
    else:
        tyro.cli(command, prog=" ".join(("noiselaw", *words)), args=arguments)


def _message(error: Exception) -> str:
    """What the user reads: where the disk takes nothing more, the path and the remedy whoever met it."""
    if isinstance(error, OSError) and error.filename and error.errno in DISK_ERRORS:
        return f"cannot write {error.filename}: {error.strerror}; free space or choose another folder"
    return str(error)


def _fail(message: str, status: int = EXIT_USER_ERROR) -> NoReturn:
    # Of the processes that torchrun started here, one speaks for all.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"noiselaw: {message}", file=sys.stderr)
    sys.exit(status)


def _unknown_command(arguments: list[str], family: list[tuple[str, ...]]) -> str:
    from noiselaw.specs import nearest_name  # noqa: PLC0415 (loads pydantic, which help does without)

    known = [" ".join(words) for words in family or VERBS]
    typed = " ".join(arguments[: 2 if family else 1])
    return f"unknown command {typed!r}{nearest_name(typed, known)}\n\n{_help(family)}"


def _help(shown: Iterable[tuple[str, ...]] = ()) -> str:
    """Usage and one line for each of the `shown` commands, or for all."""
    names = {" ".join(words): VERBS[words].help for words in shown or VERBS}
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {meaning}" for name, meaning in names.items()]
    return "\n".join(["usage: noiselaw COMMAND [--help] ...", "", *lines, *([] if shown else ["", "  --version"])])
