"""Tables, figures and swatches of the page as HTML."""

from collections.abc import Mapping

from noiselaw.report.cells import Cell, Table
from noiselaw.report.colors import Style
from noiselaw.report.drawing import Drawing
from noiselaw.report.markup import Child, Markup, element

Styles = Mapping[str, Style]


def swatch(styles: Styles, group: str) -> Markup:
    """The colour of a group."""
    return element("span", class_="swatch", style=f"--color: {styles[group].color}", aria_hidden="true")


def figure(styles: Styles, drawing: Drawing, first: int, name: str) -> Markup:
    """One grid of plots; `first` is the index of its first panel among all panels of the page, `name` its id."""
    columns = max(sum(panel.span for panel in row) for row in drawing.rows)
    plots = []
    for index, panel in enumerate(drawing.panels, start=first):
        mark = swatch(styles, panel.title) if panel.title in styles else None
        title = element("h4", mark, panel.title) if len(drawing.panels) > 1 else None
        description = f"{drawing.title}: {panel.title}, {panel.y.label} against {panel.x.label}"
        plot = element("div", class_="plot", data_panel=str(index), role="img", aria_label=description)
        wide = " wide" if panel.span > 1 else ""
        plots.append(element("div", title, plot, class_=f"panel{wide}", style=f"--span: {panel.span}"))
    grid = element("div", plots, class_="panels", style=f"--columns: {columns}")
    return element("figure", grid, element("figcaption", drawing.caption, class_="caption"), id=name)


def table(styles: Styles, content: Table | None, prefix: str = "") -> Markup | None:
    """A table with its caption; its id is `prefix`table-NAME."""
    if content is None:
        return None
    header = [
        element("th", _heading(styles, text), scope="col", class_="text" if column in content.text_columns else None)
        for column, text in enumerate(content.header)
    ]
    body, previous = [], None
    for row in content.rows:
        body.append(element("tr", _cells(styles, content, row), class_="first" if row[0].text != previous else None))
        previous = row[0].text
    grid = element(
        "table", element("thead", element("tr", header)), element("tbody", body), id=f"{prefix}table-{content.name}"
    )
    return element(
        "div",
        element("h3", content.title),
        element("div", grid, class_="scroll", tabindex="0", role="region", aria_label=content.title),
        [element("p", text, class_="caption") for text in (content.caption, *content.notes)],
    )


def _heading(styles: Styles, text: str) -> Child:
    return [swatch(styles, text), text] if text in styles else text


def _cells(styles: Styles, content: Table, row: tuple[Cell, ...]) -> list[Markup]:
    cells = []
    for column, cell in enumerate(row):
        kinds = ["text" if column in content.text_columns else "", "strong" if cell.strong else ""]
        kinds.append("prose" if column in content.prose_columns else "")
        mark = None if cell.group is None else swatch(styles, cell.group)
        cells.append(element("td", mark, cell.text, class_=" ".join(filter(None, kinds)) or None))
    return cells
