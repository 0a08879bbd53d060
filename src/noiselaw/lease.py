"""One writer a folder, on any machine: a file in it that its holder keeps alive.

`noiselaw.files.only_writer` keeps the processes of one machine apart. On a network file system a kernel lock may end at
the machine (NFS without its lock service, Lustre without `-o flock`), so a study and its runs hold a lease instead:

* On one machine two processes never hold it; it ends with its holder at once, also after kill -9 (a kernel lock on the
  file). The same holds between machines where the file system carries locks.
* Between machines otherwise, a holder counts as alive while the number in its file moves: every BEAT_SECONDS. One that
  was silent for SILENT_SECONDS has lost the lease. Whoever waits measures the silence by a clock of its own that only
  goes forward; clocks of machines are never compared and may jump.
* A holder that was cut off (a suspended machine, a network that broke) finds the lease lost at its next beat and is
  told: by default its process ends there and then, before it writes anything else.

What the file system must do: create a link only where there is none, rename atomically, and show a file written on
one machine to a process on another that opens it within SILENT_SECONDS less two beats. Local disks, NFS, Lustre, GPFS,
CephFS do; object stores mounted as folders do not.
"""

import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from noiselaw.files import FolderInUseError

LEASE_NAME = ".lease"
BEAT_SECONDS = 5.0
SILENT_SECONDS = 40.0
LOOK_SECONDS = 0.1
EXIT_LOST = 76
"""Exit code of a process that lost its lease."""

State = Literal["free", "held", "unsure"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    boot: str
    """The running system: two with the same share their kernel's locks."""
    beat: int


class Look(NamedTuple):
    """What a look at a folder shows."""

    state: State
    """free: nobody holds it, or its holder is dead. unsure: its holder, on another machine, has not moved yet since it
    was first looked at, for less than SILENT_SECONDS.
    """
    holder: Holder | None
    """Dead or alive; None where there is none, or where its file says nothing readable."""


class LeaseWatch:
    """Looks at leases now and then, and remembers when each last moved."""

    def __init__(self) -> None:
        self._seen: dict[Path, _Seen] = {}

    def look(self, folder: Path) -> Look:
        path = folder / LEASE_NAME
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            self._seen.pop(path, None)
            return Look("free", None)
        try:
            holder, locked = _read(descriptor), _locked_elsewhere(descriptor)
        finally:
            os.close(descriptor)
        if locked:
            return Look("held", holder)
        if locked is not None and holder is not None and holder.boot == boot_id():
            return Look("free", holder)
        return Look(self._by_its_beat(path, holder), holder)

    def _by_its_beat(self, path: Path, holder: Holder | None) -> State:
        now, before = time.monotonic(), self._seen.get(path)
        if before is None or holder != before.holder:
            self._seen[path] = _Seen(holder, now, moved=before is not None)
            return "unsure" if before is None else "held"
        if now - before.since >= SILENT_SECONDS:
            return "free"
        return "held" if before.moved else "unsure"


class _Seen(NamedTuple):
    holder: Holder | None
    since: float
    moved: bool


def boot_id() -> str:
    """The running system: changes with every start of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _end_process(folder: Path) -> None:
    print(f"noiselaw: {folder}: another process took this folder over while this one was cut off", file=sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_LOST)


@contextmanager
def lease(folder: Path, wait_seconds: float = 0.0, on_lost: Callable[[Path], None] = _end_process) -> Iterator[None]:
    """Within the block no other process, here or on another machine, holds `folder`.

    Raises FolderInUseError, naming the holder, where one is alive after `wait_seconds`; it may take SILENT_SECONDS more
    to find that one on another machine is dead. `on_lost` is called from another thread when the lease is lost.
    """
    held = _Lease(folder)
    try:
        held.acquire(wait_seconds)
        stop = threading.Event()
        beating = threading.Thread(target=held.beat_until, args=(stop, on_lost), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
    finally:
        held.release()


class _Lease:
    """A lease of this process, while it is taken and held. The file stays open and locked all along."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / LEASE_NAME
        self._holder = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), boot_id(), beat=0)
        self._draft = folder / f"{LEASE_NAME}.{self._holder.token}.tmp"
        self._descriptor = -1

    def acquire(self, wait_seconds: float) -> None:
        watch, deadline = LeaseWatch(), time.monotonic() + wait_seconds
        while not self._put_in_place():
            state, holder = watch.look(self._folder)
            if state == "free":
                self._clear(holder)
            elif state == "held" and time.monotonic() >= deadline:
                raise FolderInUseError(_describe(self._folder, holder))
            else:
                time.sleep(LOOK_SECONDS)

    def _put_in_place(self) -> bool:
        """Whether the file, written and locked beside its place, could take it."""
        if self._descriptor < 0 or not self._draft.exists():
            self._write_draft()
        try:
            os.link(self._draft, self._path)
        except (FileExistsError, FileNotFoundError):  # the second: a holder swept up what looked like a leftover
            return False
        self._draft.unlink(missing_ok=True)
        return True

    def _write_draft(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        with suppress(OSError):  # a file system without locks: its beat alone speaks for it
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def _write(self) -> None:
        os.pwrite(self._descriptor, json.dumps(asdict(self._holder)).encode(), 0)
        os.fsync(self._descriptor)

    def _clear(self, dead: Holder | None) -> None:
        """Take the file of a dead holder away. One of several that try wins; a living one's is put back."""
        aside = self._draft.with_suffix(".dead.tmp")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if _token(_read_path(aside)) != _token(dead):
            with suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink(missing_ok=True)

    def beat_until(self, stop: threading.Event, on_lost: Callable[[Path], None]) -> None:
        good = time.monotonic()
        while not stop.wait(BEAT_SECONDS):
            try:
                self._holder = replace(self._holder, beat=self._holder.beat + 1)
                self._write()
                if self._is_ours():
                    good = time.monotonic()
                    continue
            except OSError:  # the file server may be away for a moment
                if time.monotonic() - good < SILENT_SECONDS / 2:
                    continue
            on_lost(self._folder)
            return

    def _is_ours(self) -> bool:
        found = _token(_read_path(self._path))
        if found is None:  # taken aside for a moment by one that will put it back, or gone
            time.sleep(LOOK_SECONDS)
            found = _token(_read_path(self._path))
        return found == self._holder.token

    def release(self) -> None:
        self._draft.unlink(missing_ok=True)
        if self._descriptor >= 0:
            if self._is_ours():
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)


def _locked_elsewhere(descriptor: int) -> bool | None:
    """Whether a living process locks this file; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _read_path(path: Path) -> Holder | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder | None:
    """The holder in an open lease file; None where it says nothing readable."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _token(holder: Holder | None) -> str | None:
    return None if holder is None else holder.token


def _describe(folder: Path, holder: Holder | None) -> str:
    who = "" if holder is None else f": process {holder.pid} on {holder.host}"
    return f"{folder}: another process is working in this folder{who}; wait for it to end or choose another folder"
