"""Law books: the published one against what was printed, the user's own from files, and every damaged file."""

import json
import math

import pytest
from synthetic_runs import make_tables, surface, valley

from noiselaw.accounting import DEFAULT_CONVENTION
from noiselaw.laws import fit_tables, isoflop_laws, to_json
from noiselaw.laws.lawbook import published_book
from noiselaw.laws.ownbook import read_book
from noiselaw.laws.planner import Budget, plan_training
from noiselaw.laws.scarce import MUENNIGHOFF

LAW = {"coefficient": 0.5, "exponent": 0.8, "interval": None}
HYPERPARAMETERS = {
    "method": "hyperparameters",
    "groups": {
        "masked": {"laws": {"batch_tokens": LAW, "learning_rate": {**LAW, "exponent": 0.3}}, "flags": []},
        "uniform": {"laws": {}, "flags": ["too few cells"]},
    },
}
COOLDOWN = {
    "method": "cooldown",
    "groups": {
        "masked": {"parameters": {"factor": 1.02}, "intervals": {"factor": [1.0, 1.04]}},
        "uniform": {"parameters": {"factor": 1.03}, "intervals": {"factor": None}},
    },
}
REPEATS = {
    "method": "tokens",
    "groups": {"masked": {"laws": {}, "parameters": {"inverse_R_D": 0.002, "R_D": 500.0}}, "uniform": {"laws": {}}},
}
STUDY = {"sequence_length": 64, "data": {"vocab_size": 259, "bytes_per_token": 1.1, "train_tokens": 25_000_000}}
RECIPE = {
    "batch_tokens": {"coefficient": 3.614e-3, "exponent": 0.8179},
    "learning_rate": {"coefficient": 0.0222, "exponent": 0.3412},
    "run": {"schedule": {"warmup_steps": 20}, "model": {"mlp_bias": False}},
}


@pytest.fixture(scope="module")
def fits():
    return fit_tables(make_tables(surface, ("masked", "uniform"), scatter=0.001), num_draws=200)


@pytest.fixture
def write(tmp_path, fits):
    """Writes files, laws.json among them; returns a function from a name to its path."""

    def write_files(files, convention=DEFAULT_CONVENTION):
        for name, record in {"laws.json": to_json(fits, convention), **files}.items():
            text = record if isinstance(record, str) else json.dumps(record)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write_files


def test_the_published_book_holds_the_printed_laws():
    book = published_book(num_draws=200)
    for law in isoflop_laws():
        if law.quantity != "params":
            fitted = book.fit(law.group).law(law.quantity)
            assert fitted.exponent == pytest.approx(law.exponent, abs=5e-5)
            assert fitted(1e21) == pytest.approx(float(law.law()(1e21)), rel=2e-3)
    assert book.groups == ("masked", "low-uniform", "balanced", "high-uniform", "uniform")
    assert book.fit("uniform").laws["loss"].covariance is not None
    assert book.batch_law("uniform")(74e9) == pytest.approx(3.614e-3 * 74e9**0.8179)
    assert book.repeat_value("uniform") is MUENNIGHOFF


def test_laws_alone_take_the_rest_from_the_paper_and_say_so(write, fits):
    book = read_book([write({}) / "laws.json"])
    assert book.fits == fits
    assert (book.sequence_length, book.vocab_size) == (2048, 131_072)
    assert book.bits_per_byte_per_nat is None
    assert book.cooldown is None
    assert not book.is_published
    assert any("sequences of 2048 tokens" in note for note in book.notes)
    assert any("arXiv 2512.10858" in note for note in book.notes)


def test_a_study_says_the_rest_itself(write):
    folder = write({"study.json": STUDY, "recipe.json": RECIPE})
    for path in (folder, folder / "laws.json"):
        book = read_book([path])
        assert (book.sequence_length, book.vocab_size, book.available_tokens) == (64, 259, 25_000_000)
        assert book.bits_per_byte_per_nat == pytest.approx(1 / math.log(2) / 1.1)
        assert book.batch_law("masked")(1e6) == pytest.approx(3.614e-3 * 1e6**0.8179)
        assert book.learning_rate_law("masked")(2048) == pytest.approx(0.0222 * 2048**0.3412)
        assert book.data_path == str(folder / "data")
        assert book.notes == ()
    assert not book.knows_repeats("masked")
    plan = plan_training(book, "masked", Budget("flops", 4e12))
    assert (plan.sequence_length, plan.shape.vocab_size, plan.shape.mlp_bias) == (64, 259, False)
    assert plan.warmup_steps <= 20


def test_further_files_add_what_they_hold(write):
    folder = write({"tuning.json": HYPERPARAMETERS, "cooldown.json": COOLDOWN, "repeats.json": REPEATS})
    names = ("tuning.json", "laws.json", "cooldown.json", "repeats.json")
    book = read_book([folder / name for name in names])
    assert book.batch_law("masked")(1e6) == pytest.approx(0.5 * 1e6**0.8)
    assert book.learning_rate_law("masked")(1e6) == pytest.approx(0.5 * 1e6**0.3)
    assert book.knows_learning_rate("masked")
    assert not book.knows_learning_rate("uniform")
    assert book.learning_rate_law("uniform")(1e6) == pytest.approx(0.5 * 1e6**0.3)
    assert book.cooldown.value == pytest.approx(math.sqrt(1.02 * 1.03))
    assert book.cooldown.deviation == pytest.approx(book.cooldown.value * math.log(1.04) / 2 / 1.959964)
    assert book.repeat_value("masked").inverse_tokens == 0.002
    assert book.repeat_value("masked").inverse_size == 0.0
    assert book.repeat_value("uniform") is MUENNIGHOFF
    nested = {"method": "tokens", "groups": {"masked": {"repeated": {"parameters": {"inverse_R_D": 0.1}}}}}
    (folder / "repeats.json").write_text(json.dumps(nested), encoding="utf-8")
    assert read_book([folder / "laws.json", folder / "repeats.json"]).repeat_value("masked").inverse_tokens == 0.1


def test_a_study_says_what_repeats_are_worth(write):
    """Where its runs tell; a file that is named goes before it."""
    mine = {
        "method": "tokens",
        "groups": {"masked": {"repeated": {"parameters": {"inverse_R_D": 0.25}}}, "uniform": {}},
    }
    folder = write({"study.json": STUDY, "recipe.json": RECIPE, "token_laws.json": mine, "repeats.json": REPEATS})
    book = read_book([folder])
    assert book.repeat_value("masked").inverse_tokens == 0.25
    assert book.repeat_value("uniform") is MUENNIGHOFF
    assert read_book([folder, folder / "repeats.json"]).repeat_value("masked").inverse_tokens == 0.002
    write({"token_laws.json": {"groups": {"masked": {"flags": ["too few runs"]}}}})
    assert not read_book([folder]).knows_repeats("masked")
    write({"token_laws.json": {}})
    with pytest.raises(ValueError, match=r"token_laws.json: damaged \(KeyError 'groups'\)"):
        read_book([folder])


def test_an_unknown_way_of_counting_is_noted(write):
    book = read_book([write({}, "given") / "laws.json"])
    assert book.convention == DEFAULT_CONVENTION
    assert any("'given'" in note for note in book.notes)
    assert read_book([write({}, "6P") / "laws.json"]).convention == "6P"


def test_a_group_without_laws_is_left_out_and_says_why(tmp_path):
    fits = fit_tables(make_tables(valley, ("masked",)), num_draws=2)
    record = to_json(fits, DEFAULT_CONVENTION)
    record["groups"]["failed"] = {**record["groups"]["masked"], "laws": {}, "flags": ["no laws: too few budgets"]}
    (tmp_path / "laws.json").write_text(json.dumps(record), encoding="utf-8")
    book = read_book([tmp_path])
    assert book.groups == ("masked",)
    with pytest.raises(ValueError, match=r"nothing to predict from .no laws: too few budgets"):
        book.fit("failed")


def repeats_of(inverse):
    return {"method": "tokens", "groups": {"a": {"repeated": {"parameters": {"inverse_R_D": inverse}}}}}


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ({}, ["other.json"], "other.json: no such file"),
        ({"laws.json": "{"}, ["laws.json"], "laws.json: damaged or not JSON"),
        ({"laws.json": []}, ["laws.json"], "laws.json: laws of method 'None'"),
        ({"laws.json": 3}, ["laws.json"], "laws.json: damaged"),
        (
            {"laws.json": {"method": "cross", "groups": {}}},
            ["laws.json"],
            "laws of method 'cross'; a plan reads isoflop, ",
        ),
        ({"laws.json": {"method": "surface", "groups": {"a": {}}}}, ["laws.json"], r"damaged \(KeyError 'laws'\)"),
        ({"f.json": {"method": "frontier", "groups": {}}}, ["laws.json", "f.json"], "frontier laws of compute beside"),
        (
            {"s.json": {"method": "surface", "convention": "6P", "groups": {}}},
            ["laws.json", "s.json"],
            "FLOPs counted as '6P' beside '72Ld2.12Lds'; fit both with one --convention",
        ),
        ({"laws.json": {"method": "isoflop"}}, ["laws.json"], "laws.json: damaged"),
        ({"laws.json": {"method": "isoflop", "groups": {"x": 1}}}, ["laws.json"], "laws.json: damaged"),
        ({"tuning.json": HYPERPARAMETERS}, ["tuning.json"], "no laws of compute; add what"),
        ({}, ["laws.json", "laws.json"], "isoflop laws again, beside"),
        ({"t.json": {"method": "hyperparameters"}}, ["laws.json", "t.json"], r"t.json: damaged \(KeyError 'groups'\)"),
        ({"t.json": {"method": "cooldown", "groups": {"a": {}}}}, ["laws.json", "t.json"], "t.json: damaged"),
        ({"t.json": {"method": "tokens", "groups": {"a": {}}}}, ["laws.json", "t.json"], "no law of repeated data"),
        ({"t.json": repeats_of("slow")}, ["laws.json", "t.json"], "'slow' stands where a finite number belongs"),
        ({"t.json": repeats_of(-0.1)}, ["laws.json", "t.json"], r"group a: 1 / R\* of -0.1 is negative"),
        ({"study.json": {}, "recipe.json": RECIPE}, ["laws.json"], r"study.json: damaged \(KeyError 'data'\)"),
        ({"study.json": STUDY, "recipe.json": {}}, ["laws.json"], "recipe.json: damaged"),
    ],
)
def test_files_that_cannot_be_read_are_named(write, files, names, message):
    folder = write(files)
    with pytest.raises(ValueError, match=message) as caught:
        read_book([folder / name for name in names])
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("coefficient", [0.0, -1.0, math.nan, "a"])
def test_impossible_laws_are_refused(write, fits, coefficient):
    record = to_json(fits, DEFAULT_CONVENTION)
    record["groups"]["masked"]["laws"]["loss"]["coefficient"] = coefficient
    folder = write({"laws.json": record})
    with pytest.raises(ValueError, match=r"laws\.json: "):
        read_book([folder])
