"""Batches read ahead of the step that needs them, by one thread."""

import threading
import time
from collections.abc import Callable
from queue import Empty, Queue
from typing import Self

from torch import Tensor

ReadBatch = Callable[[int], Tensor]
"""The batch of a step: a pure function, so a thread may call it at any time."""


class Prefetch:
    """The batches of consecutive steps, up to `ahead` of them ready before they are asked for. A context manager.

    The thread starts with the first batch and starts anew where steps do not follow one another; there is none with 0
    ahead. Batches are those of `read`, bit for bit, and what `read` raises, `batch` raises.
    """

    def __init__(self, read: ReadBatch, ahead: int) -> None:
        self._read = read
        self._ahead = ahead
        self._thread: _Reader | None = None
        self.waited_seconds = 0.0
        """Time spent in `batch` so far: how long steps had to wait for data."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, step: int) -> Tensor:
        """The batch of `step`, int64 [B, T]."""
        started = time.perf_counter()
        try:
            return self._read(step) if self._ahead == 0 else self._next(step)
        finally:
            self.waited_seconds += time.perf_counter() - started

    def close(self) -> None:
        """Stop the thread; a later `batch` starts another."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _next(self, step: int) -> Tensor:
        if self._thread is None or self._thread.next_step != step:
            self.close()
            self._thread = _Reader(self._read, step, self._ahead)
        outcome = self._thread.take()
        if isinstance(outcome, BaseException):
            self.close()
            raise outcome
        return outcome


class _Reader:
    """A thread that reads the batches of `step`, `step` + 1, ... until it is stopped or one cannot be read."""

    def __init__(self, read: ReadBatch, step: int, ahead: int) -> None:
        self.next_step = step
        """What `take` returns next."""
        self._read = read
        self._queue: Queue[Tensor | BaseException] = Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(step,), name="prefetch", daemon=True)
        self._thread.start()

    def take(self) -> Tensor | BaseException:
        self.next_step += 1
        return self._queue.get()

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()  # the thread may wait for room
            except Empty:
                self._thread.join(0.01)

    def _run(self, step: int) -> None:
        while not self._stopped.is_set():
            try:
                outcome = self._read(step)
            except BaseException as error:  # noqa: BLE001 (raised again where the batch is asked for)
                outcome = error
            self._queue.put(outcome)
            if isinstance(outcome, BaseException):
                return
            step += 1
