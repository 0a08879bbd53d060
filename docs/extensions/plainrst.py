"""Docstrings are plain text with formulas in them; this makes them what Sphinx reads, reStructuredText.

Asterisks, bars and underscores are just characters, and an indented block is a formula, to be shown as it stands.
"""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`+[^`]*`+)")
SPECIAL = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")
SECTION = re.compile(r"(Args|Raises|Returns|Yields):$")


def escape(line: str) -> str:
    """`line` with what reStructuredText would take for markup escaped, code in backticks apart."""
    parts = CODE.split(line)
    return "".join(part if index % 2 else SPECIAL.sub(r"\\\g<0>", part) for index, part in enumerate(parts))


def plain_to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, indented blocks after a blank line turned into literal ones."""
    result: list[str] = []
    literal, sections = None, False
    for index, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        sections = SECTION.match(line) is not None or (sections and (indent > 0 or not line))
        if line and literal is not None and indent < literal:
            literal = None
        if indent and literal is None and not sections and index and not lines[index - 1]:
            literal = indent
            result += ["::", ""]
        result.append(line if literal is not None else escape(line))
    return result


def process(_app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """Before napoleon reads the sections."""
    lines[:] = plain_to_rst(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
