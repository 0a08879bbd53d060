"""Figures and tables of the page as files: PNG, SVG and PDF, the points behind them as CSV, tables as CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from noiselaw.files import write_text
from noiselaw.report.cells import DASH, Table
from noiselaw.report.drawing import Band, Drawing, Label, Mark, Panel, Points
from noiselaw.report.prints import PrintStyle, write_prints

_SUPERSCRIPTS = dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
_POWER = re.compile(f"(×)?10([{''.join(_SUPERSCRIPTS)}]+)")
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "−": "$-$", "×": r"$\times$", "†": r"\dag{}",
    "✓": r"\checkmark{}", "±": r"$\pm$", "–": "--", "’": "'", "“": "``", "”": "''", "*": r"$^*$", "<": r"$<$",
    ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def write_files(
    drawings: Iterable[Drawing], tables: Iterable[Table], folder: Path, style: PrintStyle
) -> None:  # fmt: skip
    """Write every drawing as NAME in the style's formats and NAME.csv, every table as table-NAME.csv and .tex.

    Raises OSError where a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        write_prints(drawing, folder, style=style)
        write_text(folder / f"{drawing.name}.csv", points_csv(drawing))
    for table in tables:
        write_text(folder / f"table-{table.name}.csv", table_csv(table))
        write_text(folder / f"table-{table.name}.tex", table_latex(table))


def file_name(title: str, number: int) -> str:
    """A name for a folder whatever the title: 1-laptop."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", title).strip("-.")[:40]
    return f"{number}-{plain}" if plain else str(number)


def points_csv(drawing: Drawing) -> str:
    """A row per point of every mark: panel, group, kind, label, x, y and for bands and intervals low and high."""
    rows = [row for panel in drawing.panels for mark in panel.marks for row in _points(panel, mark)]
    return _csv([("panel", "group", "layer", "mark", "label", "x", "y", "low", "high"), *rows])


Row = Sequence[str | float | None]


def _points(panel: Panel, mark: Mark) -> Iterator[Row]:
    start = (panel.title, mark.group, getattr(mark, "layer", None))
    if isinstance(mark, Label):
        return
    if isinstance(mark, Band):
        for x, low, high in zip(mark.x, mark.low, mark.high, strict=True):
            yield (*start, "band", None, x, None, low, high)
        return
    many = isinstance(mark, Points)
    hovers = mark.hover if many and mark.hover else [mark.hover if not many else None] * len(mark.x)
    intervals = mark.y_interval if many and mark.y_interval else [(None, None)] * len(mark.x)
    for x, y, hover, low_high in zip(mark.x, mark.y, hovers, intervals, strict=True):
        label = None if hover is None else str(hover).replace("\n", "; ")
        yield (*start, "points" if many else "line", label, x, y, *low_high)


def table_csv(table: Table) -> str:
    """Numbers in full where the table knows them, else the text of the cell; empty where the page has a dash."""
    rows = [
        [cell.value if cell.value is not None else "" if cell.text == DASH else cell.text for cell in row]
        for row in table.rows
    ]
    return _csv([table.header, *rows])


def _csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_harmless(value) for value in row] for row in rows])
    return text.getvalue()


def _harmless(value: str | float | None) -> str | float | None:
    """Text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value


def table_latex(table: Table) -> str:
    """A table of the booktabs package, as rounded as on the page."""
    columns = "".join("l" if column in table.text_columns else "r" for column in range(len(table.header)))
    lines = [
        "% \\usepackage{booktabs}, for ✓ also amssymb",
        "\\begin{tabular}{" + columns + "}",
        "\\toprule",
        _latex_row(table.header),
        "\\midrule",
        *(_latex_row([cell.text for cell in row], [cell.strong for cell in row]) for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str], strong: Sequence[bool] = ()) -> str:
    cells = [latex_text(text) for text in texts]
    marked = [f"\\textbf{{{cell}}}" if strong and strong[index] else cell for index, cell in enumerate(cells)]
    return " & ".join(marked) + r" \\"


def latex_text(text: str) -> str:
    """The text with everything escaped that LaTeX would read; 3.2×10¹⁵ as mathematics."""
    pieces, end = [], 0
    for power in _POWER.finditer(text):
        exponent = "".join(_SUPERSCRIPTS[digit] for digit in power[2])
        times = r"{}\times" if power[1] else ""
        pieces += [_escape(text[end : power.start()]), f"${times}10^{{{exponent}}}$"]
        end = power.end()
    return "".join([*pieces, _escape(text[end:])])


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text.replace("\n", " "))
