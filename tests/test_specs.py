import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from noiselaw.cli.overrides import set_dotted
from noiselaw.specs import (
    NOISE_SHIFTS,
    ModelSpec,
    NoiseSpec,
    RunSpec,
    ScheduleSpec,
    SpecError,
    parse_spec,
    read_mapping,
)

VALUES = {
    "data": {"path": "somewhere", "sequence_length": 128},
    "model": {"num_layers": 2, "width": 64, "num_heads": 2},
    "objective": {"kind": "diffusion", "noise": "masked"},
    "batch_sequences": 8,
    "schedule": {"num_steps": 100},
}


def run_spec(**changes) -> RunSpec:
    values = json.loads(json.dumps(VALUES))
    for key, value in changes.items():
        set_dotted(values, key, value)
    return parse_spec(RunSpec, values, "test")


@pytest.mark.parametrize(("name", "shift"), NOISE_SHIFTS.items())
def test_noise_names_and_shifts_are_inverse(name, shift):
    spec = run_spec(**{"objective.noise": name})
    assert spec.objective.noise == NoiseSpec(shift=shift)
    assert spec.objective.name == name


@given(st.floats(allow_nan=False), st.floats(-1, 1))
def test_json_keeps_every_value_infinities_included(shift, scale):
    spec = run_spec(**{"objective.noise": {"shift": shift, "scale": scale}})
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_yaml_infinity_is_masked():
    assert NoiseSpec(**yaml.safe_load("shift: -.inf")).name == "masked"


def test_specs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        run_spec().seed = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective.noise": "maskd"}, "did you mean 'masked'"),
        ({"objectiv": {}}, "did you mean 'objective'"),
        ({"optimizer.learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"objective.weigting": "elbo"}, "objective.weigting: unknown key .did you mean 'weighting'"),
        ({"objective.noise": {"shfit": 0}}, "objective.noise.shfit: unknown key .did you mean 'shift'"),
        ({"runtime.devise": "cpu"}, "runtime.devise: unknown key .did you mean 'device'"),
        ({"objective.kind": "difusion"}, "objective.kind: unknown 'difusion' .did you mean 'diffusion'"),
        ({"objective": {"noise": "masked"}}, "objective.kind: missing"),
        # The other kind's settings are no answer: an autoregressive objective has no noise.
        ({"objective.kind": "autoregressive"}, "objective.noise: unknown key; known here: kind$"),
        ({"optimizer.kind": "adamm"}, "optimizer.kind: .*'adamm' .did you mean 'adamw'"),
        ({"precision": "bfloat61"}, "did you mean 'bfloat16'"),
        ({"model": 3}, "model: .*got 3"),
        ({"validation.num_sequences": 1}, "validation.num_sequences.*greater than 1"),
        (
            {"objective.noise": {"shift": 0, "scale": 1.5}},
            "objective.noise.scale: scale 1.5 is outside .-1, 1.: .* move it inside",
        ),
        ({"objective.noise": {"shift": math.nan}}, "shift is NaN"),
        ({"model.num_heads": 3}, "width 64 must be an even multiple of num_heads 3"),
        ({"schedule.warmup_steps": 101}, "exceed num_steps 100"),
        ({"objective.min_log_snr": 10.0}, "must be below max_log_snr"),
        ({"batch_sequences": 0}, "batch_sequences.*greater than 0.*got 0"),
    ],
)
def test_bad_settings_name_field_value_and_remedy(change, message):
    with pytest.raises(SpecError, match=message):
        run_spec(**change)


def test_missing_setting_is_named():
    with pytest.raises(SpecError, match="schedule: missing"):
        parse_spec(RunSpec, {key: value for key, value in VALUES.items() if key != "schedule"}, "test")


def test_fingerprint_is_identity_not_execution():
    spec = run_spec()
    same = run_spec(**{"name": "other", "data.path": "elsewhere", "runtime.num_threads": 1, "runtime.compile": True})
    assert spec.fingerprint("data") == same.fingerprint("data")
    for change in ({"seed": 1}, {"precision": "bfloat16"}, {"optimizer.beta1": 0.8}, {"objective.noise": "uniform"}):
        assert run_spec(**change).fingerprint("data") != spec.fingerprint("data")
    assert spec.fingerprint("other data") != spec.fingerprint("data")


def test_fingerprints_of_earlier_releases_stand():
    """Computed before specs could name initial weights: run folders of that time must continue."""
    assert run_spec().fingerprint("data") == "7a528a60c82d91cf"
    assert run_spec(objective={"kind": "autoregressive"}).fingerprint("data") == "8c502d3415badf7e"
    assert run_spec(init={"head_std": 0.1}).fingerprint("data") not in {"7a528a60c82d91cf", "8c502d3415badf7e"}


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        read_mapping(tmp_path / "absent.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1", encoding="utf-8")
    with pytest.raises(SpecError, match="not readable"):
        read_mapping(bad)
    bad.write_text("- 1", encoding="utf-8")
    with pytest.raises(SpecError, match="expected a mapping"):
        read_mapping(bad)


def test_yaml_cannot_run_code(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: !!python/object/apply:os.system ['true']", encoding="utf-8")
    with pytest.raises(SpecError, match="not readable"):
        read_mapping(bad)


def test_set_dotted_refuses_a_value_as_group():
    with pytest.raises(SpecError, match=r"a\.seed\.x: seed is 1, not a group of .* give seed whole, as in '{x: 2}'"):
        set_dotted({"a": {"seed": 1}}, "a.seed.x", 2)


def test_schedule_may_fill_all_steps():
    assert ScheduleSpec(num_steps=5, warmup_steps=2, cooldown_steps=3).num_steps == 5


def test_shape_takes_vocabulary_from_data():
    assert ModelSpec(num_layers=2, width=8, num_heads=2).shape(99).vocab_size == 99
