"""Writing files so that nothing on disk is ever half-written: write beside, fsync, rename; one writer a folder."""

import fcntl
import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


class FolderInUseError(ValueError):
    """A folder that another process is writing: names the folder and the remedy."""


@contextmanager
def only_writer(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Within the block no other process writes in `folder`, as far as it asks in this way.

    The lock is on the folder itself and ends with the process, also after kill -9. Raises FolderInUseError where
    another process still holds it after `wait_seconds`.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise FolderInUseError(
                    f"{folder}: another process is working in this folder; wait for it to end or choose another folder"
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unwritable(path: Path, error: OSError) -> OSError:
    """`error` again, with the path it struck and the remedy in its message; as it is where it is no disk's."""
    if error.errno is None:  # a connection that was lost, for example
        return error
    reason = error.strerror or str(error)
    return OSError(error.errno, f"cannot write {path}: {reason}; free space or choose another folder")


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left of files and folders they were writing into `folder`. For its only writer."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, then rename it over `path`.

    A crash, a kill or a full disk leaves the old content of `path` untouched. Raises OSError as the system reports it,
    with the path named; the temporary file is removed, and with it what a killed process left of its own.
    """
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            _locked(stream.fileno())
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # a failing disk may not even delete
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_abandoned(path: Path) -> None:
    """Delete temporary files for `path` that no living process writes: those hold a lock."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), temporary.open("rb") as stream:
            if _locked(stream.fileno()):
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. NaN and infinity are refused (ValueError): they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ValueError naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged or not JSON ({error}); delete it or restore it") from None


def read_record(path: Path, *names: str) -> dict[str, Any]:
    """Read a JSON object that has values by these names. Raises ValueError naming the file and what it lacks."""
    record = read_json(path)
    lacking = [name for name in names if not isinstance(record, dict) or name not in record]
    if lacking or not isinstance(record, dict):
        raise ValueError(f"{path}: damaged (lacks {', '.join(lacking) or 'an object'}); delete it or restore it")
    return record


def make_folder(folder: Path) -> None:
    """Create `folder` and those above it where they are missing. Raises OSError naming it and the remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and vanishes otherwise.

    What a killed process left of it is cleared first; a lock keeps two living processes apart.
    """
    out = out.resolve()
    temporary = out.with_name(f".{out.name}.partial")
    make_folder(temporary)
    with only_writer(temporary):
        try:
            for leftover in temporary.iterdir():
                leftover.unlink()
            yield temporary
            sync_folder(temporary)
            temporary.rename(out)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise unwritable(out, error) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def sync_folder(folder: Path) -> None:
    """Force a folder's list of files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
