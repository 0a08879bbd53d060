"""What the ranks of the tests of parallel training do."""

from pathlib import Path
from typing import Any

import torch

from noiselaw.data.shards import open_tokens
from noiselaw.metrics import Row, read_rows
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train import step as step_module
from noiselaw.train.distributed import joined_ranks
from noiselaw.train.loop import train
from noiselaw.train.objective import NoisyBatch
from noiselaw.train.step import Training, train_step


def curves(specs: list[dict[str, Any]], folder: Path) -> list[list[Row]]:
    """Train each run in a folder of its own; what its metrics say, speed left out."""
    found = []
    for index, values in enumerate(specs):
        train(parse_spec(RunSpec, values, "test"), folder / str(index), [])
        rows = read_rows(folder / str(index) / "metrics.jsonl")
        found.append([row for row in rows if row["kind"] != "speed"])
    return found


def parts_seen(values: dict[str, Any], num_steps: int) -> list[list[torch.Tensor]]:
    """Every batch that this rank's model sees in so many steps: inputs, truth, noise levels, weights, prompts."""
    seen: list[list[torch.Tensor]] = []
    usual = step_module.batch_loss

    def watched(model, objective, batch: NoisyBatch, *others, **named):
        assert batch.prompt_lengths is not None
        seen.append([batch.inputs, batch.clean, batch.log_snr, batch.weight, batch.prompt_lengths])
        return usual(model, objective, batch, *others, **named)

    spec = parse_spec(RunSpec, values, "test")
    step_module.batch_loss = watched
    try:
        with joined_ranks(spec) as ranks:
            training = Training.build(spec, open_tokens(spec.data.path), torch.device("cpu"), ranks=ranks)
            for step in range(num_steps):
                train_step(training, step)
    finally:
        step_module.batch_loss = usual
    return seen
