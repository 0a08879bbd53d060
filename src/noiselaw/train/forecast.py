"""A dry run as a record: memory, communication, FLOPs and time of one run on planned devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noiselaw.accounting import flops_per_token, head_flops_per_token, parameter_counts
from noiselaw.laws.hardware import SECONDS_PER_HOUR, USABLE_MEMORY
from noiselaw.specs import ParallelSpec, RunSpec
from noiselaw.train.dryrun import PlannedStep, StepCost, device_sequences, passed_sequences, step_cost
from noiselaw.train.layouts import LayoutMemory, layout_memory, layouts


@dataclass(frozen=True, slots=True)
class Cluster:
    """Planned devices, all alike."""

    num_ranks: int
    """Devices, a process each."""
    devices_per_node: int
    peak_flops: float
    """Of dense matrix products of one device, per second."""
    utilization: float
    """Share of the peak that executed FLOPs reach, those of recomputation included (HFU)."""
    node_bandwidth: float
    """Bytes per second that a device receives from others of its node."""
    network_bandwidth: float
    """Bytes per second that a device receives from other nodes."""

    def __post_init__(self) -> None:
        """Raises ValueError for a quantity that is not positive or a utilization above 1."""
        for name in ("num_ranks", "devices_per_node", "peak_flops", "utilization", "node_bandwidth"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}: give a positive number")
        if not self.network_bandwidth > 0:
            raise ValueError(f"network_bandwidth {self.network_bandwidth}: give a positive number")
        if self.utilization > 1:
            raise ValueError(f"utilization {self.utilization}: a share of the peak is at most 1; 0.3 to 0.5 is usual")

    def is_within_node(self, ranks: Sequence[int]) -> bool:
        """Whether `ranks`, numbered node by node, are all on one."""
        return len({rank // self.devices_per_node for rank in ranks}) == 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run takes on a cluster."""

    spec: RunSpec
    vocab_size: int
    cluster: Cluster
    cost: StepCost
    memory_limits: tuple[float, ...]
    """Bytes of the devices asked about."""
    layouts: tuple[LayoutMemory, ...]
    """Tried; none where nobody asked."""

    @property
    def compute_seconds(self) -> float:
        """Of one step."""
        return self.cost.flops / (self.cluster.peak_flops * self.cluster.utilization)

    @property
    def communication_seconds(self) -> float:
        """Of one step, if nothing else went on."""
        within, across = self.bytes_received
        return within / self.cluster.node_bandwidth + across / self.cluster.network_bandwidth

    @property
    def bytes_received(self) -> tuple[float, float]:
        """By a device in one step, through collectives within its node, and through those among nodes."""
        within = across = 0.0
        for link, num_bytes in self.cost.traffic.items():
            received = link.bytes_received(num_bytes)
            if self.cluster.is_within_node(link.ranks):
                within += received
            else:
                across += received
        return within, across

    @property
    def step_seconds(self) -> tuple[float, float]:
        """Where communication hides behind computation or the other way round, and where nothing hides."""
        compute, communication = self.compute_seconds, self.communication_seconds
        return max(compute, communication), compute + communication

    @property
    def model_flops(self) -> float:
        """Of one step on one device, nothing computed twice, every token through the head."""
        shape = self.spec.model.shape(self.vocab_size)
        per_token = flops_per_token(shape, self.spec.data.sequence_length) + head_flops_per_token(shape)
        return per_token * self.spec.tokens_per_step / self.cluster.num_ranks

    def fits(self, num_bytes: float) -> bool:
        """Whether the run as it is fits a device of so much memory, of which a tenth is left to others."""
        return self.cost.peak_bytes <= USABLE_MEMORY * num_bytes

    def record(self) -> dict[str, Any]:
        """As JSON: bytes, FLOPs and seconds of one device and step, hours of the run."""
        counts = parameter_counts(self.spec.model.shape(self.vocab_size))
        groups = {name: getattr(counts, name) for name in ("embedding", "head", "matrices", "norms", "biases", "total")}
        within, across = self.bytes_received
        hidden, shown = self.step_seconds
        steps = self.spec.schedule.num_steps
        return {
            "name": self.spec.name,
            "ranks": self.cluster.num_ranks,
            "devices_per_node": self.cluster.devices_per_node,
            "parallel": self.spec.runtime.parallel.model_dump(),
            "batch_sequences": self.spec.batch_sequences,
            "device_sequences": device_sequences(self.spec, self.cluster.num_ranks),
            "micro_batch_sequences": passed_sequences(self.spec, self.cluster.num_ranks),
            "parameters": groups,
            "memory_bytes": dict(self.cost.peak) | {"total": self.cost.peak_bytes},
            "peak_phase": self.cost.peak_phase,
            "memory_bytes_by_phase": {phase: sum(kinds.values()) for phase, kinds in self.cost.memory.items()},
            "fits": {_gigabytes(limit): self.fits(limit) for limit in self.memory_limits},
            "communication_bytes": self._communication(),
            "received_bytes": {"within_node": within, "across_nodes": across},
            "executed_flops": self.cost.flops,
            "model_flops": self.model_flops,
            "compute_seconds": self.compute_seconds,
            "communication_seconds": self.communication_seconds,
            "step_seconds": {"overlapped": hidden, "not_overlapped": shown},
            "hours": {
                "overlapped": hidden * steps / SECONDS_PER_HOUR,
                "not_overlapped": shown * steps / SECONDS_PER_HOUR,
            },
            "layouts": [self._layout_record(tried) for tried in self.layouts],
        }

    def _communication(self) -> dict[str, float]:
        """Size of the whole tensors that each kind of collective moved."""
        sizes = {"all_gather": 0.0, "reduce_scatter": 0.0, "all_reduce": 0.0}
        for link, num_bytes in self.cost.traffic.items():
            sizes[link.collective] += num_bytes
        return sizes

    def _layout_record(self, tried: LayoutMemory) -> dict[str, Any]:
        return {
            "parallel": tried.parallel.model_dump(),
            "memory_bytes": {str(count): size for count, size in tried.bytes_by_sequences.items()},
            "largest_micro_batch": {
                _gigabytes(limit): tried.largest(USABLE_MEMORY * limit) for limit in self.memory_limits
            },
        }


def forecast(
    spec: RunSpec, vocab_size: int, cluster: Cluster, memory_limits: tuple[float, ...], *, search: bool
) -> Forecast:
    """Dry-run `spec` on `cluster`; with `search`, other layouts too, to say which fit.

    Raises RanksError where so many devices cannot share the run.
    """
    cost = step_cost(PlannedStep(spec, vocab_size, cluster.num_ranks))
    others: list[ParallelSpec] = layouts(spec, cluster.num_ranks, cluster.devices_per_node) if search else []
    tried = tuple(layout_memory(spec, vocab_size, cluster.num_ranks, parallel) for parallel in others)
    return Forecast(spec, vocab_size, cluster, cost, memory_limits, tried)


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:g}"
