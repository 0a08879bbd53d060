"""Which files text comes from: files and folders on this machine or at any fsspec address, and the standard library.

Nothing is read here but lists of files.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec

BUILTIN_PYTHON = "python"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIX = ".parquet"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

PYTHON_CODE_SUFFIX = ".py"
PYTHON_DOCUMENT_SUFFIXES = (".rst", ".md", ".txt")
PYTHON_EXCLUDED = ("site-packages", "dist-packages", "__pycache__", "config-", "_sysconfigdata")
"""Beginnings of names in its folder that are not part of the library, or differ from machine to machine."""

VERSION_KEYS = ("ETag", "etag", "checksum", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems tell that a file's content is another one."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    address: str
    """A path on this machine, or what fsspec opens, such as s3://bucket/file."""
    size: int
    """Bytes as stored; 0 where the place does not tell."""
    strict: bool
    """Named by the user: text that is not UTF-8 is an error, not a file to leave out."""
    version: str = ""
    """Another one when the content is another one, as far as the place tells."""

    @property
    def is_remote(self) -> bool:
        return is_address(self.address)

    @property
    def format_suffix(self) -> str:
        """The suffix that tells the format: `.jsonl` of `a.jsonl.gz`."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.address).suffixes]
        if suffixes and suffixes[-1] in COMPRESSIONS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def codec(self) -> str | None:
        """The compression of the whole file, in pyarrow's words."""
        return COMPRESSIONS.get(PurePosixPath(self.address).suffix.lower())


def is_address(source: str) -> bool:
    """Whether `source` is an fsspec address and not a path."""
    return "://" in source


def find_files(sources: Sequence[str]) -> list[SourceFile]:
    """The files behind `sources`: files or folders (searched recursively), or `python`. Order is fixed.

    Raises:
        ValueError: no source, a place that does not exist, or nothing to read in one of them.
        ImportError: an address whose file system is not installed.
    """
    if not sources:
        raise ValueError(f"no source given; name files or folders, or {BUILTIN_PYTHON!r} for the standard library")
    return [file for source in sources for file in _files_of(source)]


@contextmanager
def opened(file: SourceFile) -> Iterator[BinaryIO]:
    """The bytes of a file as they are stored. Raises ValueError where they cannot be read."""
    try:
        with fsspec.open(file.address, "rb") if file.is_remote else Path(file.address).open("rb") as stream:
            yield stream  # pyright: ignore[reportReturnType]
    except (ValueError, ImportError):
        raise
    except Exception as error:
        # Every remote file system has errors of its own.
        if isinstance(error, OSError) or file.is_remote:
            raise damaged(file.address, error) from None
        raise


def damaged(address: str, error: Exception) -> ValueError:
    return ValueError(f"{address}: cannot be read to its end ({error}); restore the file or leave it out")


def _files_of(source: str) -> list[SourceFile]:
    if is_address(source):
        return _remote_files(source)
    if source == BUILTIN_PYTHON:
        root = Path(sysconfig.get_path("stdlib"))
        paths = _without_copies(
            path for path in _walk(root, PYTHON_EXCLUDED) if _is_library_text(path.relative_to(root))
        )
    else:
        root = Path(source).expanduser()
        if root.is_file():
            return [_local_file(root, strict=True)]
        if not root.is_dir():
            raise ValueError(f"source {source!r}: no such file or folder; give a path, or {BUILTIN_PYTHON!r}")
        paths = _walk(root)
    if not paths:
        raise ValueError(f"source {source!r}: no files with text in {root}; choose a folder that holds some")
    return [_local_file(path, strict=False) for path in paths]


def _local_file(path: Path, *, strict: bool) -> SourceFile:
    facts = path.stat()
    return SourceFile(str(path), facts.st_size, strict, str(facts.st_mtime_ns))


def _remote_files(source: str) -> list[SourceFile]:
    """As `_files_of`, for an address of fsspec."""
    try:
        system, root = fsspec.core.url_to_fs(source)
        # On the web every page looks like a file: there a folder is what ends with a slash.
        if not source.endswith("/") and system.isfile(root):
            return [_remote_file(system, root, system.info(root), strict=True)]
        found = system.find(root, detail=True) if system.isdir(root) else {}
    except (OSError, ValueError) as error:
        raise ValueError(f"source {source!r}: cannot be listed ({error}); check the address") from None
    below = {tuple(path.removeprefix(root).strip("/").split("/")): facts for path, facts in found.items()}
    shown = {parts: facts for parts, facts in below.items() if not any(part.startswith(".") for part in parts)}
    if not shown:
        raise ValueError(f"source {source!r}: no files there; check the address")
    return [_remote_file(system, facts["name"], facts, strict=False) for _, facts in sorted(shown.items())]


def _remote_file(system: Any, path: str, facts: dict[str, Any], *, strict: bool) -> SourceFile:
    size = facts.get("size")
    size = system.size(path) if size is None else size
    version = next((str(facts[key]) for key in VERSION_KEYS if facts.get(key)), "")
    return SourceFile(system.unstrip_protocol(path), int(size or 0), strict, version)


def _walk(root: Path, excluded: tuple[str, ...] = ()) -> list[Path]:
    """All files below `root`, sorted by their path's parts, without those of a hidden or `excluded` name or folder."""
    skipped = (".", *excluded)
    paths = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(skipped)]
        paths += [Path(folder, name) for name in names if not name.startswith(skipped)]
    return sorted(path for path in paths if path.is_file())


def _is_library_text(path: Path) -> bool:
    """Whether a file of the standard library is source code, or a document that is not data of its tests."""
    return path.suffix == PYTHON_CODE_SUFFIX or (
        path.suffix in PYTHON_DOCUMENT_SUFFIXES and not {"test", "tests"} & set(path.parts)
    )


def _without_copies(paths: Iterable[Path]) -> list[Path]:
    """The first file of each content."""
    by_content: dict[bytes, Path] = {}
    for path in paths:
        by_content.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    return list(by_content.values())
