"""How fast a run would go: its own steps on its own data, for a few seconds, with nothing written."""

import time
from dataclasses import asdict, dataclass

import torch

from noiselaw.data.mixture import open_data
from noiselaw.specs import RunSpec
from noiselaw.train.distributed import joined_ranks
from noiselaw.train.machine import Machine, float32_products
from noiselaw.train.step import Training, train_step

WARMUP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Throughput:
    """A measured rate of training."""

    tokens_per_second: float
    steps: int
    seconds: float
    num_threads: int

    def record(self) -> dict[str, float]:
        return asdict(self)


def measure_throughput(spec: RunSpec, seconds: float) -> Throughput:
    """Train `spec` for about `seconds` after a few steps to warm up. Validation and checkpoints are left out."""
    if spec.runtime.num_threads is not None:
        torch.set_num_threads(spec.runtime.num_threads)
    data, machine = open_data(spec.data, verify=False), Machine.of(spec.runtime)
    with joined_ranks(spec) as ranks, float32_products(machine.float32_products):
        training = Training.build(spec, data, machine.device, ranks=ranks)
        step = 0
        with training.batches:
            while step < WARMUP_STEPS:
                step = train_step(training, step).step
            _synchronise(machine.device)
            started = time.monotonic()
            while any(ranks.any(time.monotonic() - started < seconds)):
                step = train_step(training, step).step
            _synchronise(machine.device)
            took = time.monotonic() - started
    steps = step - WARMUP_STEPS
    return Throughput(steps * spec.tokens_per_step / took, steps, took, torch.get_num_threads())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
