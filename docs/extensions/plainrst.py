"""Docstrings are plain text with formulas in them; this makes them what Sphinx reads, reStructuredText.

Asterisks, bars and underscores are just characters, and an indented block is a formula, to be shown as it stands.
"""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`+[^`]*`+)")
SPECIAL = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")
SECTIONS = {"Args:": "param", "Raises:": "raises"}
"""The field that an entry of each section becomes."""
ENTRY = re.compile(r"    (\w+): (.*)")


def escape(line: str) -> str:
    """`line` with what reStructuredText would take for markup escaped, code in backticks apart."""
    parts = CODE.split(line)
    return "".join(part if index % 2 else SPECIAL.sub(r"\\\g<0>", part) for index, part in enumerate(parts))


def plain_to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, indented blocks after a blank line literal, arguments and errors as fields."""
    result: list[str] = []
    literal, field = None, None
    for index, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line and not indent:
            literal, field = None, SECTIONS.get(line)
            if field:
                result.append("")
                continue
        if indent and not field and literal is None and index and not lines[index - 1]:
            literal = indent
            result += ["::", ""]
        entry = ENTRY.fullmatch(line) if field else None
        shown = line if literal is not None else escape(line)
        result.append(f":{field} {entry[1]}: {escape(entry[2])}" if entry else shown)
    return result


def process(_app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """For every docstring."""
    lines[:] = plain_to_rst(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
