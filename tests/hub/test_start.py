"""Fine-tuning: the first step starts at the named model's weights, which are part of what the run is."""

import json

import pytest
import torch

from noiselaw import hub
from noiselaw.hub.start import StartError
from noiselaw.specs import RunSpec, SpecError, parse_spec, read_mapping
from noiselaw.train.loop import RunFolderError, train


def spec_from(run, **changes) -> RunSpec:
    values = read_mapping(run / "spec.json") | {"optimizer": {"learning_rate": 1e-30}} | changes
    return parse_spec(RunSpec, values, "test")


def test_a_run_starts_from_an_export(run, exported, tmp_path):
    spec = spec_from(run, init=str(exported))
    start = hub.starting_point(spec)
    train(spec, tmp_path / "tuned", [], start)
    for name, tensor in hub.load(tmp_path / "tuned").model.state_dict().items():
        torch.testing.assert_close(tensor, hub.load(exported).model.state_dict()[name], rtol=0, atol=1e-20)
    # The run folder holds the same weights: another place, the same run.
    again = spec_from(run, init={"weights": str(run)})
    train(again, tmp_path / "tuned", [], hub.starting_point(again))
    fresh = spec_from(run)
    with pytest.raises(RunFolderError, match="another run"):
        train(fresh, tmp_path / "tuned", [])
    assert json.loads((tmp_path / "tuned" / "spec.json").read_text())["init"]["weights"] == str(exported)


def test_a_model_that_does_not_fit_is_named(run, exported, reference_dir):
    shape = read_mapping(run / "spec.json")["model"] | {"num_layers": 1, "rope_base": 500.0}
    with pytest.raises(StartError, match=r"num_layers, rope_base; add --model.num-layers 2 --model.rope-base 10000.0"):
        hub.starting_point(spec_from(run, init=str(exported), model=shape))
    gidd = hub.load(reference_dir / "gidd_tiny")
    with pytest.raises(StartError, match="vocabulary is 97"):
        hub.starting_point(spec_from(run, init=str(gidd.path), model=gidd.model.spec.model_dump()))
    with pytest.raises(ValueError, match="no such folder"):
        hub.starting_point(spec_from(run, init="nowhere"))


def test_weights_and_draws_exclude_each_other(run):
    with pytest.raises(SpecError, match="no effect"):
        spec_from(run, init={"weights": "x", "head_std": 0.5})
    with pytest.raises(ValueError, match="not read"):
        train(spec_from(run, init="x"), run, [])


def test_the_initial_weights_are_part_of_what_a_run_is(run):
    spec = spec_from(run)
    assert len({spec.fingerprint("data", weights) for weights in (None, "these", "those")}) == 3
