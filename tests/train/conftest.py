from pathlib import Path

import pytest

from noiselaw.cli.overrides import set_dotted
from noiselaw.specs import RunSpec, parse_spec


@pytest.fixture
def run_spec(tiny_data: Path):
    """A function that makes a spec small enough to train in a second, with the given settings changed."""

    def make(**changes) -> RunSpec:
        values = {
            "name": "tiny",
            "data": {"path": tiny_data, "sequence_length": 16},
            "model": {"num_layers": 1, "width": 16, "num_heads": 2},
            "objective": {"kind": "diffusion", "noise": "balanced"},
            "batch_sequences": 4,
            "schedule": {"num_steps": 30, "warmup_steps": 5},
            "validation": {"num_sequences": 8, "num_points": 4},
            "runtime": {"num_threads": 1, "checkpoint_every_seconds": 0, "device": "cpu"},
        }
        for key, value in changes.items():
            set_dotted(values, key, value)
        return parse_spec(RunSpec, values, "test")

    return make
