from pathlib import Path

import pytest

from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train.loop import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, Path]:
    """Run folders of barely trained models, by noise."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}
    for name in ("balanced", "masked", "autoregressive"):
        objective = {"kind": name} if name == "autoregressive" else {"kind": "diffusion", "noise": name}
        values = {
            "name": name,
            "data": {"path": tiny_data, "sequence_length": 16},
            "model": {"num_layers": 1, "width": 16, "num_heads": 2},
            "objective": objective,
            "batch_sequences": 4,
            "schedule": {"num_steps": 20, "warmup_steps": 5},
            "validation": {"num_sequences": 8, "num_points": 2},
            "runtime": {"num_threads": 1, "checkpoint_every_seconds": 0, "device": "cpu"},
        }
        runs[name] = folder / name
        train(parse_spec(RunSpec, values, "test"), runs[name], [])
    return runs
