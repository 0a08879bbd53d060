"""The page holds everything it needs, says what the files say, and shows text as text."""

import csv
import json
import math
import re
from xml.etree import ElementTree as ET

import pytest
from pageparser import parse_page
from scipy.stats import t
from synthetic_study import STAGES, SURFACES, read, write_study

from noiselaw.cli.report import report
from noiselaw.laws.published import isoflop_laws
from noiselaw.report import phrases
from noiselaw.report.figures import all_figures, power_laws
from noiselaw.report.page import render_page, write_report
from noiselaw.report.prints import write_prints
from noiselaw.report.results import STAGES as READ_STAGES
from noiselaw.report.results import read_results

FIGURES = ("loss_curves", "isoflop", "power_laws", "frontier", "throughput", "main")


def panels_of(path) -> list[dict]:
    return json.loads(next(text for text in parse_page(path).scripts if text.startswith("[")))


def number(text: str) -> float:
    return float(text.replace("−", "-").removesuffix(" %"))


def test_the_page_loads_nothing(report_page):
    page = parse_page(report_page)
    loading = [
        (tag, name) for tag, attributes in page.elements for name in attributes if name in ("src", "href", "srcset")
    ]
    assert loading == []
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "base")]
    style = next(text for text in page.texts if "--paper" in text)
    assert "url(" not in style
    assert "@import" not in style
    assert report_page.stat().st_size < 6e6


def test_only_the_scripts_of_the_page_may_run(report_page):
    policy = next(a["content"] for tag, a in parse_page(report_page).elements if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    script_rule = policy.split("script-src ")[1].split(";")[0]
    assert (
        len(re.findall(r"'sha256-[A-Za-z0-9+/=]{44}'", script_rule)) == 6
    )  # the library, numbers, planner, controls, plots, page
    assert "unsafe" not in script_rule


def test_the_files_it_reads_are_those_a_study_writes():
    assert tuple(READ_STAGES) == STAGES


def test_figures_lie_beside_the_page(report_page):
    for name in FIGURES:
        assert (report_page.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report_page.parent / "figures" / f"{name}.svg").read_text()


def test_the_table_of_optima_equals_the_laws(report_page, study_folder):
    laws = read(study_folder, "laws.json")["groups"]
    expected = [(group, optimum) for group in SURFACES for optimum in laws[group]["optima"]]
    rows = parse_page(report_page).tables["optima"][1:]
    assert len(rows) == len(expected)
    for row, (group, optimum) in zip(rows, expected, strict=True):
        assert row[0] == group
        assert row[6] == f"{optimum['loss']:.4f}"
        assert row[5] == phrases.count(optimum["tokens"] / optimum["params"])
        assert row[8] == ("; ".join(optimum["flags"]) or "–")


def test_a_flagged_optimum_exists_in_the_study_and_is_hollow(report_page, study_folder):
    optima = read(study_folder, "laws.json")["groups"]["uniform"]["optima"]
    assert [bool(optimum["flags"]) for optimum in optima] == [True, False, False, False]
    assert optima[0]["flags"] == ["vertex outside the sampled sizes", "lowest loss at the smallest or largest size"]
    panel = [panel for panel in panels_of(report_page) if panel["title"] == "uniform"][1]
    stars = [trace for trace in panel["data"] if trace.get("marker", {}).get("symbol", "").startswith("star")]
    assert [trace["marker"]["symbol"] for trace in stars] == ["star-open", "star", "star", "star"]
    assert [trace["x"][0] for trace in stars] == pytest.approx([optimum["params"] for optimum in optima], rel=1e-6)
    assert [trace["y"][0] for trace in stars] == pytest.approx([optimum["loss"] for optimum in optima], rel=1e-6)


def test_a_parabola_is_drawn_as_fitted_and_has_its_minimum_at_its_star(report_page, study_folder):
    optimum = read(study_folder, "laws.json")["groups"]["masked"]["optima"][2]
    panel = [panel for panel in panels_of(report_page) if panel["title"] == "masked"][1]
    curves = [trace for trace in panel["data"] if trace["mode"] == "lines"]
    c0, c1, c2 = optimum["curve"]["log_params_coefficients"]
    assert curves[2]["y"] == pytest.approx(
        [math.exp(c0 + c1 * math.log(x) + c2 * math.log(x) ** 2) for x in curves[2]["x"]], rel=1e-6
    )
    lowest = min(zip(curves[2]["y"], curves[2]["x"], strict=True))
    assert lowest[0] == pytest.approx(math.exp(c0 - c1 * c1 / (4 * c2)), rel=1e-3)
    assert lowest[1] == pytest.approx(optimum["params"], rel=0.05)


def test_the_loss_curves_equal_the_table_of_curves(report_page, study_folder):
    with (study_folder / "curves.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["group"] == "balanced"]
    panel = next(panel for panel in panels_of(report_page) if panel["title"] == "balanced")
    drawn = [trace for trace in panel["data"] if trace["mode"] == "lines" and trace["line"]["dash"] != "dot"]
    assert sorted(y for trace in drawn for y in trace["y"]) == pytest.approx(
        sorted(float(row["loss"]) for row in rows), rel=1e-6
    )
    assert sorted(x for trace in drawn for x in trace["x"]) == pytest.approx(
        sorted(float(row["flops"]) for row in rows), rel=1e-6
    )


def test_the_table_of_predictions_equals_the_confirmation(report_page, study_folder):
    confirmed = read(study_folder, "confirmation.json")["groups"]
    predictions = read(study_folder, "prediction.json")["groups"]
    runs = [(group, run) for group in SURFACES for run in confirmed.get(group, ())]
    rows = parse_page(report_page).tables["prediction"][1:]
    assert len(rows) == len(runs) == 6
    for row, (group, run) in zip(rows, runs, strict=True):
        assert row[0] == group
        assert row[6] == f"{run['predicted']:.4f}"
        assert row[7] == f"{run['interval'][0]:.3f} to {run['interval'][1]:.3f}"
        assert row[8] == f"{predictions[group]['surface_loss']['value']:.4f}"
        assert row[9] == str(run["seed"])
        assert row[10] == f"{run['measured_loss']:.4f} ± {run['standard_error']:.4f}"
        assert number(row[11]) == pytest.approx(run["error_percent"], abs=0.005 + 1e-9)


def test_the_overview_says_the_worst_errors_and_the_time(report_page, study_folder):
    errors = [
        run["error_percent"] for runs in read(study_folder, "confirmation.json")["groups"].values() for run in runs
    ]
    text = "".join(parse_page(report_page).texts)
    assert f"{phrases.signed(min(errors))} to {phrases.signed(max(errors))} %" in text
    assert "6 runs, 6 inside the 95 % interval" in text
    assert "It took 13 min" in text
    assert "masked leads the noises from 10¹⁴ to 3×10¹⁵ FLOPs" in text
    assert "The autoregressive baseline is 0." in text


def test_the_table_of_exponents_equals_laws_and_paper(report_page, study_folder):
    laws = read(study_folder, "laws.json")["groups"]
    rows = parse_page(report_page).tables["exponents"][1:]
    order = (("L*", "loss"), ("M*", "flops_per_token"), ("D*", "tokens"), ("P*", "params"))
    assert [row[:2] for row in rows] == [[symbol, group] for symbol, _ in order for group in SURFACES]
    quantities = dict(order)
    paper = {(law.group, law.quantity): law for law in isoflop_laws()}
    for row in rows:
        law, published = laws[row[1]]["laws"][quantities[row[0]]], paper.get((row[1], quantities[row[0]]))
        assert number(row[2]) == pytest.approx(law["coefficient"], rel=5e-4)
        assert number(row[3]) == pytest.approx(law["exponent"], abs=5.1e-5)
        assert [number(end) for end in row[4].split(" to ")] == pytest.approx(law["interval"], abs=5.1e-5)
        if published is None:
            assert row[5] == "–"
        else:
            assert number(row[5]) == pytest.approx(published.exponent, abs=5.1e-5)
    assert rows[11][7] == "0.510 (Chinchilla); 0.476 (DeepSeek); 0.537 (Llama 3)"


def test_bands_are_those_of_the_covariance_and_the_published_laws_lie_ready(report_page, study_folder):
    fitted = read(study_folder, "laws.json")["groups"]["balanced"]
    panel = next(panel for panel in panels_of(report_page) if panel["title"] == "Data D*")
    traces = [trace for trace in panel["data"] if trace["meta"]["group"] == "balanced"]
    band = next(trace for trace in traces if trace.get("fill"))
    law, (variance, covariance, slope_variance) = fitted["laws"]["tokens"], fitted["laws"]["tokens"]["covariance"]
    x = math.log(band["x"][0])
    error = math.sqrt(variance + 2 * covariance * x + slope_variance * x * x)
    half = t.ppf(0.975, fitted["degrees_of_freedom"]) * error
    value = law["coefficient"] * band["x"][0] ** law["exponent"]
    assert (band["y"][0], band["y"][-1]) == pytest.approx((value * math.exp(half), value * math.exp(-half)), rel=1e-5)
    published = next(trace for trace in traces if trace["meta"]["layer"] == "published")
    assert published["y"][0] == pytest.approx(14.4568 * published["x"][0] ** 0.46642, rel=1e-5)
    assert not [trace for panel in panels_of(report_page) if panel["title"] == "Loss L*" for trace in panel["data"]
                if trace["meta"]["layer"]]  # fmt: skip


def test_the_error_bars_are_the_errors_that_the_interval_allows(report_page, study_folder):
    runs = read(study_folder, "confirmation.json")["groups"]["masked"]
    panel = next(panel for panel in panels_of(report_page) if panel["title"] == "Error of the prediction")
    assert panel["layout"]["yaxis"]["ticktext"] == ["masked", "autoregressive"]
    band, points = (trace for trace in panel["data"] if trace["meta"]["group"] == "masked")
    assert points["x"] == pytest.approx([run["error_percent"] for run in runs], rel=1e-6)
    inside = [run["interval"][0] <= run["measured_loss"] <= run["interval"][1] for run in runs]
    assert [min(band["x"]) <= error <= max(band["x"]) for error in points["x"]] == inside
    assert min(band["x"]) == pytest.approx(100 * (runs[0]["predicted"] / runs[0]["interval"][1] - 1), rel=1e-6)


def test_the_frontier_shows_whole_intervals(report_page, study_folder):
    panel = next(panel for panel in panels_of(report_page) if panel["title"] == "Best loss for the compute")
    low, high = (10**end for end in panel["layout"]["yaxis"]["range"])
    for plan in read(study_folder, "prediction.json")["groups"].values():
        assert low < plan["loss"]["interval"][0] < plan["loss"]["interval"][1] < high


def test_throughput_is_shown_per_shape(report_page, study_folder):
    with (study_folder / "throughput.csv").open() as stream:
        first = next(row for row in csv.DictReader(stream) if row["group"] == "masked")
    row = parse_page(report_page).tables["throughput"][1]
    assert row[:3] == ["masked", "2 × 64", "1"]
    assert row[5] == f"{100 * float(first['share_of_matmul_peak']):.0f} %"
    assert number(row[4]) == pytest.approx(float(first["model_flops_per_second"]) / 1e9, rel=5e-3)


def test_hostile_names_are_text(hostile_page, hostile_names):
    page = parse_page(hostile_page)
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    assert kinds == ["application/json", *[None] * 6]
    assert not [tag for tag, _ in page.elements if tag in ("img", "b", "a")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    text = "".join(page.texts)
    assert all(name in text for name in hostile_names.values())
    titles = {panel["title"] for panel in panels_of(hostile_page)}
    assert set(hostile_names.values()) <= titles


def test_texts_that_plotly_reads_are_escaped(hostile_page):
    traces = [trace for panel in panels_of(hostile_page) for trace in panel["data"] if "text" in trace]
    texts = [
        text for trace in traces for text in ([trace["text"]] if isinstance(trace["text"], str) else trace["text"])
    ]
    assert any("&lt;script&gt;" in text for text in texts)
    assert not [text for text in texts if re.search(r"<(?!br>)", text)]
    ticks = [text for panel in panels_of(hostile_page) for text in panel["layout"]["yaxis"]["ticktext"]]
    assert not [text for text in ticks if "<" in text]


def test_files_of_hostile_names_are_drawings_and_nothing_else(hostile_page, tmp_path):
    drawing = power_laws(read_results(hostile_page.parent))
    _, svg = write_prints(drawing, tmp_path)
    tags = {element.tag.split("}")[1] for element in ET.parse(svg).iter() if isinstance(element.tag, str)}
    assert tags <= {"svg", "metadata", "RDF", "Work", "type", "creator", "Agent", "title", "format", "defs", "style",
                    "g", "path", "use", "clipPath", "rect"}  # fmt: skip


@pytest.mark.parametrize("number_of_stages", range(1, len(STAGES)))
def test_a_half_finished_study_says_what_is_missing(tmp_path, number_of_stages):
    stages = STAGES[:number_of_stages]
    results = read_results(write_study(tmp_path / "study", stages=stages))
    path = tmp_path / "report.html"
    path.write_text(render_page(results, all_figures(results)), encoding="utf-8")
    page = parse_page(path)
    text = "".join(page.texts)
    for name in STAGES:
        assert (f"({name})" in text) == (name not in stages)
    assert ("optima" in page.tables) == ("laws.json" in stages)
    assert ("prediction" in page.tables) == ("prediction.json" in stages)
    if "prediction.json" in stages:
        assert page.tables["prediction"][1][10] == "not yet"


def test_a_finished_study_misses_nothing(report_page):
    assert "Not there yet" not in "".join(parse_page(report_page).texts)


def test_a_study_that_has_just_begun_has_a_page_and_no_figures(tmp_path):
    folder = write_study(tmp_path, stages=("study.json",))
    page = parse_page(write_report(folder))
    assert page.scripts == ["[]"]
    assert list((folder / "figures").iterdir()) == []


def test_the_command_prints_the_page_and_the_same_study_gives_the_same_bytes(
    tmp_path, study_folder, report_page, capsys
):
    page = tmp_path / "elsewhere" / "report.html"
    report((study_folder,), out=page)
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_bytes() == report_page.read_bytes()
    for name in ("main.svg", "main.png"):
        assert (page.parent / "figures" / name).read_bytes() == (report_page.parent / "figures" / name).read_bytes()
