"""What the ranks of the tests of parallel training do."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from noiselaw.data.shards import open_tokens
from noiselaw.metrics import Row, read_rows
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train import step as step_module
from noiselaw.train.distributed import joined_ranks
from noiselaw.train.interrupt import Interrupted
from noiselaw.train.loop import NonFiniteLossError, train
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


def stopped_by_nan(values: dict[str, Any], folder: Path, rank: int, at_step: int) -> str:
    """Train; on `rank` the loss of step `at_step` is not a number. How it ended."""
    usual, calls = step_module.batch_loss, 0

    def broken(*others, **named):
        nonlocal calls
        calls += 1
        found = usual(*others, **named)
        if dist.get_rank() == rank and calls == at_step:
            return replace(found, loss=found.loss * torch.nan)
        return found

    step_module.batch_loss = broken
    try:
        train(parse_spec(RunSpec, values, "test"), folder, [])
    except NonFiniteLossError as error:
        return str(error)
    finally:
        step_module.batch_loss = usual
    return "ended well"


def stopped_by_signal(values: dict[str, Any], folder: Path, rank: int, at_step: int) -> str:
    """Train; `rank` gets a SIGTERM in the midst of step `at_step`. How it ended."""
    usual, calls = step_module.batch_loss, 0

    def interrupted(*others, **named):
        nonlocal calls
        calls += 1
        if dist.get_rank() == rank and calls == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(*others, **named)

    step_module.batch_loss = interrupted
    try:
        train(parse_spec(RunSpec, values, "test"), folder, [])
    except Interrupted as stop:
        return str(stop)
    finally:
        step_module.batch_loss = usual
    return "ended well"
