"""The model card's line about the law, and that no name on it can act as Markdown or HTML."""

import json
import re
import shutil

import pytest
from synthetic_study import write_study

from noiselaw import hub
from noiselaw.hub.card import Card, render_card
from noiselaw.metrics import read_rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A made-up study with laws for masked and autoregressive models, none for unigram noise."""
    return write_study(tmp_path_factory.mktemp("studies") / "laptop")


def line(folder, name):
    (found,) = re.findall(rf"^\| {name} \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    return found


def test_a_card_says_how_far_the_model_is_off_the_law(run, study, tmp_path):
    """The law written out by hand: coefficient · C^exponent at the run's FLOPs, counted as the study counts them."""
    hub.export_run(run, tmp_path / "out", laws=study)
    shown = line(tmp_path / "out", "law")
    if run.name == "unigram":
        assert shown == "study `laptop` has none for this noise"
        return
    law = json.loads((study / "laws.json").read_text())["groups"][run.name]["laws"]["loss"]
    flops = 256 * (6 * 12 * 2 * 16**2 + 12 * 2 * 16 * 16)  # 6 P + attention at T 16, of 4 steps of 4 sequences of 16
    best = law["coefficient"] * flops ** law["exponent"]
    (*_, last) = read_rows(run / "metrics.jsonl", "validation")
    assert shown == (
        f"study `laptop`: the best model at {flops:.3g} FLOPs reaches {best:.4f} nats per token; "
        f"this one is {last['loss'] / best - 1:+.2%} off"
    )


def test_a_run_of_a_study_finds_its_law_and_a_lone_run_has_none(run, study, tmp_path):
    hub.export_run(run, tmp_path / "alone")
    assert line(tmp_path / "alone", "law") == "none given; `noiselaw export --laws STUDY` names one"
    inside = shutil.copytree(study, tmp_path / "laptop") / "runs" / "one"
    shutil.copytree(run, inside)
    hub.export_run(inside, tmp_path / "of-study")
    assert line(tmp_path / "of-study", "law").startswith("study `laptop`")
    with pytest.raises(ValueError, match=r"laws\.json: no such file"):
        hub.export_run(run, tmp_path / "never", laws=tmp_path / "alone")
    assert not (tmp_path / "never").exists()


def test_a_card_names_noise_data_compute_and_loss(run, exported):
    (*_, last) = read_rows(run / "metrics.jsonl", "validation")
    facts = json.loads((run / "run.json").read_text())
    noise = {
        "masked": "masked: shift -inf, scale 1, log-SNR -9..9",
        "unigram": "shift0.5-unigram: shift 0.5, scale 1, log-SNR -9..9",
        "autoregressive": "none: autoregressive",
    }
    assert line(exported, "noise") == noise[run.name]
    assert line(exported, "data") == f"`data`, fingerprint `{facts['data_fingerprint']}`"
    assert line(exported, "compute").startswith(f"{256 * facts['flops_per_token']:.3g} FLOPs")
    assert line(exported, "held-out loss").startswith(
        f"{last['loss']:.4f} ± {last['standard_error']:.4f} nats per token"
    )


def test_hostile_names_stay_text(run, tmp_path):
    card = hub.export_run(run, tmp_path / "out")
    hostile = card.config.model_copy(update={"name": "<script>alert(1)</script>\n# [a](b)"})
    text = render_card(Card(hostile, card.spec, card.facts, card.validation, None))
    assert "<script>" not in text
    assert "[a](b)" not in text
