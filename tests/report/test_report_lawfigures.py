"""Every method has a figure, and it shows what the method's object says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from lawtables import METHODS, repeated_record, repeating_table

from noiselaw.report.drawing import Band, Label, Line, Points
from noiselaw.report.lawfigures import FIGURES, law_drawing
from noiselaw.report.prints import write_prints


@pytest.fixture(scope="module")
def made():
    """Method -> table, object, drawing."""
    found = {}
    for method, (make, fit) in METHODS.items():
        table = make()
        record = json.loads(json.dumps(fit(table), allow_nan=False))
        found[method] = table, record, law_drawing(method, record, table)
    return found


def panel_of(drawing, title):
    (panel,) = (panel for panel in drawing.panels if panel.title == title)
    return panel


def marks_of(panel, kind, group=None):
    return [mark for mark in panel.marks if isinstance(mark, kind) and (group is None or mark.group == group)]


def places(points):
    """(x, y) of all points, sorted."""
    return in_order((x, y) for mark in points for x, y in zip(mark.x, mark.y, strict=True))


def in_order(pairs):
    """Sorted by their first eight digits, so that rounding does not shuffle them; [n, 2]."""
    return np.array(sorted(pairs, key=lambda pair: tuple(float(f"{value:.8g}") for value in pair))).reshape(-1, 2)


def test_every_method_has_a_figure(made):
    assert set(FIGURES) == set(METHODS)
    for method, (_, _, drawing) in made.items():
        assert drawing.name == method
        assert drawing.caption.endswith(".")
        for panel in drawing.panels:
            assert panel.marks, panel.title


def test_nothing_is_drawn_outside_its_panel(made):
    for _, _, drawing in made.values():
        for panel in drawing.panels:
            for mark in panel.marks:
                x = (mark.x,) if isinstance(mark, Label) else mark.x
                y = (
                    (mark.y,)
                    if isinstance(mark, Label)
                    else (*mark.low, *mark.high)
                    if isinstance(mark, Band)
                    else mark.y
                )
                assert all(-1e-9 <= panel.x.share(value) <= 1 + 1e-9 for value in x), (panel.title, mark)
                assert all(-1e-9 <= panel.y.share(value) <= 1 + 1e-9 for value in y), (panel.title, mark)


@pytest.mark.parametrize(
    ("method", "title", "law"),
    [
        ("isoflop", "Model size M*", ("optima", "budget", "flops_per_token")),
        ("isoflop", "Data D*", ("optima", "budget", "tokens")),
        ("isoflop", "Loss L*", ("optima", "budget", "loss")),
        ("frontier", "Model size M*", ("optima", "budget", "flops_per_token")),
        ("tokens", "Loss L*", ("optima", "tokens", "loss")),
        ("tokens", "Compute C*", ("optima", "tokens", "flops")),
        ("hyperparameters", "Best batch B*", ("cells", "tokens", "batch_tokens")),
        ("hyperparameters", "Best learning rate η*", ("readings", "batch_tokens", "learning_rate")),
    ],
)
def test_laws_and_points_are_those_of_the_object(made, method, title, law):
    """`law`: the list of points, what it is a law of, its quantity."""
    (points, of, quantity), (_, record, drawing) = law, made[method]
    panel = panel_of(drawing, title)
    for name, group in record["groups"].items():
        drawn = marks_of(panel, Points, name)
        expected = in_order((one[of], one[quantity]) for one in group[points])
        np.testing.assert_allclose(places(drawn), expected, rtol=1e-12)
        thin = [one for one in group[points] if one.get("flags") or not one.get("kept", True)]
        hollow = [mark for mark in drawn if not mark.filled]
        np.testing.assert_allclose(places(hollow), in_order((one[of], one[quantity]) for one in thin), rtol=1e-12)
        lines = marks_of(panel, Line, name)
        assert len(lines) == (quantity in group["laws"])
        for line in lines:
            fitted = group["laws"][quantity]
            np.testing.assert_allclose(line.y, fitted["coefficient"] * np.array(line.x) ** fitted["exponent"])


def test_the_tables_have_flagged_and_sound_points(made):
    optima = made["isoflop"][1]["groups"]["masked"]["optima"]
    assert 0 < sum(bool(optimum["flags"]) for optimum in optima) < len(optima)


def test_parabolas_pass_their_minimum_and_their_points(made):
    for method, size, level in (("isoflop", "params", "budget"), ("tokens", "flops_per_token", "tokens")):
        _, record, drawing = made[method]
        panel = panel_of(drawing, "masked")
        for optimum in record["groups"]["masked"]["optima"]:
            stars = [mark for mark in marks_of(panel, Points) if mark.symbol == "star"]
            assert (optimum[size], optimum["loss"]) in [(star.x[0], star.y[0]) for star in stars]
        ranked = sorted(record["groups"]["masked"]["optima"], key=lambda optimum: optimum[level])
        for line, optimum in zip(marks_of(panel, Line), ranked, strict=True):
            if "vertex" not in " ".join(optimum["flags"]) and not optimum["flags"]:
                assert min(line.y) == pytest.approx(optimum["loss"], rel=2e-3)


def test_the_surface_runs_through_rows_that_lie_on_it(made):
    table, _, drawing = made["surface"]
    panel = panel_of(drawing, "uniform")
    rows = table.rows(table.group == "uniform")
    assert len(marks_of(panel, Line)) == np.unique(rows.params).size
    np.testing.assert_allclose(places(marks_of(panel, Points)), in_order(zip(rows.tokens, rows.loss, strict=True)))
    for line, params in zip(marks_of(panel, Line), np.unique(rows.params), strict=True):
        mine = rows.rows(rows.params == params)
        read = np.interp(np.log(mine.tokens), np.log(line.x), np.log(line.y))
        np.testing.assert_allclose(np.sort(read), np.sort(np.log(mine.loss)), atol=2e-3)
    missed = marks_of(panel_of(drawing, "What the surface misses"), Points)
    assert max(abs(y) for mark in missed for y in mark.y) < 1e-4


def test_a_group_without_a_surface_is_left_out(made):
    table, record, _ = made["surface"]
    groups = record["groups"] | {"uniform": {"laws": {}, "flags": ["too few points"], "size": "params"}}
    drawing = law_drawing("surface", {"groups": groups}, table)
    assert [panel.title for panel in drawing.panels] == ["masked", "What the surface misses"]
    with pytest.raises(ValueError, match="laws surface: nothing to draw"):
        law_drawing("surface", {"groups": dict.fromkeys(groups, groups["uniform"])}, table)


def test_the_frontier_shows_every_run(made):
    table, record, drawing = made["frontier"]
    panel = panel_of(drawing, "masked")
    rows = table.rows(table.group == "masked")
    curves = [line for line in marks_of(panel, Line) if line.group is None]
    assert len(curves) == np.unique(rows.run).size
    assert sorted(y for line in curves for y in line.y) == pytest.approx(sorted(rows.loss))
    arcs = record["groups"]["masked"]["optima"]
    np.testing.assert_allclose(places(marks_of(panel, Points)), in_order((arc["budget"], arc["loss"]) for arc in arcs))


def test_cells_are_drawn_about_their_best(made):
    _, record, drawing = made["hyperparameters"]
    cells = [cell for cell in record["groups"]["masked"]["rate_cells"] if cell["kept"]]
    lines = marks_of(panel_of(drawing, "Too low, too high a rate"), Line)[1:]
    assert len(lines) == len(cells) > 0
    for line, cell in zip(lines, cells, strict=True):
        assert line.x[0] == pytest.approx(cell["learning_rates"][0] / cell["learning_rate"])
        assert line.y[0] == pytest.approx(100 * (cell["losses"][0] / cell["loss"] - 1))
        assert np.interp(0, np.log(line.x), line.y) < 0.7 * max(line.y)


def test_the_cooldown_factor_lies_in_its_band(made):
    _, record, drawing = made["cooldown"]
    panel = panel_of(drawing, "Cooldown factor")
    for name, factor in (("masked", 1.02), ("uniform", 1.03)):
        (line,), (band,) = marks_of(panel, Line, name), marks_of(panel, Band, name)
        assert line.y[0] == pytest.approx(factor, rel=1e-6)
        assert (band.low[0], band.high[0]) == tuple(record["groups"][name]["intervals"]["factor"])
        assert len(places(marks_of(panel, Points, name))) == 4


def test_a_crossing_is_a_star_with_its_interval(made):
    _, record, drawing = made["cross"]
    found = record["groups"]["masked | uniform"]
    for title, y in (("Losses", found["parameters"]["loss"]), ("Crossings", 0.0)):
        (star,) = (mark for mark in marks_of(panel_of(drawing, title), Points) if mark.symbol == "star")
        assert (star.x[0], star.y[0]) == (found["parameters"]["crossing"], y)
        assert star.filled == (not found["flags"])
        assert star.x_interval == (
            () if found["intervals"]["crossing"] is None else (tuple(found["intervals"]["crossing"]),)
        )
    assert panel_of(drawing, "Crossings").y.ticks == ((0.0, "masked | uniform"),)


def test_no_crossing_says_who_leads(made):
    table, record, _ = made["cross"]
    found = record["groups"]["masked | uniform"]
    none = found | {"parameters": found["parameters"] | {"crossing": None, "loss": None}, "leader_below": "masked"}
    drawing = law_drawing("cross", {"groups": {"masked | uniform": none}}, table)
    (label,) = marks_of(panel_of(drawing, "Crossings"), Label)
    assert label.text == "no crossing: masked leads"


def test_the_worth_of_repeats():
    drawing = law_drawing("tokens", repeated_record(), repeating_table())
    lines = {line.hover: line for line in marks_of(panel_of(drawing, "What repeats are worth"), Line)}
    assert lines["uniform"].y == pytest.approx(lines["as good as new"].y)
    masked = lines["masked"]
    assert masked.y[-1] == pytest.approx(1 + 10 * (1 - math.exp(-(masked.x[-1] - 1) / 10)))
    assert masked.y[0] == pytest.approx(1)
    missed = marks_of(panel_of(drawing, "What the law misses"), Points)
    assert sum(len(mark.x) for mark in missed) == 12


def test_many_budgets_are_drawn_finer_and_numbered_sparsely(made):
    table, record, _ = made["isoflop"]
    group = record["groups"]["masked"]
    optima = [
        optimum | {"budget": optimum["budget"] * (1 + 0.01 * step)} for step in range(8) for optimum in group["optima"]
    ]
    dense = law_drawing("isoflop", {"groups": {"masked": group | {"optima": optima}}}, table)
    few, many = (panel_of(drawing, "masked") for drawing in (made["isoflop"][2], dense))
    assert len(marks_of(few, Label)) == 5
    assert len(marks_of(many, Label)) == 8
    assert max(mark.size for mark in marks_of(many, Points)) < min(
        mark.size for mark in marks_of(few, Points) if mark.symbol == "star"
    )


def test_a_group_without_laws_shows_its_points_alone(made):
    table, record, _ = made["isoflop"]
    groups = {"masked": record["groups"]["masked"] | {"laws": {}}}
    panel = panel_of(law_drawing("isoflop", {"groups": groups}, table), "Data D*")
    assert marks_of(panel, Line) == []
    assert len(places(marks_of(panel, Points))) == 5


def test_what_cannot_be_drawn_is_said(made):
    table, record, _ = made["isoflop"]
    with pytest.raises(ValueError, match=r"no figure for method 'spline'; known: isoflop, surface"):
        law_drawing("spline", record, table)
    empty = {"groups": {"masked": {"laws": {}, "optima": [], "flags": ["no laws"]}}}
    with pytest.raises(ValueError, match=r"laws isoflop: nothing to draw, no group has laws or points"):
        law_drawing("isoflop", empty, table)


@pytest.mark.parametrize("method", ["isoflop", "cross"])
def test_figures_are_written(made, method, tmp_path):
    _, _, drawing = made[method]
    png, svg = write_prints(replace(drawing, name="figure"), tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
