"""What the suites share: commands under faults, and small things for them to work on."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commandline import call
from faults import Commands, NoCompilerError
from stages import Desk


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands under faults."""
    try:
        made = Commands(tmp_path_factory.mktemp("shim"))
    except NoCompilerError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """With texts, data and a finished run."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.write_texts()
    for words in desk.first_words():
        said = call(*words)
        assert said.code == 0, said
    return desk


@pytest.fixture
def copied_run(trained_run: Callable[[str], Path], tmp_path: Path) -> Path:
    """A finished run that a test may damage."""
    return shutil.copytree(trained_run("balanced"), tmp_path / "run")
