"""`noiselaw VERB ...`: finds the verb, imports only what it needs, turns users' mistakes into one clear line."""

import sys
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
    ("export",): Verb("noiselaw.cli.export:export", "write a run's model as a folder to share"),
    ("study", "run"): Verb(
        "noiselaw.cli.study:run", "train a family of models, fit the laws, confirm a prediction", takes_overrides=True
    ),
    ("study", "status"): Verb(
        "noiselaw.cli.study:status", "show the state of every run of a study", takes_overrides=True
    ),
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
    ("report",): Verb("noiselaw.cli.report:report", "write a study's report page"),
}

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `noiselaw` command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    if arguments[0] == "--version":
        print(f"noiselaw {__version__}")
        return
    words = next((words for words in VERBS if tuple(arguments[: len(words)]) == words), None)
    if words is None:
        _fail(f"unknown command {' '.join(arguments[:2])!r}\n\n{_help()}")
    try:
        _call(words, arguments[len(words) :])
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        _fail(str(error))
    except KeyboardInterrupt as stop:
        print(f"noiselaw: {stop or 'interrupted'}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _call(words: tuple[str, ...], arguments: list[str]) -> None:
    verb = VERBS[words]
    module, function = verb.target.split(":")
    command = getattr(import_module(module), function)
    if verb.takes_overrides:
        command(arguments)
    else:
        tyro.cli(command, prog=" ".join(("noiselaw", *words)), args=arguments)


def _fail(message: str) -> NoReturn:
    print(f"noiselaw: {message}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def _help() -> str:
    width = max(len(" ".join(words)) for words in VERBS)
    lines = [f"  {' '.join(words):<{width}}  {verb.help}" for words, verb in VERBS.items()]
    return "\n".join(["usage: noiselaw COMMAND [--help] ...", "", *lines, "", "  --version"])
