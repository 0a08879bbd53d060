"""Text to token shards: documents are encoded, each followed by end-of-text, and split into train and validation.

The split goes by document: a hash of a document's text decides, so the same text always falls on the same side and
copies never straddle the two. The finished folder appears at once, by a rename: a kill leaves either nothing or
everything. The same sources and arguments give the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noiselaw import __version__
from noiselaw.data.manifest import (
    FORMAT,
    MANIFEST_NAME,
    SPLIT_NAMES,
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    Request,
    SplitName,
    SplitRecord,
    read_manifest,
    token_dtype,
    write_manifest,
)
from noiselaw.data.shards import TokenData, open_tokens
from noiselaw.data.sources import Document, ReadOptions, SourceFile, find_files, read_documents
from noiselaw.data.tokenizer import TextTokenizer, bpe_size, load_tokenizer, sample_texts, tokenizer_file, train_bpe
from noiselaw.data.writer import SplitWriter
from noiselaw.files import new_folder, write_text

BPE_SAMPLE_CHARS = 8_000_000
"""A tokenizer is trained on at most this much text: more changes the merges little and takes longer."""
BATCH_CHARS = 2_000_000
"""Text encoded at one time."""

Observer = Callable[[str, int, int | None], None]
"""Called as work proceeds: the stage, bytes of source files done, bytes in all (None where work has no measure)."""


def prepare(
    sources: Sequence[str],
    out: Path,
    *,
    tokenizer: str,
    validation_fraction: float = 0.05,
    text_column: str = "text",
    separator: str | None = None,
    shard_tokens: int = 2**26,
    observer: Observer | None = None,
) -> TokenData:
    """Turn `sources` into the prepared folder `out`, or open `out` where it already answers the same request.

    Args:
        sources: files, folders, or `python` for the standard library (see `sources.find_files`).
        out: folder to create; must not exist or be empty.
        tokenizer: a tokenizer.json or its folder, or bpe:SIZE to train one on the training documents (a fixed sample of
            8 million characters where they are longer).
        validation_fraction: expected share of documents held out.
        text_column: Parquet column or JSON key that holds the text.
        separator: where to cut text files into documents; None makes each file one document.
        shard_tokens: most tokens in one file.
        observer: told about progress.

    Raises:
        ValueError: unreadable or empty sources, a split without documents, an `out` that holds something else.
        OSError: `out` cannot be written, for example because the disk is full; nothing is left behind.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation fraction {validation_fraction} must lie between 0 and 1, for example 0.05")
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens {shard_tokens} must be at least 1, for example {2**26}")
    load, tokenizer_name = _tokenizer_loader(tokenizer)
    files = [file for file in find_files(sources) if not file.path.resolve().is_relative_to(out.resolve())]
    request = Request(
        sources=tuple(sources),
        source_files=len(files),
        source_bytes=sum(file.size for file in files),
        tokenizer=tokenizer_name,
        validation_fraction=validation_fraction,
        text_column=text_column,
        separator=separator,
        shard_tokens=shard_tokens,
    )
    if not _is_answered(out, request):
        corpus = Corpus(files, ReadOptions(text_column, separator), validation_fraction, observer)
        with new_folder(out) as folder:
            _write_folder(folder, corpus, load(corpus), request)
    return open_tokens(out)


@dataclass(frozen=True, slots=True)
class SplitDocument:
    """A document that has text, and the side it falls on."""

    name: str
    text: str
    key: bytes
    """Hash of the text."""
    split: SplitName


@dataclass(frozen=True, slots=True)
class Corpus:
    """All documents; can be read more than once and tells its observer how far it is."""

    files: list[SourceFile]
    options: ReadOptions
    validation_fraction: float
    observer: Observer | None

    def documents(self, stage: str) -> Iterator[SplitDocument | None]:
        """Every document in order; None stands for one without text."""
        done, total = 0, sum(file.size for file in self.files)
        any_text = False
        for document in read_documents(self.files, self.options):
            has_text = bool(document.text.strip())
            any_text |= has_text
            yield self._with_split(document) if has_text else None
            done += document.disk_bytes
            if self.observer is not None:
                self.observer(stage, done, total)
        if not any_text:
            raise ValueError(f"the sources hold no text ({len(self.files)} files, {total:,} bytes); name others")

    def _with_split(self, document: Document) -> SplitDocument:
        key = hashlib.blake2b(document.text.encode(), digest_size=8).digest()
        held_out = int.from_bytes(key) < self.validation_fraction * 2**64
        return SplitDocument(document.name, document.text, key, "validation" if held_out else "train")


def _tokenizer_loader(tokenizer: str) -> tuple[Callable[[Corpus], TextTokenizer], str]:
    """How to get the tokenizer once it is needed, and the name under which the request remembers it."""
    size = bpe_size(tokenizer)
    if size is not None:
        return lambda corpus: _train_tokenizer(corpus, size), tokenizer
    file = tokenizer_file(tokenizer)
    return lambda _: load_tokenizer(file), hashlib.sha256(file.read_bytes()).hexdigest()


def _train_tokenizer(corpus: Corpus, vocab_size: int) -> TextTokenizer:
    documents = corpus.documents("reading")
    training = ((document.key, document.text) for document in documents if document and document.split == "train")
    texts = sample_texts(training, BPE_SAMPLE_CHARS)
    if corpus.observer is not None:
        corpus.observer("training the tokenizer", 0, None)
    return train_bpe(texts, vocab_size)


def _write_folder(folder: Path, corpus: Corpus, tokenizer: TextTokenizer, request: Request) -> None:
    """Fill `folder`; the manifest comes last."""
    vocab_size = tokenizer.vocab_size
    num_skipped = 0
    with ExitStack() as stack:
        writers: dict[SplitName, SplitWriter] = {
            name: stack.enter_context(SplitWriter(folder, name, vocab_size, request.shard_tokens))
            for name in SPLIT_NAMES
        }
        for batch in _batches(corpus.documents("encoding")):
            documents = [document for document in batch if document is not None]
            num_skipped += len(batch) - len(documents)
            _write_batch(writers, documents, tokenizer)
        splits: dict[SplitName, SplitRecord] = {name: _finished(writer, name) for name, writer in writers.items()}
    text = tokenizer.to_json()
    write_text(folder / TOKENIZER_NAME, text)
    manifest = Manifest(
        format=FORMAT,
        noiselaw_version=__version__,
        request=request,
        dtype=token_dtype(vocab_size),
        vocab_size=vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        mask_id=tokenizer.mask_id,
        empty_id=tokenizer.empty_id,
        tokenizer=FileRecord(name=TOKENIZER_NAME, sha256=hashlib.sha256(text.encode()).hexdigest()),
        num_skipped_documents=num_skipped,
        splits=splits,
    )
    write_manifest(folder, manifest)


def _batches(documents: Iterable[SplitDocument | None]) -> Iterator[list[SplitDocument | None]]:
    batch, num_chars = [], 0
    for document in documents:
        batch.append(document)
        num_chars += len(document.text) if document else 0
        if num_chars >= BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    yield batch


def _write_batch(
    writers: dict[SplitName, SplitWriter], documents: list[SplitDocument], tokenizer: TextTokenizer
) -> None:
    encoded = tokenizer.encode([document.text for document in documents])
    for document, ids in zip(documents, encoded, strict=True):
        if (ids == tokenizer.mask_id).any():
            raise ValueError(
                f"{document.name}: its text encodes to the mask token {tokenizer.mask_id}, which noise needs for "
                f"itself; leave the document out or use another tokenizer"
            )
    end = np.array([tokenizer.end_of_text_id])
    for name, writer in writers.items():
        here = [index for index, document in enumerate(documents) if document.split == name]
        if here:
            ids = np.concatenate([part for index in here for part in (encoded[index], end)])
            writer.add(ids, len(here), sum(len(documents[index].text.encode()) for index in here))


def _finished(writer: SplitWriter, name: SplitName) -> SplitRecord:
    record = writer.finish()
    if record is None:
        raise ValueError(
            f"the {name} split got no document; give more documents, change --validation-fraction, "
            f"or cut text files into documents with --separator"
        )
    return record


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
