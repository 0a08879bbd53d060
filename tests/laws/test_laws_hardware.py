"""What a run takes: time and money by hand, memory against what the model really keeps."""

import math

import pytest
import torch

from noiselaw.accounting import ModelShape, parameter_counts
from noiselaw.laws.hardware import (
    ACCELERATORS,
    BLOCK_BYTES,
    USABLE_MEMORY,
    Accelerator,
    Machine,
    machine,
    memory_of,
    plan_memory,
    plan_resources,
    total_flops_per_token,
)
from noiselaw.model.transformer import Transformer
from noiselaw.specs import ModelSpec

SHAPE = ModelShape(34, 4608, 36, 131_072)
SIZE = 5.583e10


def test_time_and_cost_of_the_papers_large_run():
    on = machine("h200", 64, 0.45, price_per_hour=3.0)
    resources = plan_resources(SHAPE, SIZE, 2048, batch_sequences=3072, num_steps=29_000, on=on)
    flops = (SIZE + 6 * 131_072 * 4608) * 3072 * 2048 * 29_000
    assert resources.total_flops == pytest.approx(flops, rel=1e-12)
    seconds = flops / (64 * 989e12 * 0.45)
    assert resources.seconds == pytest.approx(seconds, rel=1e-12)
    assert resources.cost == pytest.approx(3.0 * 64 * seconds / 3600, rel=1e-12)
    record = resources.record()
    assert record["device_hours"] == pytest.approx(64 * seconds / 3600)
    assert record["memory_bytes"]["total"] == resources.memory.total


def test_the_head_is_what_the_spec_says_it_is():
    """Section 11: 61, 33, 22, 14 and 6 % of all training FLOPs."""
    shapes = [(8, 512, 61), (16, 1024, 33), (20, 1536, 22), (19, 3072, 14), (34, 4608, 6)]
    for layers, width, percent in shapes:
        size = 72 * layers * width**2 + 12 * layers * width * 2048
        total = total_flops_per_token(ModelShape(layers, width, 8, 131_072), size)
        assert 100 * (1 - size / total) == pytest.approx(percent, abs=1.0)


class _Kept:
    """Bytes that autograd keeps beside the parameters."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._alive: dict[int, torch.Tensor] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in self._parameters:
            self._alive[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    @property
    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._alive.values())


def _kept_bytes(num_layers: int, width: int, tokens: tuple[int, int], precision: str) -> int:
    model = Transformer(ModelSpec(num_layers=num_layers, width=width, num_heads=2), 32)
    kept = _Kept(model)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor), cast:
        model(torch.zeros(tokens, dtype=torch.long))
    return kept.num_bytes


@pytest.mark.parametrize("precision", BLOCK_BYTES)
def test_a_block_keeps_what_the_formula_says(precision):
    width, sequences, length = 128, 8, 128
    grown = _kept_bytes(3, width, (sequences, length), precision) - _kept_bytes(
        2, width, (sequences, length), precision
    )
    # In bfloat16 a copy of the block's weights is kept as well: that is another term of the formula.
    weights = 12 * width**2 * 2 if precision == "bfloat16" else 0
    assert (grown - weights) / (sequences * length * width) == pytest.approx(BLOCK_BYTES[precision], rel=0.02)


def test_memory_by_hand():
    counts, on = parameter_counts(SHAPE), machine("h200", 64)
    memory = memory_of(SHAPE, 2048, 2, on, checkpointing=False)
    assert memory.weights == memory.gradients == 4 * counts.total / 64
    assert memory.optimizer == 8 * counts.total / 64
    block = counts.non_embedding / 34
    assert memory.gathered == pytest.approx(4 * (2 * block + 2 * 131_072 * 4608))
    assert memory.activations == 64 * 2 * 2048 * 4608 * 34
    assert memory.head == 1024 * 131_072 * 12 + 4 * 131_072 * 4608
    parts = (memory.weights, memory.gradients, memory.optimizer, memory.gathered, memory.activations, memory.head)
    assert memory.total == sum(parts)
    again = memory_of(SHAPE, 2048, 2, on, checkpointing=True)
    assert again.activations == 2 * 2048 * 4608 * (4 * 34 + 64)
    alone = memory_of(SHAPE, 2048, 1, machine("h200"), checkpointing=False)
    assert (alone.weights, alone.gathered) == (4 * counts.total, 2 * counts.total)


def test_the_largest_micro_batch_that_fits_is_taken():
    on = machine("h200", 64)
    memory = plan_memory(SHAPE, 2048, 48, on)
    assert memory.fits
    assert not memory.checkpointing
    assert 48 % memory.micro_batch_sequences == 0
    larger = min(count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48) if count > memory.micro_batch_sequences)
    assert not memory_of(SHAPE, 2048, larger, on, checkpointing=False).fits
    limit = USABLE_MEMORY * 141e9
    assert memory.total <= limit < memory_of(SHAPE, 2048, larger, on, checkpointing=False).total


def test_checkpointing_where_nothing_else_fits_and_the_truth_where_nothing_does():
    checkpointed = plan_memory(SHAPE, 2048, 4, machine("rtx-4090", 64))
    assert checkpointed.checkpointing
    assert checkpointed.fits
    hopeless = plan_memory(SHAPE, 2048, 4, machine("rtx-4090"))
    assert hopeless.fits is False
    assert (hopeless.micro_batch_sequences, hopeless.checkpointing) == (1, True)


def test_a_cpu_needs_its_peak_and_says_nothing_about_memory():
    with pytest.raises(ValueError, match="--peak-flops"):
        machine("cpu")
    on = machine("cpu", peak_flops=1e11)
    assert on.flops_per_second == pytest.approx(0.4e11)
    assert on.cost(3600) is None
    memory = plan_memory(ModelShape(2, 64, 2, 512), 64, 8, on)
    assert memory.fits is None
    assert memory.gathered == 0
    assert memory.activations == 88 * 8 * 64 * 64 * 2


def test_the_table_holds_what_data_sheets_say():
    assert {"a100", "h100", "h200", "b200", "mi300x", "tpu-v5e", "tpu-v5p", "rtx-4090", "cpu"} <= set(ACCELERATORS)
    for name, accelerator in ACCELERATORS.items():
        assert accelerator.name == name
        if name != "cpu":
            assert 1e14 < accelerator.peak_flops < 1e16
            assert 1e10 < accelerator.memory_bytes < 1e12
        assert (accelerator.price_per_hour is None) == (accelerator.price_source is None)
        assert accelerator.price_source is None or "2026" in accelerator.price_source


def test_a_price_without_source_is_no_price():
    assert machine("tpu-v5e", 8).cost(3600) is None
    assert machine("tpu-v5e", 8, price_per_hour=1.5).cost(3600) == pytest.approx(12)
    own = machine("h200", 2, price_per_hour=5.0)
    assert own.cost(7200) == pytest.approx(20)
    assert own.accelerator.price_source is None
    assert machine("h200").accelerator.price_source == "specialised clouds, May 2026"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("h20",), {}, r"unknown accelerator 'h20' \(did you mean 'h200'\?\)"),
        (("h200", 0), {}, "count 0: a machine needs at least one device"),
        (("h200", 8, 45.0), {}, "mfu 45.0: the share of the peak"),
        (("h200", 8, math.nan), {}, "mfu nan"),
        (("h200",), {"peak_flops": -1.0}, "peak_flops -1.0"),
        (("h200",), {"price_per_hour": math.inf}, "price_per_hour inf"),
    ],
)
def test_impossible_machines_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        machine(*arguments, **options)


def test_names_may_be_written_loosely():
    assert machine("RTX 4090").accelerator.name == "rtx-4090"
    assert machine("TPU_v5e").accelerator.name == "tpu-v5e"
    assert Machine(Accelerator("mine", 1e15, None, None), 2, 0.5).flops_per_second == 1e15
