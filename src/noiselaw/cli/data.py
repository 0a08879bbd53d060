"""`noiselaw data prepare SOURCE ... --tokenizer T --out DIR` and `noiselaw data inspect DIR`."""

import json as json_format
import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import numpy as np
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from noiselaw.data.executors import ExecutorName
from noiselaw.data.manifest import MANIFEST_NAME, SPLIT_NAMES
from noiselaw.data.prepare import prepare as prepare_folder
from noiselaw.data.shards import Split, TokenData, open_tokens
from noiselaw.data.tokenizer import load_tokenizer

PREVIEW_TOKENS = 65_536
PREVIEW_CHARS = 300


def prepare(
    source: Annotated[tuple[str, ...], tyro.conf.Positional],
    /,
    *,
    tokenizer: str,
    out: Path,
    validation_fraction: float = 0.05,
    text_column: str = "text",
    separator: str | None = None,
    tokens_column: str | None = None,
    workers: int | None = None,
    executor: ExecutorName = "local",
    quiet: bool = False,
) -> None:
    """Turn text into token shards, split into training and held-out documents.

    The same command on finished output checks it and does nothing; after an interruption it goes on with the parts that
    are finished. The result does not depend on either, nor on the number of workers.

    Args:
        source: Text files, JSON lines (.jsonl, .json), Parquet, each also .gz or .zst but for Parquet; folders of them;
            or `python`: the sources and documents of the Python standard library on this machine. Files and folders may
            lie at any address that fsspec opens, such as s3://bucket/folder (install its package, here s3fs).
        tokenizer: A tokenizer.json of Hugging Face, the folder that holds it, or bpe:SIZE to train a byte-level BPE on
            the training documents (on a fixed sample of 8 million characters where there are more).
        out: Folder to create.
        validation_fraction: Expected share of documents held out.
        text_column: Parquet column or JSON key that holds the text.
        separator: Cut text files into documents wherever this text occurs, for example "<|endoftext|>".
        tokens_column: Parquet column that holds lists of token ids in place of text. They must be those of TOKENIZER,
            and each row is a document.
        workers: Processes that encode; by default one for each core of this machine, or of the Ray cluster.
        executor: local: processes on this machine; ray: tasks of the cluster at RAY_ADDRESS, or of one started here
            (sources and OUT must lie on storage that all its nodes see).
        quiet: No progress bar.
    """
    finished_before = (out / MANIFEST_NAME).is_file()
    with SourceProgress(disable=quiet or not sys.stderr.isatty()) as progress:
        data = prepare_folder(
            source,
            out,
            tokenizer=tokenizer,
            validation_fraction=validation_fraction,
            text_column=text_column,
            separator=separator,
            tokens_column=tokens_column,
            workers=workers,
            executor=executor,
            observer=progress.update,
        )
    state = "already prepared, unharmed; nothing to do" if finished_before else "prepared"
    print(f"{out}: {state}")
    _show(data, Console(highlight=False))


def inspect(folder: Annotated[Path, tyro.conf.Positional], /, *, documents: int = 3, json: bool = False) -> None:
    """Show what a prepared folder holds: counts and the first documents, decoded.

    Every checksum is verified on the way.

    Args:
        folder: Folder written by `noiselaw data prepare`.
        documents: Documents of each split to show.
        json: Print JSON.
    """
    data = open_tokens(folder, verify=True)
    previews = {name: _first_documents(data, data.split(name), documents) for name in SPLIT_NAMES}
    if json:
        manifest = data.manifest.model_dump(mode="json")
        print(json_format.dumps({"fingerprint": data.fingerprint, **manifest, "documents": previews}, indent=1))
        return
    console = Console(highlight=False, markup=False)
    _show(data, console)
    for name, texts in previews.items():
        for number, text in enumerate(texts):
            console.rule(f"{name} document {number}")
            console.print(text)


class SourceProgress:
    """A bar over the bytes of the source files, one line per stage."""

    def __init__(self, disable: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=disable,
        )
        self._stage = ""
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        if self._task is None or stage != self._stage:
            if self._task is not None and self._progress.tasks[-1].total is None:
                self._progress.remove_task(self._task)  # it cannot be shown as complete
            self._stage = stage
            self._task = self._progress.add_task(stage, total=total_bytes)
        self._progress.update(self._task, completed=done_bytes)


def _show(data: TokenData, console: Console) -> None:
    """The facts of a prepared folder."""
    console.print(f"vocabulary {data.vocab_size:,}, fingerprint {data.fingerprint}")
    if data.manifest.num_skipped_documents:
        console.print(f"{data.manifest.num_skipped_documents:,} documents without text left out")
    console.print(_table(data))


def _table(data: TokenData) -> Table:
    table = Table()
    table.add_column("split")
    for header in ("documents", "tokens", "bytes", "bytes per token", "shards"):
        table.add_column(header, justify="right")
    for name in SPLIT_NAMES:
        split = data.split(name)
        counts = (f"{count:,}" for count in (split.num_documents, split.num_tokens, split.num_bytes))
        table.add_row(name, *counts, f"{split.bytes_per_token:.3f}", str(len(split.shards)))
    return table


def _first_documents(data: TokenData, split: Split, num_documents: int) -> list[str]:
    """The beginnings of the first documents, as text."""
    tokens = split.sequences(np.array([0]), min(split.num_tokens, PREVIEW_TOKENS))[0]
    ends = np.flatnonzero(tokens == data.end_of_text_id)
    parts = np.split(tokens, ends + 1)[:num_documents]
    tokenizer = load_tokenizer(data.tokenizer_path)
    return [tokenizer.decode(part)[:PREVIEW_CHARS] for part in parts if len(part)]
