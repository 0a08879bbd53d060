"""Rules of the house that no linter knows (ruff ALL refuses commented-out code, import-linter guards the rooms)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("src", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
"""Without the docstring: help for many options makes no function complicated."""
SPINE = ROOT / "src" / "noiselaw" / "train" / "loop.py"
"""May have one long function."""


def test_files_are_short_and_named_for_what_they_hold():
    assert len(SOURCES) > 100
    long = {path: lines for path in SOURCES if (lines := len(path.read_text("utf-8").splitlines())) > MOST_FILE_LINES}
    assert long == {}
    assert [path for path in SOURCES if path.stem in ("utils", "helpers", "misc", "common")] == []


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{name}": length
        for path in SOURCES
        if path != SPINE
        for name, length in function_lengths(path)
        if length > MOST_FUNCTION_LINES
    }
    assert long == {}


def function_lengths(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            found.append((node.name, node.end_lineno - node.lineno + 1 - len(docstring.splitlines())))
    return found
