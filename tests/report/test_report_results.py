"""Reading a study folder: complete, under way, damaged."""

import json
import math

import pytest
from synthetic_study import SURFACES, read, write_study

from noiselaw.report.results import read_results


def test_reads_what_stands(study_folder):
    results = read_results(study_folder)
    laws = read(study_folder, "laws.json")["groups"]["uniform"]
    assert results.groups == tuple(SURFACES)
    assert results.missing == ()
    assert len(results.curves) == (4 * 4 + 6) * 16
    assert results.laws.groups["uniform"].laws["loss"].exponent == laws["laws"]["loss"]["exponent"]
    law = results.laws.groups["uniform"].laws["tokens"]
    assert law.at(2e15) == pytest.approx(law.coefficient * 2e15**law.exponent)


def test_a_curve_is_a_parabola_in_logs_with_its_vertex_at_the_optimum(study_folder):
    for optimum in read_results(study_folder).laws.groups["masked"].optima:
        at = optimum.curve.loss_at
        assert at(optimum.params) < min(at(0.99 * optimum.params), at(1.01 * optimum.params))
        # L* is the minimum over the size in FLOPs per token; over the size in parameters it is nearly the same
        assert at(optimum.params) == pytest.approx(optimum.loss, rel=2e-3)
        a, b, c = (math.log(at(optimum.params * factor)) for factor in (0.5, 1.0, 2.0))
        assert (a - 2 * b + c) / (2 * math.log(2) ** 2) == pytest.approx(optimum.curve.log_params_coefficients[2])


def test_no_study_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: no study here.*give the folder"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda laws: laws["groups"]["masked"]["optima"][0].pop("loss"),
            r"laws\.json: groups\.masked\.optima\.0\.loss: ",
        ),
        (
            lambda laws: laws["groups"]["masked"]["optima"][0].update(budget=-1),
            r"laws\.json: .*budget: .*greater than 0",
        ),
        (lambda laws: laws["groups"]["masked"]["laws"]["loss"].update(interval=[2, 1]), r"interval: .*\[low, high\]"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    folder = write_study(tmp_path)
    laws = read(folder, "laws.json")
    change(laws)
    (folder / "laws.json").write_text(json.dumps(laws))
    with pytest.raises(ValueError, match=message):
        read_results(folder)


def test_damaged_json_is_named(tmp_path):
    folder = write_study(tmp_path)
    (folder / "prediction.json").write_text('{"groups": {')
    with pytest.raises(ValueError, match=r"prediction\.json: damaged"):
        read_results(folder)


def test_a_table_without_a_column_is_named(tmp_path):
    folder = write_study(tmp_path)
    table = folder / "curves.csv"
    table.write_text(table.read_text().replace("standard_error", "other", 1))
    with pytest.raises(ValueError, match=r"curves\.csv: no column standard_error"):
        read_results(folder)


def test_a_table_that_does_not_say_what_is_unique_is_read(tmp_path):
    """As studies of earlier releases left it."""
    folder = write_study(tmp_path, stages=("study.json", "curves.csv"))
    table = folder / "curves.csv"
    table.write_text(table.read_text().replace("unique_tokens", "other", 1))
    results = read_results(folder)
    assert results.curves["unique_tokens"].is_null().all()
    assert len(results.curves) > 0


def test_a_table_of_words_is_named(tmp_path):
    folder = write_study(tmp_path)
    table = folder / "curves.csv"
    head = table.read_text().splitlines()[0]
    table.write_text(head + "\n" + ",".join(["word"] * (head.count(",") + 1)) + "\n")
    with pytest.raises(ValueError, match=r"curves\.csv: damaged table"):
        read_results(folder)


def test_an_empty_table_is_a_study_without_rows(tmp_path):
    folder = write_study(tmp_path, stages=("study.json", "curves.csv"))
    (folder / "curves.csv").write_text("\n")
    assert read_results(folder).curves.is_empty()


def test_rows_without_a_finite_loss_are_left_out(tmp_path):
    folder = write_study(tmp_path, stages=("study.json", "curves.csv"))
    table = folder / "curves.csv"
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("loss")
    for row, loss in ((1, "nan"), (2, "inf"), (3, "")):
        cells = lines[row].split(",")
        cells[column] = loss
        lines[row] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    assert len(read_results(folder).curves) == len(lines) - 1 - 3
