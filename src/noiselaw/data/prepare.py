"""Text to token shards: documents are encoded, each followed by end-of-text, and split into train and validation.

Sources are cut into parts, parts are encoded by any number of workers, and the tokens of all parts laid end to end are
cut into shards. The finished folder appears at once, by a rename; what a kill interrupts goes on where it stood. The
same sources and arguments give the same bytes, whatever the workers and interruptions.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from noiselaw.data.executors import EXECUTORS, ExecutorName
from noiselaw.data.manifest import MANIFEST_NAME, Request, read_manifest
from noiselaw.data.parts import cut_parts
from noiselaw.data.preparation import Observer, Preparation, fill
from noiselaw.data.readers import ReadOptions
from noiselaw.data.shards import TokenData, open_tokens
from noiselaw.data.sources import PARQUET_SUFFIX, SourceFile, find_files
from noiselaw.data.tokenizer import bpe_size, tokenizer_file
from noiselaw.data.workfolder import remove_work, work_folder


def prepare(
    sources: Sequence[str],
    out: Path,
    *,
    tokenizer: str,
    validation_fraction: float = 0.05,
    text_column: str = "text",
    separator: str | None = None,
    tokens_column: str | None = None,
    shard_tokens: int = 2**26,
    workers: int | None = 1,
    executor: ExecutorName = "local",
    observer: Observer | None = None,
) -> TokenData:
    """Turn `sources` into the prepared folder `out`, or open `out` where it already answers the same request.

    Args:
        sources: files or folders, on this machine or at fsspec addresses, or `python` for the standard library (see
            `sources.find_files`).
        out: folder to create; must not exist or be empty.
        tokenizer: a tokenizer.json or its folder, or bpe:SIZE to train one on the training documents (a fixed sample of
            8 million characters where they are longer).
        validation_fraction: expected share of documents held out.
        text_column: Parquet column or JSON key that holds the text.
        separator: where to cut text files into documents; None makes each file one document.
        tokens_column: Parquet column that holds lists of token ids, made with `tokenizer`, in place of text.
        shard_tokens: most tokens in one file.
        workers: processes that encode, or Ray tasks at a time; None takes one for each core, 1 works in this process.
        executor: who runs them.
        observer: told about progress.

    Raises:
        ValueError: unreadable or empty sources, a split without documents, an `out` that holds something else.
        OSError: `out` cannot be written, for example because the disk is full, or a worker died; finished parts are
            kept in a hidden folder beside `out`, and the same request continues with them.
    """
    options = ReadOptions(text_column, separator, tokens_column)
    _check(tokenizer, validation_fraction, options, shard_tokens, workers)
    size_or_file = bpe_size(tokenizer) or tokenizer_file(tokenizer)
    files = _files(sources, out, options)
    request = Request(
        sources=tuple(sources),
        source_files=len(files),
        source_bytes=sum(file.size for file in files),
        tokenizer=_tokenizer_name(size_or_file),
        validation_fraction=validation_fraction,
        text_column=text_column,
        separator=separator,
        tokens_column=tokens_column,
        shard_tokens=shard_tokens,
    )
    if _is_answered(out, request):
        remove_work(out)
        return open_tokens(out)
    parts = cut_parts(files, options)
    with work_folder(out) as work, EXECUTORS[executor](workers, len(parts)) as run:
        fill(Preparation(request, parts, options, size_or_file, work, run, observer))
    return open_tokens(out)


def _check(
    tokenizer: str, validation_fraction: float, options: ReadOptions, shard_tokens: int, workers: int | None
) -> None:
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation fraction {validation_fraction} must lie between 0 and 1, for example 0.05")
    for name, value, example in (("shard_tokens", shard_tokens, 2**26), ("workers", workers, 2)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value} must be at least 1, for example {example}")
    if options.tokens_column is None:
        return
    if options != ReadOptions(tokens_column=options.tokens_column):
        raise ValueError("with --tokens-column there is no text: leave --text-column and --separator out")
    if bpe_size(tokenizer) is not None:
        raise ValueError(
            f"tokenizer {tokenizer!r}: none can be trained on token ids; give the tokenizer.json they were made with"
        )


def _tokenizer_name(tokenizer: int | Path) -> str:
    """Under which the request remembers it."""
    return f"bpe:{tokenizer}" if isinstance(tokenizer, int) else hashlib.sha256(tokenizer.read_bytes()).hexdigest()


def _files(sources: Sequence[str], out: Path, options: ReadOptions) -> list[SourceFile]:
    """The files to read: not what lies in `out`; where token ids are wanted, Parquet only."""
    inside = out.resolve()
    found = find_files(sources)
    files = [file for file in found if file.is_remote or not Path(file.address).resolve().is_relative_to(inside)]
    if options.tokens_column is None:
        return files
    other = next((file for file in files if file.strict and file.format_suffix != PARQUET_SUFFIX), None)
    files = [file for file in files if file.format_suffix == PARQUET_SUFFIX]
    if other is not None or not files:
        place = ", ".join(sources) if other is None else other.address
        raise ValueError(f"{place}: no Parquet, which --tokens-column needs; name {PARQUET_SUFFIX} files or folders")
    return files


def _is_answered(out: Path, request: Request) -> bool:
    """Whether `out` already holds what `request` asks for. Raises ValueError where it holds something else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise ValueError(f"output {out} is a file; choose a folder that does not exist yet")
    if not any(out.iterdir()):
        return False
    if not (out / MANIFEST_NAME).is_file():
        raise ValueError(f"output folder {out} holds other files; choose one that is empty or does not exist yet")
    found = read_manifest(out).request
    for name in Request.model_fields:
        before, now = getattr(found, name), getattr(request, name)
        if before != now:
            raise ValueError(
                f"output folder {out} holds data prepared with {name} = {before!r}, not {now!r}; "
                f"choose another folder or remove this one"
            )
    return True
