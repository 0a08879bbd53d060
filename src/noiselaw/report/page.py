"""One self-contained page for a study or several side by side: overview, figures to hover, tables, planner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from noiselaw.files import write_text
from noiselaw.report import figures, overview, repeats, sidebyside, tables
from noiselaw.report.document import document, package_file
from noiselaw.report.drawing import Drawing, Panel
from noiselaw.report.exports import file_name, write_files
from noiselaw.report.interactive import panel_json
from noiselaw.report.markup import Child, Markup, element
from noiselaw.report.planner import PUBLISHED, Shelf, own_shelf, planner_json, planner_section, published_shelf
from noiselaw.report.prints import SCREEN, PrintStyle
from noiselaw.report.results import STAGES, Results, read_results
from noiselaw.report.tablemarkup import figure, swatch, table

LIBRARY = "vendor/plotly-basic.min.js.gz"
"""Draws the panels."""
PAGE_SCRIPTS = ("numerals.js", "planner.js", "controls.js", "plots.js", "page.js")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the planner of the page has to work with."""

    shelves: tuple[Shelf, ...] = ()
    problems: tuple[str, ...] = ()
    """Which laws cannot be planned with, and why."""
    shows_published: bool = False
    """Published laws are drawn from the start."""


NO_DESK = Desk()


def write_report(study_folder: Path, out: Path | None = None) -> Path:
    """Write `report.html` (or `out`) and `figures/` beside it from the files of a study folder; the page's path.

    Works on a half-finished study: what is not there yet is named on the page. Raises ValueError naming the file when
    the folder holds no study or a file of it is damaged, OSError when the page cannot be written.
    """
    page = study_folder / "report.html" if out is None else out
    return write_page((study_folder,), page, figures_folder=page.parent / "figures")


def write_page(
    folders: Sequence[Path], page: Path, *, laws: Sequence[str] = (), figures_folder: Path | None = None,
    print_style: PrintStyle = SCREEN,
) -> Path:  # fmt: skip
    """Write the page of the studies in `folders`, side by side where they are several, and its path.

    `laws` are law books for the planner besides the studies' own: "published", or files and folders as
    `noiselaw plan --laws` reads them. Figures and tables go to `figures_folder` as files, where there is one; those of
    several studies to a folder each. Raises ValueError and OSError as `write_report` does.
    """
    studies = _told_apart(folders, tuple(map(read_results, folders)))
    desk = desk_of(dict(zip(folders, studies, strict=True)), laws)
    drawings = [figures.all_figures(results) for results in studies]
    page.parent.mkdir(parents=True, exist_ok=True)
    if figures_folder is not None:
        for index, results in enumerate(studies):
            folder = figures_folder if len(studies) == 1 else figures_folder / file_name(results.facts.name, index + 1)
            main = figures.main_figure(results)
            write_files((*drawings[index], *((main,) if main else ())), tables.all_tables(results), folder, print_style)
        if len(studies) > 1:
            together = sidebyside.laws_side_by_side(studies)
            write_files((together,) if together else (), sidebyside.all_tables(studies), figures_folder, print_style)
    text = render_page(studies[0], drawings[0], desk) if len(studies) == 1 else render_pages(studies, desk)
    write_text(page, text)
    return page


def _told_apart(folders: Sequence[Path], studies: Sequence[Results]) -> tuple[Results, ...]:
    """Studies of one recipe bear one name: the folder tells which is meant."""
    names = [results.facts.name for results in studies]
    return tuple(
        replace(results, facts=results.facts.model_copy(update={"name": f"{name} ({folder})"}))
        if names.count(name) > 1
        else results
        for folder, results, name in zip(folders, studies, names, strict=True)
    )


def desk_of(studies: Mapping[Path, Results], laws: Sequence[str] = ()) -> Desk:
    """The laws of every study that has any, then those that were asked for by name.

    What a plan cannot read of a study is a problem that the page tells; ValueError is raised for `laws`.
    """
    shelves, problems = [], []
    for folder, results in studies.items():
        if not any(group.laws for group in results.laws.groups.values()):
            continue
        try:
            shelves.append(own_shelf(results.facts.name, folder))
        except ValueError as error:
            problems.append(f"No plans from the laws of {results.facts.name}: {error}")
    shelves += [published_shelf() if name == PUBLISHED else own_shelf(name, Path(name)) for name in laws]
    return Desk(tuple(shelves), tuple(problems), PUBLISHED in laws)


@dataclass(frozen=True, slots=True)
class Live:
    """What makes a page follow its study: see `noiselaw.report.live`."""

    version: str
    is_whole: bool
    """False: without scripts, for a page that has them."""


def render_page(results: Results, drawings: tuple[Drawing, ...], desk: Desk = NO_DESK, live: Live | None = None) -> str:
    """The page of one study as text; pure."""
    top = element("header", *_overview(results), class_="top")
    first = tuple(panel for drawing in drawings for panel in drawing.panels)
    sections = _sections(results, drawings)
    title, footer = f"{results.facts.name} – noiselaw", overview.footer(results)
    return _page(title, top, (results,), sections=sections, panels=first, footer=footer, desk=desk, live=live)


def render_pages(studies: Sequence[Results], desk: Desk = NO_DESK) -> str:
    """The page of several studies side by side as text; pure."""
    groups = tuple(dict.fromkeys(group for results in studies for group in results.groups))
    studies = [replace(results, palette=groups) for results in studies]
    together = sidebyside.laws_side_by_side(studies)
    panels: list[Panel] = [] if together is None else list(together.panels)
    styles = studies[0].styles if studies else {}
    sections: list[Child] = []
    if together is not None:
        compared = table(styles, sidebyside.exponents_side_by_side(studies))
        sections.append(
            element("section", element("h2", together.title), figure(styles, together, 0, together.name), compared)
        )
    for index, results in enumerate(studies, start=1):
        drawings = figures.all_figures(results)
        own = _sections(results, drawings, first=len(panels), prefix=f"study{index}-")
        panels += [panel for drawing in drawings for panel in drawing.panels]
        sections.append(element("article", *_overview(results, f"study{index}-", "h2"), *own, class_="study"))
    title = " · ".join(results.facts.name for results in studies) or "Published laws"
    top = element(
        "header",
        element("h1", title),
        table(styles, sidebyside.studies_table(studies)) if studies else None,
        class_="top",
    )
    footer = overview.footer(None)
    return _page(f"{title} – noiselaw", top, studies, sections=sections, panels=panels, footer=footer, desk=desk)


def _page(
    title: str, top: Markup, studies: Sequence[Results], *, sections: Sequence[Child], panels: Sequence[Panel],
    footer: str, desk: Desk, live: Live | None = None,
) -> str:  # fmt: skip
    planner = planner_section(desk.shelves, desk.problems) if desk.shelves or desk.problems else None
    books = {"books": planner_json(desk.shelves, studies[0].styles if studies else {})} if desk.shelves else {}
    return document(
        title,
        top,
        element("main", _switches(studies, panels, desk) if panels else None, planner, *sections),
        element("footer", footer, element("p", id="live", role="status", data_version=live.version) if live else None),
        styles=[package_file("page.css")],
        data={"panels": [panel_json(panel) for panel in panels], **books},
        scripts=list(map(package_file, _scripts(panels, desk, live))),
        connects=live is not None,
    )


def _scripts(panels: Sequence[Panel], desk: Desk, live: Live | None) -> list[str]:
    """Those that the page needs; a live page may get panels and laws later."""
    if live is not None:
        return [LIBRARY, *PAGE_SCRIPTS, "watch.js"] if live.is_whole else []
    return [*([LIBRARY] if panels else ()), *(PAGE_SCRIPTS if panels or desk.shelves else ())]


def _overview(results: Results, prefix: str = "", heading: str = "h1") -> list[Child]:
    """The first screenful of a study."""
    styles = results.styles
    missing = [f"{STAGES[name]} ({name})" for name in results.missing]
    columns = [
        element("section", table(styles, tables.comparison_table(results), prefix)),
        element("section", table(styles, tables.short_prediction_table(results), prefix), _facts(results)),
    ]
    return [
        element(heading, results.facts.name),
        element("p", overview.subject(results), class_="subtitle"),
        element("p", "Not there yet: ", "; ".join(missing), ".", class_="missing") if missing else None,
        element("ul", [element("li", line) for line in overview.answer(results)], class_="answer"),
        element("div", columns, class_="overview"),
        table(styles, tables.progress_table(results), prefix),
    ]


def _facts(results: Results) -> Markup:
    pairs = [(element("dt", name), element("dd", value)) for name, value in overview.facts(results)]
    return element("dl", pairs, class_="facts")


def _switches(studies: Sequence[Results], panels: Sequence[Panel], desk: Desk) -> Markup:
    """Buttons that show and hide each noise and the published laws in every figure."""
    marks = [mark for panel in panels for mark in panel.marks]
    drawn = {mark.group for mark in marks}
    styles = studies[0].styles
    buttons = [
        element("button", swatch(styles, group), group, type="button", aria_pressed="true", data_group=group)
        for group in styles
        if group in drawn
    ]
    if any(getattr(mark, "layer", None) == "published" for mark in marks):
        pressed = "true" if desk.shows_published else "false"
        buttons.append(element("button", "published laws", type="button", aria_pressed=pressed, data_layer="published"))
    return element(
        "nav", element("span", "Show", class_="hint"), buttons, class_="switches", aria_label="Show in figures"
    )


def _sections(results: Results, drawings: tuple[Drawing, ...], first: int = 0, prefix: str = "") -> list[Child]:
    """Every figure with the tables that belong to it; tables without a figure stand alone."""
    beside = {
        "isoflop": [tables.optima_table(results)],
        "power_laws": [tables.exponents_table(results)],
        "frontier": [tables.prediction_table(results)],
        "crossings": [tables.crossings_table(results)],
        "repeats": [repeats.values_table(results), repeats.runs_table(results)],
        "throughput": [tables.throughput_table(results)],
    }
    sections: list[Child] = []
    for drawing in drawings:
        below = [table(results.styles, content, prefix) for content in beside.pop(drawing.name, [])]
        drawn = figure(results.styles, drawing, first, prefix + drawing.name)
        sections.append(element("section", element("h2", drawing.title), drawn, below))
        first += len(drawing.panels)
    alone = [table(results.styles, content, prefix) for below in beside.values() for content in below]
    return [*sections, element("section", alone)]
