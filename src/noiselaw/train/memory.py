"""What a step takes, by watching every operator of a step on fake tensors: memory, communication, FLOPs.

Fake tensors (`torch._subclasses.FakeTensorMode`) have a shape, a dtype and storage of the right size, but no memory and
no values, so the step of a model of any size runs in seconds on any machine. A `Ledger` writes down when each storage
comes to life and when it dies. What it cannot see: scratch that a kernel takes for itself, the caching allocator's
rounding and fragmentation, buffers of the communication library. Storages that hold values (a batch on the host) are
not counted, and operators on them compute as ever.
"""

# torch has no public names for its operators, a storage's identity and whether it is in a backward pass.
# ruff: noqa: SLF001

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.distributed import ProcessGroup, get_process_group_ranks
from torch.distributed._tools.fake_collectives import CollectiveOp
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import addmm_flop, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

Value = TypeVar("Value")
Kind = Literal["parameters", "gradients", "optimizer", "gathered", "activations", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a storage holds. `optimizer` is its state and the scratch of its update; `gathered` are whole parameters, and
their gradients before they are reduced, of the units that sharding assembles; `activations` include gradients by them;
`head` is all that the vocabulary head takes beside its weight: logits and its gradients."""

Phase = Literal["forward", "backward", "last backward", "update"]
"""Of a step; `last backward` is the way back through the first block and the embedding."""

_MAKERS: dict[str, Kind] = {
    "/torch/distributed/fsdp/": "gathered",
    "/noiselaw/head/": "head",
    "/noiselaw/optim/": "optimizer",
    "/torch/optim/": "optimizer",
    "/torch/nn/utils/clip_grad": "optimizer",
}
"""A storage belongs to whoever of these stands nearest on the stack when it is made; activations to nobody."""

_PROPAGATION = {"/torch/distributed/tensor/_sharding_prop": True, "/torch/distributed/tensor/_op_schema": True}
"""Where distributed tensors ask what shape a result has: nothing of it happens on a device."""

Collective = Literal["all_gather", "reduce_scatter", "all_reduce"]

_WHOLE_TENSOR: dict[Any, tuple[Collective, Callable[[Any, int], int]]] = {
    torch.ops.c10d._allgather_base_.default: ("all_gather", lambda args, _: _num_bytes(args[0])),
    torch.ops.c10d._reduce_scatter_base_.default: ("reduce_scatter", lambda args, _: _num_bytes(args[1])),
    torch.ops.c10d.allreduce_.default: ("all_reduce", lambda args, _: sum(map(_num_bytes, args[0]))),
    torch.ops._c10d_functional.all_gather_into_tensor.default: (
        "all_gather",
        lambda args, size: size * _num_bytes(args[0]),
    ),
    torch.ops._c10d_functional.reduce_scatter_tensor.default: (
        "reduce_scatter",
        lambda args, _: _num_bytes(args[0]),
    ),
    torch.ops._c10d_functional.all_reduce.default: ("all_reduce", lambda args, _: _num_bytes(args[0])),
}
"""Bytes of the tensor that all ranks of the group hold together, from the arguments and the size of the group."""

_MORE_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.addmm_: lambda _, left, right, **__: addmm_flop(None, left.shape, right.shape),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query.shape, key.shape, value.shape
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(
            gradient.shape, query.shape, key.shape, value.shape
        )
    ),
}
"""What torch's table of FLOPs lacks."""


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass(frozen=True, slots=True)
class Link:
    """A collective operation among ranks."""

    collective: Collective
    ranks: tuple[int, ...]

    def bytes_received(self, num_bytes: float) -> float:
        """By each rank, of a tensor of `num_bytes`: a ring's, which no algorithm on plain links beats."""
        share = (len(self.ranks) - 1) / len(self.ranks)
        return num_bytes * share * (2 if self.collective == "all_reduce" else 1)


@dataclass(slots=True)
class Work:
    """What one pass over a micro-batch does on a device."""

    flops: int = 0
    """Of matrix products and attention."""
    traffic: Counter[Link] = field(default_factory=Counter)
    """Size of the whole tensors that collectives moved."""


@dataclass(slots=True)
class _Storage:
    num_bytes: int
    kind: Kind
    born: int
    died: int | None = None


@dataclass(slots=True)
class _Peak:
    num_bytes: int = 0
    at: int = 0


class Ledger(TorchDispatchMode):
    """Within the block, writes down what operators on the fake tensors of `fake_mode` (active, too) take and do."""

    def __init__(self, fake_mode: FakeTensorMode) -> None:
        super().__init__()
        self.phase: Phase = "forward"
        self.passes: list[Work] = []
        """What was done in each pass over a micro-batch; the update belongs to the last one."""
        self._fake_mode = fake_mode
        self._now = 0
        self._num_bytes = 0
        self._storages: list[_Storage] = []
        self._alive: dict[int, tuple[_Storage, weakref.ref[torch.UntypedStorage]]] = {}
        self._peaks: dict[Phase, _Peak] = {}

    def begin_pass(self) -> None:
        """From here on work belongs to another pass over a micro-batch."""
        self.phase = "forward"
        self.passes.append(Work())

    def assign(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """Say what `tensors` are, from their beginning."""
        for tensor in tensors:
            record, _ = self._record(tensor.to_local() if isinstance(tensor, DTensor) else tensor, kind)
            record.kind = kind

    def peaks(self) -> dict[Phase, dict[Kind, int]]:
        """Bytes by kind at the fullest moment of each phase."""
        return {phase: self._at(peak.at) for phase, peak in self._peaks.items()}

    def __enter__(self) -> Self:
        self._watch_resizing()
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        torch.UntypedStorage.resize_ = self._resize

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its operators on local tensors come here afterwards
        kwargs = kwargs or {}
        if active_fake_mode() is not self._fake_mode or _called_from(_PROPAGATION) is not None:
            return func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and not any(isinstance(tensor, FakeTensor) for tensor in given):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        self._note_work(func, args, kwargs, result)
        if self.phase == "forward" and torch._C._current_graph_task_id() != -1:
            self.phase = "backward"
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor):
                self._record(leaf, None)
        self._note_peak()
        return result

    def _note_work(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        work = self.passes[-1] if self.passes else Work()
        if (collective := _WHOLE_TENSOR.get(func)) is not None:
            name, whole = collective
            group: ProcessGroup = CollectiveOp.get_process_group(func, args)
            ranks = tuple(get_process_group_ranks(group))
            work.traffic[Link(name, ranks)] += whole(args, len(ranks))
            if name == "reduce_scatter":
                self.assign([args[0]], "gradients")
        elif func is torch.ops.fsdp.chunk_cat.default:
            self.assign(args[0], "gathered")
        elif (count := _MORE_FLOPS.get(func.overloadpacket)) is not None:
            work.flops += count(*args, **kwargs)
        elif (count := flop_registry.get(func.overloadpacket)) is not None:
            work.flops += count(*args, **kwargs, out_val=result)

    def _record(self, tensor: Tensor, kind: Kind | None) -> tuple[_Storage, weakref.ref[torch.UntypedStorage]]:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            record = self._born(storage.nbytes(), kind or _called_from(_MAKERS) or "activations")

            def gone(_: object) -> None:
                entry, _ = self._alive.pop(key)
                self._died(entry)

            self._alive[key] = record, weakref.ref(storage, gone)
        return self._alive[key]

    def _born(self, num_bytes: int, kind: Kind) -> _Storage:
        record = _Storage(num_bytes, kind, self._tick(num_bytes))
        self._storages.append(record)
        return record

    def _died(self, record: _Storage) -> None:
        record.died = self._tick(-record.num_bytes)

    def _tick(self, num_bytes: int) -> int:
        self._now += 1
        self._num_bytes += num_bytes
        return self._now

    def _note_peak(self) -> None:
        peak = self._peaks.setdefault(self.phase, _Peak())
        if self._num_bytes > peak.num_bytes:
            peak.num_bytes, peak.at = self._num_bytes, self._now

    def _at(self, moment: int) -> dict[Kind, int]:
        found: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        for storage in self._storages:
            if storage.born <= moment and (storage.died is None or storage.died > moment):
                found[storage.kind] += storage.num_bytes
        return found

    def _watch_resizing(self) -> None:
        """Sharding empties and fills storages by `resize_`, which is no operator."""
        self._resize = original = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            result = original(storage, size)
            if (entry := self._alive.get(storage._cdata)) is not None:
                record, reference = entry
                self._died(record)
                self._alive[storage._cdata] = self._born(storage.nbytes(), record.kind), reference
                self._note_peak()
            return result

        torch.UntypedStorage.resize_ = resize  # pyright: ignore[reportAttributeAccessIssue]


def _called_from(places: Mapping[str, Value]) -> Value | None:
    """What `places` says of the nearest function on the stack whose file it knows, by a part of the file's name."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        for part, value in places.items():
            if part in name:
                return value
        frame = frame.f_back
    return None
