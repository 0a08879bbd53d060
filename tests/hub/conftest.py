"""Runs of four steps, one of each kind, and what is exported of them."""

import pytest

from noiselaw import hub
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train.loop import train


@pytest.fixture(scope="session", params=["masked", "unigram", "autoregressive"])
def run(request, tiny_data, tmp_path_factory):
    noises = {"masked": "masked", "unigram": {"shift": 0.5, "reference": "unigram"}}
    objective = (
        {"kind": "diffusion", "noise": noises[request.param]} if request.param in noises else {"kind": request.param}
    )
    values = {
        "name": "tiny",
        "data": {"path": tiny_data, "sequence_length": 16},
        "model": {"num_layers": 2, "width": 16, "num_heads": 2},
        "objective": objective,
        "batch_sequences": 4,
        "init": {"head_std": 0.1},
        "schedule": {"num_steps": 4},
        "validation": {"num_sequences": 8, "num_points": 1},
        "runtime": {"num_threads": 1, "device": "cpu"},
    }
    folder = tmp_path_factory.mktemp("run") / request.param
    train(parse_spec(RunSpec, values, "test"), folder, [])
    return folder


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / run.name
    hub.export_run(run, folder)
    return folder
