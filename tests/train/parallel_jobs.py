"""What the ranks of the tests of parallel training do."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from noiselaw.data.shards import open_tokens
from noiselaw.head.targets import HeadLoss
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


@contextmanager
def batch_losses(changed: Callable[..., HeadLoss]) -> Iterator[None]:
    """Within the block training calls `changed(usual, number, *arguments, **named)`, number 1, 2, ..., in place of
    `usual`, which is `batch_loss`.
    """
    usual, numbers = step_module.batch_loss, itertools.count(1)
    step_module.batch_loss = lambda *arguments, **named: changed(usual, next(numbers), *arguments, **named)
    try:
        yield
    finally:
        step_module.batch_loss = usual


def parts_seen(values: dict[str, Any], num_steps: int) -> list[list[torch.Tensor]]:
    """Every batch that this rank's model sees in so many steps: inputs, truth, noise levels, weights, prompts."""
    seen: list[list[torch.Tensor]] = []

    def watched(usual, _number, model, objective, batch: NoisyBatch, *others, **named):
        assert batch.prompt_lengths is not None
        seen.append([batch.inputs, batch.clean, batch.log_snr, batch.weight, batch.prompt_lengths])
        return usual(model, objective, batch, *others, **named)

    spec = parse_spec(RunSpec, values, "test")
    with batch_losses(watched), joined_ranks(spec) as ranks:
        training = Training.build(spec, open_tokens(spec.data.path), torch.device("cpu"), ranks=ranks)
        for step in range(num_steps):
            train_step(training, step)
    return seen


def stopped_by_nan(values: dict[str, Any], folder: Path, rank: int, at_step: int) -> str:
    """Train; on `rank` the loss of step `at_step` is not a number. How it ended."""

    def broken(usual, number, *others, **named):
        found = usual(*others, **named)
        hit = dist.get_rank() == rank and number == at_step
        return replace(found, loss=found.loss * torch.nan) if hit else found

    return how_it_ended(values, folder, broken)


def stopped_by_signal(values: dict[str, Any], folder: Path, rank: int, at_step: int) -> str:
    """Train; `rank` gets a SIGTERM in the midst of step `at_step`. How it ended."""

    def interrupted(usual, number, *others, **named):
        if dist.get_rank() == rank and number == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(*others, **named)

    return how_it_ended(values, folder, interrupted)


def how_it_ended(values: dict[str, Any], folder: Path, changed: Callable[..., HeadLoss]) -> str:
    """Train with `changed` losses: the message of what stopped it."""
    try:
        with batch_losses(changed):
            train(parse_spec(RunSpec, values, "test"), folder, [])
    except (NonFiniteLossError, Interrupted) as stop:
        return str(stop)
    return "ended well"
