"""Several studies compared: a table of their answers, a table of their exponents, their laws in one figure.

Colours are noises, as everywhere; studies differ by dash.
"""

from collections.abc import Sequence
from dataclasses import replace

from noiselaw.laws.published import PAPER
from noiselaw.report import phrases
from noiselaw.report.axes import log_axis
from noiselaw.report.cells import DASH, Cell, Table, interval_text
from noiselaw.report.comparison import leads, verdicts
from noiselaw.report.drawing import Dash, Drawing, Line, Panel, Points
from noiselaw.report.panels import FLOPS, QUANTITIES, heights, law_marks, quantity_format
from noiselaw.report.published import published_laws
from noiselaw.report.results import Results
from noiselaw.report.tables import LAW_SYMBOLS, sureness

DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")
"""Of the first, second, third study; and again."""


def studies_table(studies: Sequence[Results]) -> Table:
    """What each study found, a row each."""
    header = (
        "Study",
        "Groups",
        "Runs",
        "Budgets (FLOPs)",
        "Leader at the largest",
        "Lead (sure)",
        "Error of prediction",
        "Time",
    )
    caption = (
        "The best noise at each study's largest budget, its lead in nats per token and how sure that is; predicted "
        "over measured loss of the confirming runs, minus one."
    )
    return Table(
        "studies", "The studies", caption, header, tuple(map(_study_row, studies)), text_columns=(0, 1, 4),
        prose_columns=(1,),
    )  # fmt: skip


def all_tables(studies: Sequence[Results]) -> tuple[Table, ...]:
    """Those of several studies together."""
    exponents = exponents_side_by_side(studies)
    return (studies_table(studies), *((exponents,) if exponents else ()))


def _study_row(results: Results) -> tuple[Cell, ...]:
    judged = leads(verdict for verdict in verdicts(results) if verdict.margin is not None)
    last = judged[-1].verdicts[-1] if judged else None
    margin = DASH if last is None or last.margin is None else f"{last.margin:.3f} ({sureness(last)})"
    budgets = results.facts.budgets
    errors = [run.error_percent for runs in results.confirmation.groups.values() for run in runs]
    elapsed = results.facts.elapsed_seconds.total
    leader = Cell(DASH) if last is None else Cell(last.leader, group=last.leader)
    return (
        Cell(results.facts.name),
        Cell(", ".join(results.groups) or DASH),
        Cell(str(results.curves["run"].n_unique()) if len(results.curves) else DASH),
        Cell(f"{phrases.scientific(min(budgets))} to {phrases.scientific(max(budgets))}" if budgets else DASH),
        leader,
        Cell(margin),
        Cell(phrases.signed_span(errors) if errors else DASH),
        Cell(DASH if elapsed is None else phrases.duration(elapsed)),
    )


def exponents_side_by_side(studies: Sequence[Results]) -> Table | None:
    """Every law's exponent by group, a column per study, the paper's last."""
    names = [results.facts.name for results in studies]
    groups = dict.fromkeys(group for results in studies for group in results.laws.groups)
    rows = []
    for quantity, symbol in LAW_SYMBOLS.items():
        for group in groups:
            cells = [_exponent(results, group, quantity) for results in studies]
            paper = next((one for one in published_laws(group, quantity) if one.source == PAPER), None)
            if any(cell.text != DASH for cell in cells):
                last = Cell(DASH if paper is None else phrases.fixed(paper.exponent, 4))
                rows.append((Cell(symbol), Cell(group, group=group), *cells, last))
    caption = "Exponents of C with 95 % intervals; studies of other sizes, text and tokens need not agree."
    header = ("Law", "Group", *names, "Paper")
    return Table("side-by-side", "Exponents side by side", caption, header, tuple(rows), (0, 1)) if rows else None


def _exponent(results: Results, group: str, quantity: str) -> Cell:
    laws = results.laws.groups.get(group)
    law = None if laws is None else laws.laws.get(quantity)
    if law is None:
        return Cell(DASH)
    interval = "" if law.interval is None else f" [{interval_text(law.interval, 3)}]"
    return Cell(f"{phrases.fixed(law.exponent, 4)}{interval}")


def laws_side_by_side(studies: Sequence[Results]) -> Drawing | None:
    """M*, D* and L* of all studies in the same axes."""
    budgets = [one.budget for results in studies for group in results.laws.groups.values() for one in group.optima]
    if not budgets:
        return None
    panels = []
    for quantity, (title, label) in QUANTITIES.items():
        marks = [
            mark for index, results in enumerate(studies) for mark in _study_marks(results, quantity, DASHES[index % 3])
        ]
        x, y = log_axis(FLOPS, budgets, phrases.scientific), log_axis(label, heights(marks), quantity_format(quantity))
        panels.append(Panel(title, x, y, tuple(marks)))
    drawn = [f"{results.facts.name} ({DASHES[index % 3]})" for index, results in enumerate(studies)]
    caption = (
        f"Optima and power laws of {', '.join(drawn)}; colours are noises. Losses on other text or with another "
        "tokenizer do not compare."
    )
    return Drawing("side_by_side", "Laws side by side", caption, (tuple(panels),))


def _study_marks(results: Results, quantity: str, dash: Dash) -> list[Line | Points]:
    """Laws over the study's own budgets, and optima; no bands."""
    marks: list[Line | Points] = []
    for group in results.groups:
        laws = results.laws.groups.get(group)
        budgets = [one.budget for one in laws.optima] if laws is not None else []
        if laws is None or not budgets:
            continue
        for mark in law_marks(group, laws, quantity, budgets, results.styles[group]):
            if isinstance(mark, Line):
                marks.append(replace(mark, dash=dash, hover=f"{results.facts.name}\n{mark.hover}"))
            elif isinstance(mark, Points):
                named = tuple(f"{results.facts.name}\n{text}" for text in mark.hover)
                marks.append(replace(mark, size=min(mark.size, 4.5), hover=named))
    return marks
