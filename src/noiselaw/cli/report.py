"""`noiselaw report STUDY ...`: write the page of one study, or of several side by side."""

from pathlib import Path
from typing import Annotated

import tyro

from noiselaw.report.page import write_page
from noiselaw.report.prints import PAPER, SCREEN


def report(
    studies: tuple[Path, ...] = (),
    /,
    *,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    laws: tuple[str, ...] = (),
    figures: Path | None = None,
) -> None:
    """Write a report page that needs nothing but itself, and print its path.

    Args:
        studies: Study folders, finished or not; several are compared on one page.
        out: Where the page goes; by default report.html in the folder of the only study, or here.
        laws: Laws for the planner besides the studies' own: published, or files and folders as `noiselaw plan` reads
            them. With published, the figures show these laws from the start.
        figures: Folder for all figures as PNG, SVG and PDF in the size of a paper's text, their points and the tables
            as CSV, the tables as LaTeX. By default the figures of a single study go to figures/ beside the page.
    """
    if not (studies or laws):
        raise ValueError("no study: give the folder of one or more, or --laws published for the planner alone")
    page = out or (studies[0] if len(studies) == 1 else Path()) / "report.html"
    style = SCREEN if figures is None else PAPER
    folder = figures or (page.parent / "figures" if len(studies) == 1 else None)
    print(write_page(studies, page, laws=laws, figures_folder=folder, print_style=style))
