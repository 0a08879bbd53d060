"""The paper's figures show the fits, the printed numbers and the held-out runs where they belong."""

import numpy as np
import pytest

from noiselaw.laws.published import COMPARISON_LAWS, LARGE_RUNS, LOSS_GAPS, NOISES, isoflop_laws
from noiselaw.laws.reproduce import reproduce
from noiselaw.report.colors import STYLES
from noiselaw.report.drawing import Band, Label, Line, Points
from noiselaw.report.paperfigures import MAIN, paper_figures


@pytest.fixture(scope="module")
def found():
    return reproduce(num_draws=500)


@pytest.fixture(scope="module")
def drawings(found):
    return {drawing.name: drawing for drawing in paper_figures(found)}


def panel_of(drawing, title):
    (panel,) = (panel for panel in drawing.panels if panel.title == title)
    return panel


def test_the_main_figure_holds_parabolas_laws_and_tests(drawings):
    assert list(drawings) == ["isoflop", "laws", "exponents", "held_out", MAIN]
    parabolas, laws, tests = drawings[MAIN].rows
    assert tuple(panel.title for panel in parabolas) == NOISES
    assert laws == drawings["laws"].rows[0]
    assert tests[1:] == drawings["held_out"].rows[0]


def test_every_point_of_every_parabola_is_drawn(found, drawings):
    for noise in NOISES:
        panel = panel_of(drawings["isoflop"], noise)
        points = [mark for mark in panel.marks if isinstance(mark, Points) and mark.symbol != "star"]
        optima = found.fits[noise].optima
        assert sum(len(mark.x) for mark in points) == sum(len(optimum.points) for optimum in optima)
        stars = [mark for mark in panel.marks if isinstance(mark, Points) and mark.symbol == "star"]
        assert sorted(star.x[0] for star in stars) == pytest.approx(sorted(optimum.params for optimum in optima))
        assert [star.filled for star in stars] == [not optimum.flags for optimum in optima]


@pytest.mark.parametrize(
    ("title", "quantity"), [("Loss L*", "loss"), ("Model size M*", "flops_per_token"), ("Data D*", "tokens")]
)
def test_laws_are_solid_where_fitted_and_dashed_beyond(found, drawings, title, quantity):
    panel = panel_of(drawings["laws"], title)
    for noise in NOISES:
        lines = {mark.dash: mark for mark in panel.marks if isinstance(mark, Line) and mark.group == noise}
        assert set(lines) == {"solid", "dash"}
        assert lines["solid"].x[-1] == pytest.approx(found.fits[noise].largest_budget)
        assert lines["dash"].x[0] == pytest.approx(lines["solid"].x[-1])
        for line in lines.values():
            np.testing.assert_allclose(line.y, found.fits[noise].law(quantity)(line.x), rtol=1e-12)
        printed = next(law for law in isoflop_laws() if (law.group, law.quantity) == (noise, quantity))
        np.testing.assert_allclose(lines["solid"].y, printed.law()(lines["solid"].x), rtol=2e-3)


def test_large_runs_stand_where_they_were_measured(drawings):
    measured = {
        "Loss L*": [run.loss_before_cooldown for run in LARGE_RUNS],
        "Model size M*": [run.flops_per_token for run in LARGE_RUNS],
        "Data D*": [run.tokens for run in LARGE_RUNS],
    }
    for title, values in measured.items():
        named = {mark.hover[0]: mark for mark in panel_of(drawings["laws"], title).marks if isinstance(mark, Points)}
        for run, value in zip(LARGE_RUNS, values, strict=True):
            assert (named[run.name].x, named[run.name].y) == ((run.flops,), (value,))
            assert named[run.name].color == STYLES[run.group].color


def test_laws_of_other_papers_are_named_and_sizes_are_six_parameters(drawings):
    for title, quantity in (("Model size M*", "params"), ("Data D*", "tokens")):
        panel = panel_of(drawings["laws"], title)
        grey = {mark.hover: mark for mark in panel.marks if isinstance(mark, Line) and mark.group is None}
        labels = {mark.text for mark in panel.marks if isinstance(mark, Label)}
        assert set(grey) == labels == {"Chinchilla", "DeepSeek", "Llama 3", "Nie et al.", "Ni et al."}
        factor = 6 if quantity == "params" else 1
        chinchilla = next(law for law in COMPARISON_LAWS if law.quantity == quantity)
        line = grey["Chinchilla"]
        np.testing.assert_allclose(line.y, factor * chinchilla.law()(line.x), rtol=1e-12)


def test_the_gap_is_the_ratio_of_the_laws(found, drawings):
    panel = panel_of(drawings["held_out"], "Gap to masked noise")
    uniform, masked = (found.fits[noise].law("loss") for noise in ("uniform", "masked"))
    for line in (mark for mark in panel.marks if isinstance(mark, Line) and mark.group == "uniform"):
        np.testing.assert_allclose(line.y, 100 * (uniform(line.x) / masked(line.x) - 1), rtol=1e-9)
    printed, measured = (mark for mark in panel.marks if isinstance(mark, Points))
    assert dict(zip(printed.x, printed.y, strict=True)) == pytest.approx({c: 100 * gap for c, gap in LOSS_GAPS.items()})
    assert measured.y[0] == pytest.approx(100 * (2.538 / 2.495 - 1))


def test_exponents_stand_with_their_intervals_a_row_per_noise(found, drawings):
    panel = panel_of(drawings["exponents"], "Exponent of D*")
    marks = [mark for mark in panel.marks if isinstance(mark, Points)]
    assert len(marks) == 4 * len(NOISES)
    rows = {name: row for row, name in panel.y.ticks}
    for comparison in found.intervals:
        if comparison.quantity == "tokens":
            mine = [mark for mark in marks if abs(mark.y[0] - rows[comparison.group]) < 0.5]
            drawn = {mark.filled: mark for mark in mine if mark.x_interval}
            assert (drawn[True].x[0], drawn[True].x_interval[0]) == (comparison.exponent[1], comparison.ours)
            assert (drawn[False].x[0], drawn[False].x_interval[0]) == (comparison.exponent[0], comparison.published)
            surface = 1 - found.surfaces[comparison.group].optimal_size().exponent
            assert any(mark.x[0] == pytest.approx(surface) for mark in mine)
    assert len(panel_of(drawings["exponents"], "Exponent of L*").marks) == 3 * len(NOISES)


def test_errors_of_the_large_runs_lie_in_what_their_intervals_allow(found, drawings):
    panel = panel_of(drawings["held_out"], "Runs that no fit has seen")
    points = [mark for mark in panel.marks if isinstance(mark, Points)]
    bands = [mark for mark in panel.marks if isinstance(mark, Band)]
    losses = [loss for row in reversed(found.held_out) for loss in (row.before_cooldown, row.final)]
    assert [mark.x[0] for mark in points] == pytest.approx([loss.error_percent for loss in losses])
    for band, loss in zip(bands, losses, strict=True):
        assert (band.x[0] <= 0 <= band.x[1]) == loss.is_inside
        assert band.x[1] == pytest.approx(100 * (loss.interval[1] / loss.measured - 1))
