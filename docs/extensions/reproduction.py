"""The tables of reproduction.md, computed when the site is built: every number of the paper with ours beside it.

A line `<!-- table: NAME -->` in the page becomes the table of that name in TABLES.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from sphinx.application import Sphinx

from noiselaw.laws.discrepancy import Comparison
from noiselaw.laws.lawbook import published_book
from noiselaw.laws.planner import Budget, plan_training
from noiselaw.laws.published import (
    BATCH_LAWS,
    BITS_PER_BYTE_PER_NAT,
    COOLDOWN_FACTOR,
    COOLDOWN_FACTOR_UNCERTAINTY,
    LARGE_RUNS,
    LEARNING_RATE_LAWS,
    POOLED_BATCH_LAW,
    PublishedLaw,
)
from noiselaw.laws.reproduce import Reproduction, reproduce
from noiselaw.laws.trainingplan import published_record
from noiselaw.report import phrases
from noiselaw.report.tables import LAW_SYMBOLS

REPRODUCED, DIFFERS, PREDICTED, NEEDED = "reproduced", "differs", "predicted", "needs the big machine"
MARKER = re.compile(r"^<!-- table: ([\w-]+) -->$", re.MULTILINE)
PLANNED = {
    "layers": "{:d}",
    "width": "{:d}",
    "heads": "{:d}",
    "params": "{:.4g}",
    "flops_per_token": "{:.4g}",
    "batch_sequences": "{:d}",
    "steps": "{:d}",
    "tokens": "{:.3g}",
}
"""What a plan says of a run, by the keys of its record, and how it is written."""

Row = tuple[str, ...]
"""The last cell is the status of the row's number."""


@cache
def found() -> Reproduction:
    """What `noiselaw laws reproduce` prints."""
    return reproduce()


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison_row(row: Comparison) -> Row:
    """One number of a law or a surface."""
    digits = max(1, len(f"{row.published:.10g}".lstrip("-0.").replace(".", "")))
    explained = row.explained_by
    shown = f"{row.published:.10g}", f"{row.ours:.{digits + 1}g}", f"{row.difference:+.1e}"
    status = f"{REPRODUCED} (to {explained})" if explained else f"{DIFFERS}, unexplained"
    return LAW_SYMBOLS.get(row.quantity, row.quantity), row.number, row.group, *shown, status


def section_rows(name: str) -> list[Row]:
    """The numbers of one section of the reproduction."""
    (section,) = (section for section in found().sections if section.name == name)
    return [comparison_row(row) for row in section.comparisons]


def interval_rows() -> list[Row]:
    """95 % intervals of the exponents, by the published bootstrap and by ours."""
    rows = []
    for row in found().intervals:
        published, ours = (phrases.span(*ends, 5) for ends in (row.published, row.ours))
        why = ", ".join(end or "unexplained" for end in row.explained_by)
        known = set(row.explained_by) <= {"rounding", "draws"}
        rows.append(
            (LAW_SYMBOLS[row.quantity], row.group, published, ours, f"{REPRODUCED if known else DIFFERS} ({why})")
        )
    return rows


def held_out_rows() -> list[Row]:
    """Losses of the large runs, predicted by laws that never saw them."""
    rows = []
    for row in found().held_out:
        for when, loss in (("before the cooldown", row.before_cooldown), ("final", row.final)):
            interval = "" if loss.interval is None else phrases.span(*loss.interval, 3)
            error = phrases.signed(loss.error_percent, unit=" %")
            rows.append(
                (row.run.name, when, f"{loss.measured:.3f}", f"{loss.predicted:.3f}", interval, error, PREDICTED)
            )
    return rows


def plan_rows() -> list[Row]:
    """Shapes, batches and lengths of the large runs, as `noiselaw plan` gives them for the runs' FLOPs."""
    book, rows = published_book(), []
    for run in LARGE_RUNS:
        published = published_record(run)
        planned = plan_training(book, run.group, Budget("flops", run.flops)).record()
        for key, form in PLANNED.items():
            rows.append(
                (run.name, key.replace("_", " "), form.format(published[key]), form.format(planned[key]), PREDICTED)
            )
    return rows


def tuning_rows() -> list[Row]:
    """Laws of batch and learning rate, whose data are not published."""

    def row(law: PublishedLaw) -> Row:
        what = "B* against D" if law.quantity == "batch_tokens" else "η* against B"
        coefficient = "" if law.coefficient is None else f"{law.coefficient:.4g}"
        interval = "" if law.interval is None else phrases.span(*law.interval, 4)
        return what, law.group, coefficient, f"{law.exponent:.4f}", interval, "", NEEDED

    return [row(law) for law in (*BATCH_LAWS, POOLED_BATCH_LAW, *LEARNING_RATE_LAWS)]


def measured_rows() -> list[Row]:
    """What was measured on runs, text and models that we cannot train here."""
    factors = ", ".join(f"{row.measured_cooldown_factor:.4f}" for row in found().held_out)
    ours = f"{factors} in the three large runs' own losses"
    rows = [
        ("cooldown factor", "", f"{COOLDOWN_FACTOR} ± {COOLDOWN_FACTOR_UNCERTAINTY}", ours, NEEDED),
        ("bits per byte for a nat per token", "", f"{BITS_PER_BYTE_PER_NAT}", "", NEEDED),
    ]
    for run in LARGE_RUNS:
        rows += [(f"{task}, %", run.name, f"{score:g}", "", NEEDED) for task, score in run.benchmarks.items()]
    return rows


LAW_HEADER = ("of", "number", "noise", "published", "ours", "difference", "status")
TABLES: dict[str, tuple[Sequence[str], Callable[[], list[Row]]]] = {
    "isoflop": (LAW_HEADER, lambda: section_rows("isoflop")),
    "raw": (LAW_HEADER, lambda: section_rows("raw")),
    "surfaces": (LAW_HEADER, lambda: section_rows("surfaces")),
    "method-2": (LAW_HEADER, lambda: section_rows("method_2")),
    "gaps": (LAW_HEADER, lambda: section_rows("gaps")),
    "intervals": (("law", "noise", "published", "ours", "status (lower end, upper end)"), interval_rows),
    "held-out": (("run", "loss", "published", "ours", "95 % interval", "error", "status"), held_out_rows),
    "plans": (("run", "number", "published", "ours", "status"), plan_rows),
    "tuning": (("law", "noise", "coefficient", "exponent", "±", "ours", "status"), tuning_rows),
    "measured": (("number", "run", "published", "ours", "status"), measured_rows),
}


def summary() -> str:
    """How many numbers have which status, by table."""
    statuses = (REPRODUCED, DIFFERS, PREDICTED, NEEDED)
    counts = {
        name: Counter(row[-1].split(" (")[0].split(",")[0] for row in rows()) for name, (_, rows) in TABLES.items()
    }
    cells = [
        [f"[{name}](#{name})", *(str(count[status] or "") for status in statuses)] for name, count in counts.items()
    ]
    total = sum(counts.values(), Counter())
    return markdown(("table", *statuses), [*cells, ["all", *(str(total[status]) for status in statuses)]])


def table(name: str) -> str:
    """The table of that name. Raises KeyError where there is none."""
    if name == "summary":
        return summary()
    header, rows = TABLES[name]
    notes = [section.note for section in found().sections if section.name == name.replace("-", "_")]
    return "\n\n".join([*notes, markdown(header, rows())])


def fill(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Put the tables where their markers stand."""
    source[0] = MARKER.sub(lambda match: table(match[1]), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
