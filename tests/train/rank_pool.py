"""Real processes that stand in for the ranks of a run: started once, then any number of them form a gloo group."""

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

SLOW_IMPORTS = ["noiselaw.hub.export", "noiselaw.train.sharded", "torch.distributed.fsdp", "torch._dynamo"]


KILLED = "killed"
"""What a rank returns that died at its work."""


class RankPool:
    """`run(size, function, ...)` calls an importable function on `size` ranks and returns what each returned.

    Size 0 is one process without a process group.
    """

    def __init__(self, most: int, folder: Path) -> None:
        # The slow imports are made once, by the process that all ranks are forked from.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SLOW_IMPORTS)
        self.folder, self.calls, self.pipes, self.processes = folder, 0, [], []
        for rank in range(most):
            here, there = context.Pipe()
            self.processes.append(context.Process(target=_serve, args=(rank, there), daemon=True))
            self.processes[-1].start()
            self.pipes.append(here)

    def run(self, size: int, function, *arguments) -> list:
        self.calls += 1
        used = self.pipes[: max(1, size)]
        for pipe in used:
            pipe.send((size, str(self.folder / f"store-{self.calls}"), function, arguments))
        answers = [_answer(pipe) for pipe in used]
        for fault, _ in answers:
            if fault is not None:
                raise AssertionError(fault)
        return [result for _, result in answers]

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            if process.is_alive():
                pipe.send(None)
        for process in self.processes:
            process.join(20)


def _answer(pipe: Connection) -> tuple[str | None, object]:
    try:
        return pipe.recv()
    except EOFError:
        return None, KILLED


def _serve(rank: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        size, store, function, arguments = order
        try:
            if size:
                dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
            pipe.send((None, function(*arguments)))
        except BaseException:  # noqa: BLE001 (the test that asked has to see it)
            pipe.send((f"rank {rank}: {traceback.format_exc()}", None))
        finally:
            if size:
                dist.destroy_process_group()
