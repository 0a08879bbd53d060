"""The processes that share one checkpoint folder: who is who, and one answer for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """This process among those of its run. All ranks make the same calls in the same order."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    """A channel of their own on the CPU, so that a thread may use it while training talks on another; None for a
    process without a process group."""

    @staticmethod
    def of_this_run() -> "Peers":
        """The ranks of the default process group, or this process alone. All ranks call it together."""
        if not (dist.is_available() and dist.is_initialized()):
            return Peers()
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup)  # every rank is a member
        return Peers(dist.get_rank(), dist.get_world_size(), group)

    def together(self, action: Callable[[], T]) -> list[T]:
        """What `action` returned on every rank. Where it raised on any rank, all raise the lowest one's error."""
        if self.group is None:
            return [action()]
        value, fault = None, None
        try:
            value = action()
        except (OSError, ValueError) as error:
            fault = error
        except Exception as error:  # noqa: BLE001 (every rank has to learn of it, whatever it is)
            fault = RuntimeError(f"rank {self.rank}: {error!r}")
        outcomes: list[tuple[T, Exception | None]] = [None] * self.size  # pyright: ignore[reportAssignmentType]
        dist.all_gather_object(outcomes, (value, fault), group=self.group)
        for _, found in outcomes:
            if found is not None:
                raise found
        return [result for result, _ in outcomes]

    def first(self, action: Callable[[], T]) -> T:
        """What `action` returned on rank 0, the only one that does it. Where it raised, all raise."""
        outcomes = self.together(lambda: action() if self.rank == 0 else None)
        return outcomes[0]  # pyright: ignore[reportReturnType] (the others' are None, not rank 0's)
