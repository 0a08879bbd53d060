"""Where runs execute. State lives in the run folders, so an executor can die at any time.

An executor is dumb: it starts jobs by name, says which of that name are waiting or running, and stops them. What a run
has come to is read from its folder, never from the executor. A new executor is one file and one line here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from noiselaw.study.design import StudySpec
from noiselaw.study.layout import Layout


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A run to be started: `noiselaw.study.job` on its folder."""

    name: str
    """The same whenever this run of this study is started, and no other's: jobs are found again by it."""
    folder: Path


class Executor(Protocol):
    """Starts, finds and stops jobs of one study."""

    @property
    def name(self) -> str: ...

    def capacity(self) -> int:
        """How many more jobs it takes now."""
        ...

    def submit(self, job: JobRequest) -> bool:
        """Start a job, or put it in a queue; False where none is taken just now."""
        ...

    def poll(self) -> set[str]:
        """Names of the study's jobs that wait or run, whoever submitted them."""
        ...

    def cancel(self, names: Iterable[str]) -> None:
        """Ask jobs to save and stop, and return when they have or were killed."""
        ...


def job_prefix(folder: Path) -> str:
    """What the names of all jobs of the study in `folder` begin with, and no other study's."""
    return f"noiselaw-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}-"


EXECUTORS = {
    "local": "noiselaw.study.executors.local",
    "ray": "noiselaw.study.executors.ray",
    "slurm": "noiselaw.study.executors.slurm",
}


def open_executor(study: StudySpec, folder: Path, layout: Layout, num_runs: int) -> Executor:
    """The executor that the recipe names, for a stage of `num_runs` runs of the study in `folder`.

    Raises ValueError for settings it cannot carry out, ImportError, with the remedy, where its package is missing.
    """
    return import_module(EXECUTORS[study.executor]).start(study, folder, layout, num_runs)


def missing_package(name: str, error: ImportError) -> ImportError:
    """What to say when the package of an executor is not installed."""
    return ImportError(f"executor {name} needs its package ({error}); install it with: pip install 'noiselaw[{name}]'")
