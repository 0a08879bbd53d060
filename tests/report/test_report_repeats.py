"""What repeats are worth, on the page of a study that measured it."""

import pytest
from pageparser import parse_page
from synthetic_study import BUDGETS, REPEATS, SIZES, Shape, read, write_study

from noiselaw.report import repeats
from noiselaw.report.drawing import Line
from noiselaw.report.figures import all_figures, loss_curves
from noiselaw.report.page import render_page
from noiselaw.report.results import read_results

UNIQUE = 50_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("repeats") / "study", unique_tokens=UNIQUE)


@pytest.fixture(scope="module")
def results(folder):
    return read_results(folder)


def test_the_value_of_repeats_is_the_studys_own(results, folder):
    laws = read(folder, "token_laws.json")["groups"]
    masked, balanced, uniform, _ = repeats.values_table(results).rows
    for name, row in {"masked": masked, "balanced": balanced}.items():
        decay = laws[name]["repeated"]["parameters"]["R_D"]
        assert row[1].value == decay
        assert decay == pytest.approx(REPEATS, rel=0.2)
    assert [cell.text for cell in uniform[1:8]] == ["–"] * 7
    assert "no law of repeated data: no run repeats its data" in uniform[8].text


def test_every_run_stands_beside_the_same_on_fresh_tokens(results):
    rows = repeats.runs_table(results).rows
    assert [row[0].text for row in rows] == ["masked"] * 4 + ["balanced"] * 4
    for row, shape in zip(rows, list(SIZES.items()) * 2, strict=True):
        assert row[1].text == f"{shape[0]} × {shape[1]}"
        assert row[3].value == pytest.approx(BUDGETS[-1] / Shape(*shape).flops_per_token / UNIQUE, rel=1e-3)
        assert row[6].value == pytest.approx(100 * (row[4].value / row[5].value - 1))
    assert rows[0][6].value > 1, "61 epochs cost something"


def test_curves_on_fresh_tokens_are_solid_and_repeated_ones_dashed(results):
    drawing = repeats.figure(results)
    panels = {panel.title: panel for panel in drawing.panels}
    assert list(panels)[:2] == ["What repeats are worth", "What the law misses"]
    dashes = {name: [line.dash for line in panels[name].marks] for name in results.groups}
    assert dashes == {
        **dict.fromkeys(("masked", "balanced"), ["solid"] * 4 + ["dash"] * 4),
        **dict.fromkeys(("uniform", "autoregressive"), ["solid"] * 4),
    }
    worth = {mark.group or mark.hover for mark in panels["What repeats are worth"].marks}
    assert worth == {"masked", "balanced", "as good as new"}
    fresh = [mark for panel in loss_curves(results).panels for mark in panel.marks if isinstance(mark, Line)]
    assert not any("repeated" in (line.hover or "") for line in fresh)


def test_the_page_has_figure_and_tables(results, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_page(results, all_figures(results)), encoding="utf-8")
    page = parse_page(path)
    assert len(page.tables["repeats"]) == 5
    assert len(page.tables["repeated-runs"]) == 9
    assert any(attributes.get("id") == "repeats" for _, attributes in page.elements)


def test_other_studies_say_nothing_of_it(study_folder):
    results = read_results(study_folder)
    assert (repeats.figure(results), repeats.values_table(results), repeats.runs_table(results)) == (None, None, None)
