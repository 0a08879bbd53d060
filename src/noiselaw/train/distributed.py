"""The processes that train one run together: who this one is, and what they tell each other.

torchrun starts them and names each by the environment variables RANK and WORLD_SIZE; without these a run has one
process and nothing here does anything. The ranks form a mesh replica x shard x tensor (`noiselaw.train.parallel`).
Ranks that differ in `tensor` only see the same sequences; every other rank has its own share of each batch. What ranks
agree on (stop, save, sums of a validation) goes over the host's network and never waits for a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from noiselaw.model.sharded import local
from noiselaw.specs import ParallelSpec, RunSpec
from noiselaw.train.machine import num_started, own_device
from noiselaw.train.parallel import MESH_AXES
from noiselaw.train.peers import Peers
from noiselaw.train.rendezvous import fresh_store

if TYPE_CHECKING:  # torch's distributed tensors take a second to import
    from torch.distributed.device_mesh import DeviceMesh

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others: above the longest time one of them may work alone (to compile, to save)."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1
    tensor_size: int = 1
    """Ranks that share every matrix, and so see the same sequences."""
    mesh: "DeviceMesh | None" = None
    peers: Peers = field(default_factory=Peers)
    """The same ranks, for objects."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run folder."""
        return self.rank == 0

    @property
    def num_shares(self) -> int:
        """Shares that a batch is cut into."""
        return self.size // self.tensor_size

    @property
    def tensor_rank(self) -> int:
        """Place among the ranks with the same sequences."""
        return self.rank % self.tensor_size

    def share(self, num: int) -> Tensor:
        """Which of `num` rows are this rank's, int64: as many for every rank, the last row again where they run out.

        Row after row, so that `joined` finds them in order.
        """
        length = -(-num // self.num_shares)
        start = self.rank // self.tensor_size * length
        return torch.arange(start, start + length).clamp(max=num - 1)

    def joined(self, values: Tensor, num: int) -> Tensor:
        """The values of all `num` rows, from each rank's `values` of its share [rows, ...] on the CPU."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts[:: self.tensor_size])[:num]

    def sum_(self, values: Tensor) -> Tensor:
        """Replace `values`, on any device, by their sum over all ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_over_tensor_ranks(self, values: Tensor) -> Tensor:
        """Replace `values` by their sum over the ranks with the same sequences."""
        if self.mesh is not None and self.tensor_size > 1:
            dist.all_reduce(values, group=self.mesh["tensor"].get_group())
        return values

    def norm(self, tensors: list[Tensor]) -> Tensor:
        """The norm of all `tensors` together, of which each rank may hold shards: a scalar on their device."""
        if self.mesh is None:
            return torch.nn.utils.get_total_norm(tensors)
        square = torch.zeros((), device=local(tensors[0]).device)
        if own := [local(tensor) for tensor in tensors if _counts_here(tensor)]:
            square += torch.nn.utils.get_total_norm(own).square()
        return self.sum_(square).sqrt()

    def any(self, *questions: bool) -> tuple[bool, ...]:
        """For each question whether any rank says yes. All ranks must ask, and all get the same answers."""
        if self.size == 1:
            return questions
        answers = torch.tensor(questions, dtype=torch.int32)
        dist.all_reduce(answers, dist.ReduceOp.MAX)
        return tuple(bool(answer) for answer in answers)

    def on_first(self, action: Callable[[], Result]) -> Result:
        """What `action`, done by the first rank alone, returns or raises: on every rank. The result must pickle."""
        return self.peers.first(action)


def _counts_here(tensor: Tensor) -> bool:
    """Whether this rank's part of a distributed tensor is one of those that together are the whole, and no copy."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415 (slow to import)

    assert isinstance(tensor, DTensor)
    places = zip(tensor.device_mesh.get_coordinate() or (), tensor.placements, strict=True)
    return all(place == 0 or not placement.is_replicate() for place, placement in places)


ALONE = Ranks()
"""A run of one process."""


class RanksError(ValueError):
    """A run that cannot be shared by the processes that were started: names the setting, its value and the remedy."""


def check_ranks(spec: RunSpec, num_ranks: int) -> None:
    """Raises RanksError where `num_ranks` processes cannot share the run."""
    parallel = spec.runtime.parallel
    apart = parallel.tensor * parallel.replicas
    if num_ranks % apart:
        raise RanksError(
            f"runtime.parallel.tensor {parallel.tensor} x replicas {parallel.replicas} does not divide the number of "
            f"processes, {num_ranks}; start a multiple of {apart} with torchrun, or lower them"
        )
    if spec.model.num_heads % parallel.tensor:
        raise RanksError(
            f"runtime.parallel.tensor {parallel.tensor} does not divide model.num_heads {spec.model.num_heads}; "
            "choose one of its divisors"
        )
    shares = num_ranks // parallel.tensor
    if spec.batch_sequences % shares:
        raise RanksError(
            f"batch_sequences {spec.batch_sequences} is not divisible by {shares}, the processes that share a batch; "
            "start another number of them or change batch_sequences"
        )


def build_mesh(device_type: str, num_ranks: int, parallel: ParallelSpec) -> "DeviceMesh":
    """The mesh of `num_ranks` processes, whose process group exists: axes MESH_AXES, fit for `parallelise`."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 (slow to import)

    num_shards = num_ranks // (parallel.tensor * parallel.replicas)
    shape = (parallel.replicas, num_shards, parallel.tensor)
    return init_device_mesh(device_type, shape, mesh_dim_names=MESH_AXES)


@contextmanager
def joined_ranks(spec: RunSpec) -> Iterator[Ranks]:
    """Within the block this process is one of the run's ranks: of the process group that there is, or a new one.

    Raises RanksError.
    """
    num_ranks = num_started()
    check_ranks(spec, num_ranks)
    if num_ranks == 1:
        yield ALONE
        return
    device = own_device(spec.runtime)
    with nullcontext() if dist.is_initialized() else _process_group(device):
        mesh = build_mesh(device.type, num_ranks, spec.runtime.parallel)
        yield Ranks(dist.get_rank(), num_ranks, spec.runtime.parallel.tensor, mesh, Peers.of_this_run())


@contextmanager
def _process_group(device: torch.device) -> Iterator[None]:
    """The process group of torchrun's processes, on the host's network too where `device` is a GPU."""
    store, rank, size = fresh_store(TIMEOUT)
    backend, own = "gloo", None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend, own = "cpu:gloo,cuda:nccl", device
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT, device_id=own)
    try:
        yield
    finally:
        dist.destroy_process_group()
