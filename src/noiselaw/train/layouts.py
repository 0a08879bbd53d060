"""Which ways to spread a run over devices fit their memory: a small search with dry runs.

A layout says how ranks share the model (FSDP over all of them, a replica on each node, or matrices shared by the
devices of a node) and what the backward pass computes again. Memory grows linearly with the sequences of a forward
pass, from two of them on (with fewer the head's chunk may not be full), so two dry runs tell it for all. All are taken
to have passes before them: where one pass does it, the gradients of earlier ones are counted and are not there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from noiselaw.specs import ParallelSpec, Recompute, RunSpec
from noiselaw.train.distributed import RanksError, check_ranks
from noiselaw.train.dryrun import PlannedStep, device_sequences, step_costs


@dataclass(frozen=True, slots=True)
class LayoutMemory:
    """What a layout takes on each device."""

    parallel: ParallelSpec
    bytes_by_sequences: Mapping[int, float]
    """Bytes at the fullest moment, by the sequences of a forward pass: the divisors of what a device has to pass."""

    def largest(self, num_bytes: float) -> int | None:
        """Most sequences at a time that fit; None where not even the fewest do."""
        return max((count for count, size in self.bytes_by_sequences.items() if size <= num_bytes), default=None)


def layouts(spec: RunSpec, num_ranks: int, devices_per_node: int) -> list[ParallelSpec]:
    """Those that so many ranks can have. Matrices are shared where everything else is computed again only."""
    found: list[ParallelSpec] = []
    for shared in _sharing(num_ranks, devices_per_node):
        for recompute in get_args(Recompute) if shared.tensor == 1 else ("full",):
            parallel = shared.model_copy(update={"recompute": recompute})
            try:
                check_ranks(with_parallel(spec, parallel), num_ranks)
            except RanksError:
                continue
            found.append(parallel)
    return found


def _sharing(num_ranks: int, devices_per_node: int) -> Iterator[ParallelSpec]:
    yield ParallelSpec()
    num_nodes = num_ranks // devices_per_node
    if num_ranks % devices_per_node == 0 and num_nodes > 1:
        yield ParallelSpec(replicas=num_nodes)
    if num_ranks % devices_per_node == 0:
        yield ParallelSpec(tensor=devices_per_node)


def with_parallel(spec: RunSpec, parallel: ParallelSpec) -> RunSpec:
    """`spec`, spread in another way."""
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"parallel": parallel})})


def layout_memory(spec: RunSpec, vocab_size: int, num_ranks: int, parallel: ParallelSpec) -> LayoutMemory:
    """Memory of one layout, whatever micro-batch and layout `spec` itself has."""
    spread = with_parallel(spec, parallel)
    share = device_sequences(spread, num_ranks)
    few = min(2, share)
    step = PlannedStep(spread, vocab_size, num_ranks, memory_only=True)
    costs = step_costs(step, sorted({few, min(few + 1, share)}))
    first, second = costs[0], costs[-1]
    divisors = (count for count in range(1, share + 1) if share % count == 0)
    return LayoutMemory(parallel, {count: first.plus(second, count - few).peak_bytes for count in divisors})
