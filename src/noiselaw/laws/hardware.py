"""What a run costs on real devices: wall-clock, money, memory.

Time = total training FLOPs, head included, over (devices x peak x share of the peak that is reached). Memory is that of
fully sharded data parallelism with float32 weights, gradients and moments under bfloat16 matrix products, as this
package trains. The table is a starting point for plans, not an offer: peaks and memory are the makers' data sheets
(dense bfloat16, without sparsity). Prices per device and hour stand only where a dated source says what specialised
clouds ask on demand; large clouds ask up to twice as much. Give your own with --price-per-hour.

Symbols: P parameters in all, N devices, L layers, d width, V vocabulary, s sequence length, b sequences at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from noiselaw.accounting import ModelShape, head_flops_per_token, parameter_counts
from noiselaw.words import nearest_name

SECONDS_PER_DAY = 86_400.0
SECONDS_PER_HOUR = 3_600.0
DEFAULT_MFU = 0.4

Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device."""

    name: str
    peak_flops: float | None
    """Dense matrix products per second in the precision of the run, FLOP/s; None: the user has to say."""
    memory_bytes: float | None
    """None: not known, so nothing is said to fit or not."""
    price_per_hour: float | None = None
    """US dollars; None where nobody said."""
    price_source: str | None = None
    precision: Precision = "bfloat16"


_CLOUDS = "specialised clouds, May 2026"
"""Middle of the range that mercatus-ai.com/blog/cloud-gpu-pricing gives for them: A100 1.10 to 1.50, H100 2.50 to 3.50,
H200 3.50 to 4.50. B200: spheron.network/blog/nvidia-h200-vs-b200-vs-gb200, prices of 17 March 2026."""

ACCELERATORS: dict[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator("a100", 312e12, 80e9, 1.30, _CLOUDS),
        Accelerator("h100", 989e12, 80e9, 3.00, _CLOUDS),
        Accelerator("h200", 989e12, 141e9, 4.00, _CLOUDS),
        Accelerator("b200", 2250e12, 180e9, 6.03, "Spheron, March 2026"),
        Accelerator("mi300x", 1307e12, 192e9),
        Accelerator("tpu-v5e", 197e12, 16e9),
        Accelerator("tpu-v5p", 459e12, 95e9),
        Accelerator("tpu-v6e", 918e12, 32e9),
        Accelerator("rtx-4090", 165e12, 24e9),
        Accelerator("cpu", None, None, precision="float32"),
    )
}
"""SXM modules for NVIDIA's data-centre GPUs; per chip for TPUs; float32 accumulation for the RTX 4090."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices that train one model together."""

    accelerator: Accelerator
    count: int
    mfu: float
    """Model FLOPs utilisation: the share of the peak that training FLOPs, head included, reach."""

    def __post_init__(self) -> None:
        """Raises ValueError for no devices, an impossible share of the peak, or a peak that nobody gave."""
        if self.count < 1:
            raise ValueError(f"count {self.count}: a machine needs at least one device")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu {self.mfu}: the share of the peak lies above 0 and up to 1; 0.3 to 0.5 is usual")
        if self.accelerator.peak_flops is None or not self.accelerator.peak_flops > 0:
            raise ValueError(
                f"{self.accelerator.name}: peak of {self.accelerator.peak_flops} FLOP/s; give it with --peak-flops"
            )

    @property
    def flops_per_second(self) -> float:
        assert self.accelerator.peak_flops is not None
        return self.count * self.accelerator.peak_flops * self.mfu

    def cost(self, seconds: float) -> float | None:
        """US dollars; None where the price is not known."""
        price = self.accelerator.price_per_hour
        return None if price is None else price * self.count * seconds / SECONDS_PER_HOUR


def machine(
    name: str,
    count: int = 1,
    mfu: float = DEFAULT_MFU,
    *,
    peak_flops: float | None = None,
    price_per_hour: float | None = None,
) -> Machine:
    """`count` accelerators of that name, with another peak or price where given.

    Raises ValueError for an unknown name, a peak or price that is not positive, and as `Machine` does.
    """
    key = name.lower().replace(" ", "-").replace("_", "-")
    if key not in ACCELERATORS:
        raise ValueError(
            f"unknown accelerator {name!r}{nearest_name(key, ACCELERATORS)}; known: {', '.join(ACCELERATORS)}"
        )
    given = {"peak_flops": peak_flops, "price_per_hour": price_per_hour}
    for option, value in given.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{option} {value}: give a positive number")
    changes: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    if price_per_hour is not None:
        changes["price_source"] = None
    return Machine(replace(ACCELERATORS[key], **changes), count, mfu)


def total_flops_per_token(shape: ModelShape, size: float) -> float:
    """Training FLOPs of one token in a model of `size` = M FLOPs per token, head included: M + 6 V d.

    Every token is counted as if it went through the head; masked noise skips about half of them, so it can be faster.
    """
    return size + head_flops_per_token(shape)


USABLE_MEMORY = 0.9
"""The rest of a device goes to kernels' workspace, communication buffers and fragmentation."""
BLOCK_BYTES: dict[Precision, int] = {"bfloat16": 64, "float32": 88}
"""Bytes that a block keeps for its backward pass, per token and width: this package's blocks, residual stream and norms
in float32, as measured (a test counts them again), without the few that attention kernels save per head."""
PRODUCT_BYTES: dict[Precision, int] = {"bfloat16": 2, "float32": 4}
RESIDUAL_BYTES = 4
HEAD_CHUNK_TOKENS = 1024
HEAD_BYTES = 12
"""Three float32 tensors per token of a chunk and entry of the vocabulary, at most (`noiselaw.head`)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the fullest moment of a step, by what they hold."""

    weights: float
    """float32, sharded: 4 P / N."""
    gradients: float
    """float32, sharded: 4 P / N."""
    optimizer: float
    """Two float32 moments, sharded: 8 P / N."""
    gathered: float
    """Copies in the precision of the products: on one device of all weights (2 P in bfloat16, none in float32); else of
    what sharding gathers at a time, two blocks, the embedding and the head, and of its gradients (4 bytes for each)."""
    activations: float
    """64 b s d L in bfloat16; with checkpointing 4 b s d L and one block's 64 b s d."""
    head: float
    """12 V for each of the 1024 tokens whose logits are alive at a time, and the head's float32 gradient, 4 V d."""
    micro_batch_sequences: int
    """Sequences b in one forward pass; gradients accumulate over the others of the device."""
    checkpointing: bool
    """Whether blocks are computed again in the backward pass instead of kept."""
    fits: bool | None
    """In nine tenths of the device's memory; None where that is not known."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.head

    def record(self) -> dict[str, Any]:
        """Bytes by name, as JSON."""
        names = ("weights", "gradients", "optimizer", "gathered", "activations", "head", "total")
        return {name: getattr(self, name) for name in names}


def plan_memory(shape: ModelShape, sequence_length: int, device_sequences: int, on: Machine) -> Memory:
    """Memory of one device that has `device_sequences` of every batch.

    The largest micro-batch that fits and divides them, without checkpointing if one does, else with it; where nothing
    fits, one sequence at a time with checkpointing, marked as not fitting.
    """
    trials = _memory_trials(shape, sequence_length, device_sequences, on)
    memory = next(trials)
    while not (memory.fits or memory.fits is None):
        smaller = next(trials, None)
        if smaller is None:
            break
        memory = smaller
    return memory


def _memory_trials(shape: ModelShape, sequence_length: int, device_sequences: int, on: Machine) -> Iterator[Memory]:
    """From the most comfortable to the most frugal."""
    divisors = [count for count in range(device_sequences, 0, -1) if device_sequences % count == 0]
    for checkpointing in (False, True):
        for micro_batch in divisors:
            yield memory_of(shape, sequence_length, micro_batch, on, checkpointing=checkpointing)


def memory_of(
    shape: ModelShape, sequence_length: int, micro_batch_sequences: int, on: Machine, *, checkpointing: bool
) -> Memory:
    """The formulas of `Memory`'s fields. Parameters are those of the model, embedding and head included."""
    counts, precision = parameter_counts(shape), on.accelerator.precision
    at_a_time = 2 * counts.non_embedding / shape.num_layers + counts.embedding + counts.head
    copies = 2 * at_a_time if on.count > 1 else counts.total if precision == "bfloat16" else 0
    tokens = micro_batch_sequences * sequence_length
    kept = RESIDUAL_BYTES * shape.num_layers + BLOCK_BYTES[precision]
    per_token = kept if checkpointing else BLOCK_BYTES[precision] * shape.num_layers
    memory = Memory(
        weights=4 * counts.total / on.count,
        gradients=4 * counts.total / on.count,
        optimizer=8 * counts.total / on.count,
        gathered=PRODUCT_BYTES[precision] * copies,
        activations=tokens * shape.width * per_token,
        head=min(tokens, HEAD_CHUNK_TOKENS) * shape.vocab_size * HEAD_BYTES + 4 * counts.head,
        micro_batch_sequences=micro_batch_sequences,
        checkpointing=checkpointing,
        fits=None,
    )
    limit = on.accelerator.memory_bytes
    return memory if limit is None else replace(memory, fits=memory.total <= USABLE_MEMORY * limit)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run takes on a machine."""

    machine: Machine
    total_flops: float
    """Head included."""
    memory: Memory

    @property
    def seconds(self) -> float:
        return self.total_flops / self.machine.flops_per_second

    @property
    def cost(self) -> float | None:
        """US dollars."""
        return self.machine.cost(self.seconds)

    def record(self) -> dict[str, Any]:
        """As JSON: seconds, US dollars, bytes on one device."""
        return {
            "accelerator": self.machine.accelerator.name,
            "count": self.machine.count,
            "mfu": self.machine.mfu,
            "peak_flops": self.machine.accelerator.peak_flops,
            "total_flops": self.total_flops,
            "seconds": self.seconds,
            "device_hours": self.machine.count * self.seconds / SECONDS_PER_HOUR,
            "price_per_hour": self.machine.accelerator.price_per_hour,
            "price_source": self.machine.accelerator.price_source,
            "cost": self.cost,
            "memory_bytes": self.memory.record(),
            "device_memory_bytes": self.machine.accelerator.memory_bytes,
            "fits": self.memory.fits,
            "micro_batch_sequences": self.memory.micro_batch_sequences,
            "checkpointing": self.memory.checkpointing,
        }


def plan_resources(
    shape: ModelShape, size: float, sequence_length: int, *, batch_sequences: int, num_steps: int, on: Machine
) -> Resources:
    """Time, money and memory of a run of `size` FLOPs per token, its batch shared out evenly among the devices."""
    tokens = batch_sequences * sequence_length * num_steps
    memory = plan_memory(shape, sequence_length, math.ceil(batch_sequences / on.count), on)
    return Resources(on, total_flops_per_token(shape, size) * tokens, memory)
