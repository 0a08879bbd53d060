"""Every promise of docs/reliability.md names its test, and the test is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def names_in(path: Path) -> set[str]:
    """Names of the test functions in a file."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def promises() -> list[str]:
    """The rows of the tables of promises and readers."""
    rows, is_promise = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(("| promise |", "| reader |")):
            is_promise = True
        elif not line.startswith("|"):
            is_promise = False
        elif is_promise and not line.startswith("|---"):
            rows.append(line)
    return rows


def test_every_promise_names_a_test_that_exists():
    rows = promises()
    assert len(rows) > 30
    for before, row in zip(["", *rows], rows, strict=False):
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
        assert named or row.endswith("| the same |"), f"no test: {row}"
        assert named or before
        for file, test in named:
            assert (ROOT / file).is_file(), f"{file} is named and not there"
            assert not test or test in names_in(ROOT / file), f"{file}::{test} is named and not there"


def test_every_test_of_these_suites_holds_a_promise():
    page = PAGE.read_text(encoding="utf-8")
    missing = {
        f"{path.name}::{test}"
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        for test in names_in(path)
        if path.name != Path(__file__).name and f"{path.name}::{test}" not in page
    }
    assert missing == {
        "test_clock_and_writers.py::test_the_clock_really_jumps",
        "test_hostile_files.py::test_the_trap_works",
        "test_hostile_files.py::test_a_tokenizer_of_a_prepared_folder_is_the_one_it_was_prepared_with",
        "test_pinned.py::test_no_name_is_pinned_twice",
    }
