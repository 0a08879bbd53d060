"""Several studies on one page, the published laws beside them, and everything as files."""

import csv
import json
import re
import shutil
from xml.etree import ElementTree as ET

import pytest
from pageparser import parse_page
from synthetic_study import read, write_study

from noiselaw.cli.report import report
from noiselaw.report.colors import NEUTRAL, group_styles
from noiselaw.report.exports import file_name, latex_text, points_csv, write_files
from noiselaw.report.figures import all_figures, power_laws
from noiselaw.report.page import Desk, render_pages, write_page
from noiselaw.report.prints import PAPER
from noiselaw.report.results import read_results
from noiselaw.report.tables import all_tables, optima_table

OWN_NAMES = {"masked": "ours", "balanced": "theirs", "uniform": "uniform", "autoregressive": "autoregressive"}


@pytest.fixture(scope="module")
def other_study(tmp_path_factory):
    """Other noises under other names, some of them shared."""
    folder = write_study(tmp_path_factory.mktemp("other") / "study", names=OWN_NAMES)
    facts = folder / "study.json"
    facts.write_text(facts.read_text().replace('"laptop"', '"other <i>study</i>"'))
    return folder


@pytest.fixture(scope="module")
def both_page(study_folder, other_study, tmp_path_factory):
    return write_page((study_folder, other_study), tmp_path_factory.mktemp("both") / "report.html")


def test_studies_stand_side_by_side(both_page, study_folder, other_study):
    page = parse_page(both_page)
    assert [row[0] for row in page.tables["studies"][1:]] == ["laptop", "other <i>study</i>"]
    header, *rows = page.tables["side-by-side"]
    assert header == ["Law", "Group", "laptop", "other <i>study</i>", "Paper"]
    laws = read(study_folder, "laws.json")["groups"]["uniform"]["laws"]["flops_per_token"]
    row = next(row for row in rows if row[:2] == ["M*", "uniform"])
    assert row[2] == f"{laws['exponent']:.4f} [{laws['interval'][0]:.3f} to {laws['interval'][1]:.3f}]"
    assert next(row for row in rows if row[:2] == ["M*", "ours"])[2] == "–"
    for number, folder in ((1, study_folder), (2, other_study)):
        optima = [one for group in read(folder, "laws.json")["groups"].values() for one in group["optima"]]
        assert len(page.tables[f"study{number}-table-optima"][1:]) == len(optima)
    assert both_page.stat().st_size < 6e6


def test_studies_of_one_name_are_told_apart_by_their_folders(study_folder, tmp_path):
    twin = shutil.copytree(study_folder, tmp_path / "seed1")
    page = parse_page(write_page((study_folder, twin), tmp_path / "twins.html"))
    assert [row[0] for row in page.tables["studies"][1:]] == [f"laptop ({folder})" for folder in (study_folder, twin)]


def test_a_noise_has_one_colour_in_all_studies(both_page, study_folder, other_study):
    panels = json.loads(next(text for text in parse_page(both_page).scripts if text.startswith("[")))
    colors = {}
    for panel in panels:
        for trace in panel["data"]:
            group, color = (
                trace["meta"]["group"],
                trace.get("line", {}).get("color") or trace.get("marker", {}).get("color"),
            )
            if group and color and color != NEUTRAL:
                colors.setdefault(group, set()).add(color)
    expected = group_styles(("masked", "balanced", "uniform", "autoregressive", "ours", "theirs"))
    assert colors == {group: {style.color} for group, style in expected.items()}


def test_every_figure_of_both_is_drawn(visit, both_page):
    page = visit(both_page)
    assert page.complaints == []
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.js-line, .point').length)"
    )
    assert len(drawn) > 40
    assert min(drawn) > 0
    assert page.locator("i").count() == 0


def test_the_published_laws_alone_have_a_planner(visit, tmp_path):
    page = tmp_path / "report.html"
    report((), out=page, laws=("published",))
    page = visit(page)
    assert page.complaints == []
    assert "loss" in page.locator("#plan-headline").text_content()
    with pytest.raises(ValueError, match="no study"):
        report(())


def test_published_laws_are_switched_on_where_asked_for(study_folder):
    results = read_results(study_folder)
    for shows, pressed in ((True, "true"), (False, "false")):
        text = render_pages((results,), Desk(shows_published=shows))
        assert re.search(r'aria-pressed="(\w+)" data-layer="published"', text)[1] == pressed


def test_figures_and_tables_are_files(study_folder, tmp_path):
    results = read_results(study_folder)
    drawing = power_laws(results)
    write_files((drawing,), all_tables(results), tmp_path, PAPER)
    assert (tmp_path / "power_laws.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "power_laws.png").read_bytes().startswith(b"\x89PNG")
    root = ET.parse(tmp_path / "power_laws.svg").getroot()
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(6.75 * 72)
    with (tmp_path / "table-optima.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    optima = [one for group in read(study_folder, "laws.json")["groups"].values() for one in group["optima"]]
    assert [float(row["Loss L*"]) for row in rows] == [one["loss"] for one in optima]
    assert [float(row["Tokens D*"]) for row in rows] == [one["tokens"] for one in optima]
    with (tmp_path / "power_laws.csv").open() as stream:
        points = [row for row in csv.DictReader(stream) if row["mark"] == "points" and row["panel"] == "Loss L*"]
    assert sorted(float(row["y"]) for row in points) == sorted(one["loss"] for one in optima)
    latex = (tmp_path / "table-optima.tex").read_text()
    assert latex.count(r" \\") == len(optima) + 1
    assert r"$10^{14}$" in latex
    written = {path.name for path in tmp_path.iterdir()}
    assert {f"table-{table.name}.{kind}" for table in all_tables(results) for kind in ("csv", "tex")} <= written


def test_the_same_figure_gives_the_same_bytes(study_folder, tmp_path):
    drawing = power_laws(read_results(study_folder))
    for name in ("one", "two"):
        write_files((drawing,), (), tmp_path / name, PAPER)
    for kind in ("pdf", "svg", "png", "csv"):
        first, second = ((tmp_path / name / f"power_laws.{kind}").read_bytes() for name in ("one", "two"))
        assert first == second


def test_hostile_names_stay_text_in_files(hostile_page, hostile_names, tmp_path):
    results = read_results(hostile_page.parent)
    table = optima_table(results)
    write_files((), (table,), tmp_path, PAPER)
    with (tmp_path / "table-optima.csv").open() as stream:
        assert {row["Group"] for row in csv.DictReader(stream)} == set(hostile_names.values())
    latex = (tmp_path / "table-optima.tex").read_text()
    assert r"\$x\_1\$" in latex
    assert "$x_1$" not in latex
    assert latex_text(r"\input{/etc/passwd} 3.2×10¹⁵ & 10⁻³") == (
        r"\textbackslash{}input\{/etc/passwd\} 3.2${}\times10^{15}$ \& $10^{-3}$"
    )
    assert file_name("../../etc", 1) == "1-etc"
    assert file_name("</script>", 2) == "2-script"
    assert "'=1+1" in points_csv(power_laws(_renamed(hostile_page.parent, tmp_path / "formula")))


def _renamed(folder, to):
    shutil.copytree(folder, to)
    laws = (to / "laws.json").read_text()
    name = next(iter(json.loads(laws)["groups"]))
    record = json.loads(laws)
    record["groups"] = {"=1+1": record["groups"][name]}
    (to / "laws.json").write_text(json.dumps(record))
    return read_results(to)


def test_every_figure_that_the_page_promises_is_there(study_folder):
    names = [drawing.name for drawing in all_figures(read_results(study_folder))]
    assert names == [
        "loss_curves", "isoflop", "power_laws", "frontier", "crossings", "data_bound", "tuning", "residuals",
        "known_models", "throughput",
    ]  # fmt: skip
