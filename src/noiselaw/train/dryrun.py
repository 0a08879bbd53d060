"""What a step of a run takes on one of many devices, without the devices: the run's own step on fake tensors.

Model, sharding, optimiser and step are those of a real run, on a process group that only pretends to have other ranks,
so this process is rank 0, which holds the largest shard. Blocks are all alike: where there are many, a step is traced
with a few and with one more, and what a block adds is added for the others, moment by moment (`Phase`). The batch is
the worst there can be: every token carries loss, and prompts ask for a mask.

Tensors pretend to be on a CPU, because sharding asks real devices for streams. What differs on a GPU: attention keeps
what its kernel there keeps, and the gradient of the head is widened in one piece. `torch.compile` is left out: it only
saves memory.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.testing._internal.distributed.fake_pg import FakeStore

from noiselaw.model.transformer import Transformer
from noiselaw.noise.process import build_process
from noiselaw.optim.groups import build_optimizer
from noiselaw.specs import AutoregressiveSpec, RunSpec
from noiselaw.train.distributed import ALONE, Ranks, build_mesh, check_ranks
from noiselaw.train.memory import KINDS, Kind, Ledger, Link, Phase
from noiselaw.train.objective import AutoregressiveObjective, DiffusionObjective, NoisyBatch, Objective
from noiselaw.train.parallel import parallelise
from noiselaw.train.step import HeadSettings, Precision, accumulate_gradients, clip_gradients

TRACED_BLOCKS = (3, 4)
"""Of a model that has more. Sharding fetches a block ahead and frees one behind: with three there is one between."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one optimiser step takes on one device."""

    memory: Mapping[Phase, Mapping[Kind, float]]
    """Bytes by kind at the fullest moment of each phase of the last pass over a micro-batch and of the update."""
    flops: float
    """Of matrix products and attention, those of recomputed blocks included."""
    traffic: Mapping[Link, float]
    """Size in bytes of the whole tensors that collectives of each kind and group move."""

    @property
    def peak_phase(self) -> Phase:
        return max(self.memory, key=lambda phase: sum(self.memory[phase].values()))

    @property
    def peak(self) -> Mapping[Kind, float]:
        """Bytes by kind at the fullest moment of the step."""
        return self.memory[self.peak_phase]

    @property
    def peak_bytes(self) -> float:
        return sum(self.peak.values())

    def plus(self, other: "StepCost", times: float) -> "StepCost":
        """`self` + `times` (`other` - `self`), number by number."""

        def mix(mine: float, others: float) -> float:
            return mine + times * (others - mine)

        return StepCost(
            memory={
                phase: {kind: mix(kinds[kind], other.memory[phase][kind]) for kind in KINDS}
                for phase, kinds in self.memory.items()
            },
            flops=mix(self.flops, other.flops),
            traffic={link: mix(moved, other.traffic[link]) for link, moved in self.traffic.items()},
        )


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """An optimiser step of a run on devices that need not be there."""

    spec: RunSpec
    vocab_size: int
    num_ranks: int
    device_type: str = "cuda"
    memory_only: bool = False
    """Trace the last pass alone, with the gradients of those before it in place: FLOPs and traffic are that pass's."""


def step_cost(step: PlannedStep) -> StepCost:
    """What `step` takes on each device. Raises RanksError where so many cannot share the run."""
    (cost,) = step_costs(step, [passed_sequences(step.spec, step.num_ranks)])
    return cost


def passed_sequences(spec: RunSpec, num_ranks: int) -> int:
    """Sequences of a forward pass on each device."""
    share = device_sequences(spec, num_ranks)
    return min(spec.runtime.micro_batch_sequences or share, share)


def device_sequences(spec: RunSpec, num_ranks: int) -> int:
    """Sequences of every batch that a device, or those that share its matrices, has to pass."""
    return spec.batch_sequences * spec.runtime.parallel.tensor // num_ranks


def step_costs(step: PlannedStep, rows: Sequence[int]) -> list[StepCost]:
    """As `step_cost`, for each number in `rows` of sequences of a forward pass."""
    check_ranks(step.spec, step.num_ranks)
    few, more = TRACED_BLOCKS
    num_blocks = step.spec.model.num_layers
    if num_blocks <= more:
        return traced_costs(step, rows)
    traced = [traced_costs(replace(step, spec=_with_blocks(step.spec, blocks)), rows) for blocks in TRACED_BLOCKS]
    times = (num_blocks - few) / (more - few)
    return [first.plus(second, times) for first, second in zip(*traced, strict=True)]


def _with_blocks(spec: RunSpec, num_blocks: int) -> RunSpec:
    """`spec` with so many blocks, each as it is: a residual branch that is multiplied by 1 would take less memory."""
    model = spec.model
    changes = {"num_layers": num_blocks, "residual_scale": model.residual_scale * num_blocks / model.num_layers}
    return spec.model_copy(update={"model": model.model_copy(update=changes)})


def traced_costs(step: PlannedStep, rows: Sequence[int]) -> list[StepCost]:
    """As `step_costs`, with every block traced."""
    spec, vocab_size, num_ranks = step.spec, step.vocab_size, step.num_ranks
    precision = Precision(spec.precision)
    objective = placeless_objective(spec, vocab_size)
    head = HeadSettings.of(spec.runtime, vocab_size, precision, torch.device(step.device_type))
    share, fake_mode, costs = device_sequences(spec, num_ranks), FakeTensorMode(allow_non_fake_inputs=True), []
    with _pretended_ranks(spec, num_ranks) as ranks:
        with torch.device("meta"):
            model = Transformer(spec.model, vocab_size)
        parallelise(model, ranks.mesh, spec.runtime.model_copy(update={"compile": False}), precision.dtype)
        with fake_mode:
            model.to_empty(device="cpu")
            optimizer = build_optimizer(model, spec.optimizer, spec.model)
            _make_state(model, optimizer)
        for num_sequences in rows:
            num_passes = math.ceil(share / num_sequences)
            num_traced = 1 if step.memory_only else min(num_passes, 2)  # passes before the last are all alike
            # With replicas sums are no gradients before the last pass, and the first of two traced ones makes them.
            makes_sums = num_traced == 2 and spec.runtime.parallel.replicas > 1
            sequences = num_sequences * num_traced * ranks.num_shares
            batch = fullest_batch(objective, sequences, spec.data.sequence_length)
            with fake_mode, Ledger(fake_mode) as ledger, _watched(model, optimizer, ledger):
                if num_traced < num_passes and not makes_sums:
                    _leave_gradients(model)
                accumulate_gradients(
                    model, objective, batch, precision, micro_batch_sequences=num_sequences, head=head, ranks=ranks
                )
                clip_gradients(model, spec.optimizer.clip_norm, ranks)
                optimizer.step()
                optimizer.zero_grad()
            costs.append(_cost(ledger, 1 if step.memory_only else num_passes))
    return costs


def _cost(ledger: Ledger, num_passes: int) -> StepCost:
    """Of a step of so many passes, from a ledger of two, or of one where there is one."""
    times = [num_passes - 1, 1] if num_passes > 1 else [1]
    traffic: Counter[Link] = Counter()
    for work, repeats in zip(ledger.passes, times, strict=True):
        traffic.update({link: repeats * moved for link, moved in work.traffic.items()})
    flops = sum(repeats * work.flops for work, repeats in zip(ledger.passes, times, strict=True))
    return StepCost(ledger.peaks(), flops, traffic)


def _make_state(model: Transformer, optimizer: Optimizer) -> None:
    """Let `optimizer` make the state that it has from the first step on."""
    _leave_gradients(model)
    optimizer.step()
    optimizer.zero_grad()


def _leave_gradients(model: Transformer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def placeless_objective(spec: RunSpec, vocab_size: int) -> Objective:
    """The objective of `spec` over a vocabulary of which nothing is known but its size: the mask is its last id."""
    mask_id = vocab_size - 1
    if isinstance(spec.objective, AutoregressiveSpec):
        return AutoregressiveObjective(mask_id, end_of_text_id=0)
    frequencies = torch.full((vocab_size,), 1 / mask_id, dtype=torch.float64)
    frequencies[mask_id] = 0
    diffusion = spec.objective
    process = build_process(
        diffusion.noise,
        vocab_size,
        mask_id,
        diffusion.min_log_snr,
        diffusion.max_log_snr,
        token_frequencies=frequencies,
    )
    return DiffusionObjective(diffusion, process, empty_id=0)


class _Batch(NoisyBatch):
    """Of equal sequences, so that it does not matter which ones are asked for: the answer may be a fake tensor."""

    def rows(self, index: Tensor | slice) -> NoisyBatch:
        return super().rows(index if isinstance(index, slice) else slice(len(index)))


def fullest_batch(objective: Objective, num_sequences: int, sequence_length: int) -> NoisyBatch:
    """A batch that takes as much memory as any: every token carries loss, and prompts of one token ask for a mask."""
    shape = (num_sequences, sequence_length)
    is_masked = objective.mixing is not None and objective.mixing.is_masked
    clean = torch.zeros(shape, dtype=torch.int64)
    is_causal = isinstance(objective, AutoregressiveObjective)
    return _Batch(
        inputs=torch.full_like(clean, objective.mask_id) if is_masked else clean,
        clean=clean,
        log_snr=torch.zeros(shape),
        weight=torch.ones(shape),
        prompt_lengths=None if is_causal else torch.ones(num_sequences, dtype=torch.int64),
        causal=is_causal,
    )


@contextmanager
def _pretended_ranks(spec: RunSpec, num_ranks: int) -> Iterator[Ranks]:
    """Within the block this process believes to be the first of so many."""
    if num_ranks == 1:
        yield ALONE
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_ranks)
    try:
        parallel = spec.runtime.parallel
        yield Ranks(0, num_ranks, parallel.tensor, build_mesh("cpu", num_ranks, parallel))
    finally:
        dist.destroy_process_group()


@contextmanager
def _watched(model: Transformer, optimizer: Optimizer, ledger: Ledger) -> Iterator[None]:
    """Within the block the ledger knows what belongs to whom, and how far a step has come."""
    parameters = list(model.parameters())
    ledger.assign(parameters, "parameters")
    state = (value for values in optimizer.state.values() for value in values.values())
    ledger.assign((value for value in state if isinstance(value, Tensor)), "optimizer")

    def note_gradients() -> None:
        ledger.assign((part.grad for part in parameters if part.grad is not None), "gradients")

    def before_pass(*_: Any) -> None:
        note_gradients()
        ledger.begin_pass()

    def before_update(*_: Any) -> None:
        note_gradients()
        ledger.phase = "update"

    def last_block_reached(_: Tensor) -> None:
        ledger.phase = "last backward"

    def after_first_block(_module: Any, _arguments: Any, output: Tensor) -> None:
        output.register_hook(last_block_reached)

    handles = (
        model.register_forward_pre_hook(before_pass, prepend=True),
        model.model.layers[0].register_forward_hook(after_first_block),
        optimizer.register_step_pre_hook(before_update),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
