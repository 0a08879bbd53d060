"""`noiselaw study run RECIPE` and `noiselaw study status RECIPE`; either takes the folder of a study too."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from noiselaw.cli.overrides import read_with_overrides
from noiselaw.cli.settings import describe_settings
from noiselaw.cli.studytable import StudyDisplay, study_table
from noiselaw.report.page import write_report
from noiselaw.study.design import StudySpec
from noiselaw.study.ledger import Status
from noiselaw.study.run import RunsFailedError, describe_missing, planned_runs, run_study


@dataclass(frozen=True, slots=True)
class StudyArguments:
    """Train a family of models, fit the scaling laws, predict a larger run, train it and compare.

    The same command continues a study that was interrupted. Any setting of the recipe can be given as --key value;
    `noiselaw study run --settings` lists them all.
    """

    recipe: Annotated[Path, tyro.conf.Positional]
    """YAML file with the study's settings, or the folder of a study to continue."""
    out: Path | None = None
    """Study folder; by default studies/NAME, or RECIPE where that is a folder."""


@dataclass(frozen=True, slots=True)
class StatusArguments:
    """Show the state of every run of a study."""

    recipe: Annotated[Path, tyro.conf.Positional]
    """The study's folder, or the recipe it was started with."""
    out: Path | None = None
    """Study folder; by default studies/NAME, or RECIPE where that is a folder."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Read the command line, run the study, print what it found."""
    if arguments == ["--settings"]:
        print(f"{describe_settings(StudySpec)}\n\nFor what goes under run: noiselaw train --settings")
        return
    parsed, overrides = tyro.cli(StudyArguments, prog="noiselaw study run", args=arguments, return_unknown_args=True)
    study, folder = _study_and_folder(parsed, overrides)
    try:
        with StudyDisplay() as display:
            missing = run_study(study, folder, display)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{folder}: stopped; the same command continues from there") from None
    print(f"report: {write_report(folder)}")
    if missing:
        raise RunsFailedError(describe_missing(missing))


def status(arguments: list[str]) -> None:
    """Read the command line, print the table of runs."""
    parsed, overrides = tyro.cli(
        StatusArguments, prog="noiselaw study status", args=arguments, return_unknown_args=True
    )
    states = planned_runs(*_study_and_folder(parsed, overrides))
    if parsed.json:
        print(json.dumps([state.as_row() for state in states], indent=1))
    else:
        Console().print(study_table(states))
        for state in states:
            if state.status is Status.FAILED:
                print(f"{state.run.spec.name}: {state.cause}, started {state.attempts} time(s); see its log.txt")


def _study_and_folder(parsed: StudyArguments | StatusArguments, overrides: list[str]) -> tuple[StudySpec, Path]:
    path, folder = parsed.recipe, parsed.out
    if path.is_dir():
        path, folder = path / "recipe.json", folder or path
    options = tuple(field.name for field in fields(parsed))
    study = read_with_overrides(StudySpec, path, overrides, options)
    return study, folder or Path("studies") / study.name
