"""The fenced blocks of README and docs, and what their info strings say of them.

    ```sh                     every line is executed
    ```sh parsed: REASON      not carried out, for that reason; its commands and their settings are checked
    ```python, ```yaml        executed; a specification is read and checked
    ```python FILE            also kept under that name, for what follows on the page
    ```text                   shown, such as output
    ```{directive}            Sphinx's own

A page's blocks are taken in their order, in one folder.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "yaml"}
PARSED = "parsed:"


@dataclass(frozen=True)
class Block:
    """A fenced block that a reader may copy."""

    place: str
    """page:line."""
    language: str
    text: str
    reason: str | None = None
    """Why it is only parsed."""
    file: str | None = None
    """The name it is kept under."""

    @property
    def commands(self) -> list[str]:
        """Its lines of shell, continued ones joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order. Raises ValueError for one that nobody would check."""
    text = page.read_text(encoding="utf-8")
    return [
        block
        for match in FENCE.finditer(text)
        if (block := _block(f"{name_of(page)}:{text.count(chr(10), 0, match.start()) + 1}", match)) is not None
    ]


def _block(place: str, match: re.Match[str]) -> Block | None:
    language, _, rest = match["info"].strip().partition(" ")
    if language == "text" or language.startswith("{"):
        return None
    if language not in LANGUAGES:
        raise ValueError(f"{place}: a block in {language or 'no language'}, which nobody executes; say text or sh")
    if rest.startswith(PARSED):
        reason = rest.removeprefix(PARSED).strip()
        if language != "sh" or len(reason) < 5:
            raise ValueError(f"{place}: only sh can be parsed, and for a reason")
        return Block(place, language, match["text"], reason=reason)
    if rest and (language == "sh" or not re.fullmatch(r"[\w./-]+", rest)):
        raise ValueError(f"{place}: {rest!r} is neither a reason nor a file")
    return Block(place, language, match["text"], file=rest or None)
