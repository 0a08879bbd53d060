"""One self-contained page per study: overview, figures to hover, tables; and the same figures as files."""

from pathlib import Path

from plotly.offline import get_plotlyjs

from noiselaw.files import write_text
from noiselaw.report import figures, overview, tables
from noiselaw.report.document import document, package_file
from noiselaw.report.drawing import Drawing, Panel
from noiselaw.report.interactive import panel_json
from noiselaw.report.markup import Child, Markup, element
from noiselaw.report.prints import write_prints
from noiselaw.report.results import STAGES, Results, read_results
from noiselaw.report.tables import Cell, Table


def write_report(study_folder: Path, out: Path | None = None) -> Path:
    """Write `report.html` (or `out`) and `figures/` beside it from the files of a study folder; the page's path.

    Works on a half-finished study: what is not there yet is named on the page. Raises ValueError naming the file when
    the folder holds no study or a file of it is damaged, OSError when the page cannot be written.
    """
    results = read_results(study_folder)
    page = study_folder / "report.html" if out is None else out
    drawings = figures.all_figures(results)
    main = figures.main_figure(results)
    folder = page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in (*drawings, *((main,) if main else ())):
        write_prints(drawing, folder)
    write_text(page, render_page(results, drawings))
    return page


def render_page(results: Results, drawings: tuple[Drawing, ...]) -> str:
    """The page as text; pure."""
    panels = [panel for drawing in drawings for panel in drawing.panels]
    return document(
        f"{results.facts.name} – noiselaw",
        element("header", *_overview(results), class_="top"),
        element("main", _switches(results, panels) if panels else None, *_sections(results, drawings)),
        element("footer", overview.footer(results)),
        styles=[package_file("page.css")],
        libraries=[get_plotlyjs()] if panels else [],
        data={"panels": [panel_json(panel) for panel in panels]},
        scripts=[package_file("page.js")] if panels else [],
    )


def _overview(results: Results) -> list[Child]:
    """The first screenful."""
    missing = [f"{STAGES[name]} ({name})" for name in results.missing]
    columns = [
        element("section", _table(results, tables.comparison_table(results))),
        element("section", _table(results, tables.short_prediction_table(results)), _facts(results)),
    ]
    return [
        element("h1", results.facts.name),
        element("p", overview.subject(results), class_="subtitle"),
        element("p", "Not there yet: ", "; ".join(missing), ".", class_="missing") if missing else None,
        element("ul", [element("li", line) for line in overview.answer(results)], class_="answer"),
        element("div", columns, class_="overview"),
    ]


def _facts(results: Results) -> Markup:
    pairs = [(element("dt", name), element("dd", value)) for name, value in overview.facts(results)]
    return element("dl", pairs, class_="facts")


def _switches(results: Results, panels: list[Panel]) -> Markup:
    """Buttons that show and hide each noise and the published laws in every figure."""
    marks = [mark for panel in panels for mark in panel.marks]
    drawn = {mark.group for mark in marks}
    buttons = [
        element("button", _swatch(results, group), group, type="button", aria_pressed="true", data_group=group)
        for group in results.groups
        if group in drawn
    ]
    if any(getattr(mark, "layer", None) == "published" for mark in marks):
        buttons.append(element("button", "published laws", type="button", aria_pressed="false", data_layer="published"))
    return element(
        "nav", element("span", "Show", class_="hint"), buttons, class_="switches", aria_label="Show in figures"
    )


def _swatch(results: Results, group: str) -> Markup:
    return element("span", class_="swatch", style=f"--color: {results.styles[group].color}", aria_hidden="true")


def _sections(results: Results, drawings: tuple[Drawing, ...]) -> list[Child]:
    """Every figure with the tables that belong to it; tables without a figure stand alone."""
    beside = {
        "isoflop": [tables.optima_table(results)],
        "power_laws": [tables.exponents_table(results)],
        "frontier": [tables.prediction_table(results)],
        "throughput": [tables.throughput_table(results)],
    }
    first = 0
    sections: list[Child] = []
    for drawing in drawings:
        below = [_table(results, table) for table in beside.pop(drawing.name, [])]
        sections.append(element("section", element("h2", drawing.title), _figure(results, drawing, first), below))
        first += len(drawing.panels)
    alone = [_table(results, table) for below in beside.values() for table in below]
    return [*sections, element("section", alone)]


def _figure(results: Results, drawing: Drawing, first: int) -> Markup:
    """One grid of plots; `first` is the index of its first panel among all panels of the page."""
    columns = max(sum(panel.span for panel in row) for row in drawing.rows)
    plots = []
    for index, panel in enumerate(drawing.panels, start=first):
        swatch = _swatch(results, panel.title) if panel.title in results.groups else None
        title = element("h4", swatch, panel.title) if len(drawing.panels) > 1 else None
        description = f"{drawing.title}: {panel.title}, {panel.y.label} against {panel.x.label}"
        plot = element("div", class_="plot", data_panel=str(index), role="img", aria_label=description)
        wide = " wide" if panel.span > 1 else ""
        plots.append(element("div", title, plot, class_=f"panel{wide}", style=f"--span: {panel.span}"))
    grid = element("div", plots, class_="panels", style=f"--columns: {columns}")
    return element("figure", grid, element("figcaption", drawing.caption, class_="caption"), id=drawing.name)


def _table(results: Results, table: Table | None) -> Markup | None:
    if table is None:
        return None
    header = [
        element("th", _heading(results, text), scope="col", class_="text" if column in table.text_columns else None)
        for column, text in enumerate(table.header)
    ]
    body, previous = [], None
    for row in table.rows:
        body.append(element("tr", _cells(results, table, row), class_="first" if row[0].text != previous else None))
        previous = row[0].text
    grid = element("table", element("thead", element("tr", header)), element("tbody", body), id=f"table-{table.name}")
    return element(
        "div",
        element("h3", table.title),
        element("div", grid, class_="scroll", tabindex="0", role="region", aria_label=table.title),
        [element("p", text, class_="caption") for text in (table.caption, *table.notes)],
    )


def _heading(results: Results, text: str) -> Child:
    return [_swatch(results, text), text] if text in results.groups else text


def _cells(results: Results, table: Table, row: tuple[Cell, ...]) -> list[Markup]:
    cells = []
    for column, cell in enumerate(row):
        kinds = ["text" if column in table.text_columns else "", "strong" if cell.strong else ""]
        kinds.append("prose" if column in table.prose_columns else "")
        swatch = None if cell.group is None else _swatch(results, cell.group)
        cells.append(element("td", swatch, cell.text, class_=" ".join(filter(None, kinds)) or None))
    return cells
