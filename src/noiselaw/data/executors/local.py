"""Jobs in processes on this machine."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


@contextmanager
def local_processes(workers: int) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """Run jobs in `workers` fresh processes; they end with this one, however it ends.

    Raises ChildProcessError where one of them dies.
    """
    context = get_context("spawn")  # a fork would copy the locks of running threads
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lifeline,))

    def run(function: Callable[[Any], Any], jobs: Iterable[Any], /) -> Iterator[tuple[Any, Any]]:
        waiting, running = iter(jobs), dict[Future[Any], Any]()
        while True:
            for job in islice(waiting, 2 * workers - len(running)):
                running[pool.submit(function, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()

    try:
        yield run
    except BrokenProcessPool:
        raise ChildProcessError(
            "a worker process died (killed, or out of memory); the same command continues with what is finished, "
            "and fewer --workers need less memory"
        ) from None
    finally:
        held.close()  # workers in the middle of a job need not finish it
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _start_worker(lifeline: Connection) -> None:
    # One core per worker: libraries must not start threads of their own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent sees to its workers
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _end_with_parent(lifeline: Connection) -> None:
    """Nothing is ever sent: the pipe wakes its readers when the parent closes it or dies."""
    lifeline.poll(None)
    os._exit(0)
