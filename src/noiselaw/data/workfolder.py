"""The hidden folder beside an output where it grows, and what of it outlives a kill.

.OUT.partial/tokenizer-*.json    the tokenizer
.OUT.partial/parts/              tokens of each part, one file per split, and a record once both are whole
.OUT.partial/records/            a record and the token counts of each finished shard
.OUT.partial/finished/           what becomes OUT, at once, by a rename

Names and keys say what went in, so whatever a later request can use is found and the rest is removed.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from noiselaw.files import FolderInUseError, only_writer, sync_folder, unwritable


@dataclass(frozen=True, slots=True)
class WorkFolder:
    root: Path

    @property
    def parts(self) -> Path:
        return self.root / "parts"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def finished(self) -> Path:
        return self.root / "finished"

    def keep_only(self, folder: Path, names: Collection[str]) -> None:
        """Remove what lies in `folder` of other requests or half-written: all but `names`, with any suffix."""
        for path in folder.iterdir():
            if path.name.split(".")[0] not in names or path.suffix == ".tmp":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def forget_parts(self) -> None:
        """Leave nothing that is worth keeping."""
        shutil.rmtree(self.parts)


@contextmanager
def work_folder(out: Path) -> Iterator[WorkFolder]:
    """Where `out` grows; when all went well its `finished` takes the place of `out` and the rest vanishes.

    Otherwise finished parts are kept for the next attempt; a folder without any vanishes. A lock keeps two living
    processes apart. Raises OSError as the system reports it, with `out` named.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = WorkFolder(_place(out))
    work.root.mkdir(exist_ok=True)
    with only_writer(work.root):
        try:
            for folder in (work.parts, work.records, work.finished):
                folder.mkdir(exist_ok=True)
            yield work
            sync_folder(work.finished)
            work.finished.rename(out)
            sync_folder(out.parent)
        except BaseException as error:
            if not any(work.parts.glob("*.json")):
                shutil.rmtree(work.root, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, ChildProcessError):
                raise unwritable(out, error) from error
            raise
        shutil.rmtree(work.root)


def remove_work(out: Path) -> None:
    """Remove what a kill left beside a finished `out`."""
    root = _place(out.resolve())
    if not root.exists():
        return
    try:
        with only_writer(root):
            shutil.rmtree(root)
    except FolderInUseError:
        return


def _place(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")
