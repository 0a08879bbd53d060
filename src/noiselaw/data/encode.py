"""One worker's work on a part: its documents to tokens, each followed by end-of-text, split into train and validation.

The split goes by document: a hash of what it holds decides, so the same text always falls on the same side and copies
never straddle the two.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from noiselaw.data.manifest import SPLIT_NAMES, SplitName, token_dtype
from noiselaw.data.parts import Part
from noiselaw.data.readers import Document, Place, ReadOptions, read_documents
from noiselaw.data.tokenizer import TextTokenizer, load_tokenizer, sample_texts
from noiselaw.files import read_json, sync_folder, write_json
from noiselaw.specs import Spec, parse_spec

BATCH_CHARS = 2_000_000
"""Text encoded at one time."""
BATCH_TOKENS = 2**21
"""Token ids copied at one time, where the source holds these."""


class SplitCounts(Spec):
    num_tokens: int = 0
    """One end-of-text token per document included."""
    num_documents: int = 0
    num_bytes: int = 0
    """UTF-8 bytes of the documents' text; 0 where the source holds tokens."""

    def __add__(self, other: "SplitCounts") -> "SplitCounts":
        return SplitCounts(**{name: value + getattr(other, name) for name, value in self})


class PartRecord(Spec):
    """What became of a part."""

    splits: dict[SplitName, SplitCounts]
    num_skipped: int
    """Documents without text."""


@dataclass(frozen=True, slots=True)
class SplitDocument:
    """A document that is not blank, and the side it falls on."""

    place: Place
    text: str
    tokens: np.ndarray | None
    key: bytes
    """Hash of what it holds."""
    split: SplitName


def split_documents(part: Part, options: ReadOptions, validation_fraction: float) -> Iterator[SplitDocument | None]:
    """Every document of the part in order; None stands for one without text."""
    for document in read_documents(part.pieces, options):
        yield _with_split(document, validation_fraction)


def _with_split(document: Document, validation_fraction: float) -> SplitDocument | None:
    if document.tokens is not None and len(document.tokens):
        content = document.tokens.astype("<u4", copy=False).tobytes()
    elif document.text.strip():
        content = document.text.encode()
    else:
        return None
    key = hashlib.blake2b(content, digest_size=8).digest()
    held_out = int.from_bytes(key) < validation_fraction * 2**64
    return SplitDocument(document.place, document.text, document.tokens, key, "validation" if held_out else "train")


@dataclass(frozen=True, slots=True)
class SampleJob:
    """Read a part for the text a tokenizer is trained on."""

    part: Part
    options: ReadOptions
    validation_fraction: float
    max_chars: int
    below: bytes | None = None
    """Texts with a key from here on are known not to fit into the sample of the whole."""


def sample_part(job: SampleJob) -> tuple[list[tuple[bytes, str]], bool]:
    """Keys and texts of the part's training documents that a sample of the whole may hold; whether it has any text."""
    has_text = False

    def training() -> Iterator[tuple[bytes, str]]:
        nonlocal has_text
        for document in split_documents(job.part, job.options, job.validation_fraction):
            has_text |= document is not None
            if document is None or document.split != "train":
                continue
            if job.below is None or document.key < job.below:
                yield document.key, document.text

    return sample_texts(training(), job.max_chars), has_text


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Turn a part into files of tokens, one per split, and a record of them, written last."""

    part: Part
    options: ReadOptions
    validation_fraction: float
    tokenizer: Path
    folder: Path
    name: str
    """Of the files."""

    @property
    def record_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def tokens_path(self, split: SplitName) -> Path:
        return self.folder / f"{self.name}.{split}.bin"

    def record(self) -> PartRecord | None:
        """The record of the part where it is done."""
        if not self.record_path.exists():
            return None
        return parse_spec(PartRecord, read_json(self.record_path), str(self.record_path))


def encode_part(job: EncodeJob) -> PartRecord:
    """Do the job. Raises ValueError as `read_documents`, or for a document that holds the mask token."""
    tokenizer = _tokenizer(job.tokenizer)
    dtype = np.dtype(token_dtype(tokenizer.vocab_size))
    counts: dict[SplitName, SplitCounts] = {name: SplitCounts() for name in SPLIT_NAMES}
    num_skipped = 0
    with ExitStack() as stack:
        temporary: dict[SplitName, Path] = {
            name: job.tokens_path(name).with_suffix(f".{os.getpid()}.tmp") for name in SPLIT_NAMES
        }
        streams = {name: stack.enter_context(path.open("wb")) for name, path in temporary.items()}
        for path in temporary.values():
            stack.callback(path.unlink, missing_ok=True)
        for batch in _batches(split_documents(job.part, job.options, job.validation_fraction)):
            documents = [document for document in batch if document is not None]
            num_skipped += len(batch) - len(documents)
            for name, ids, added in _encoded(documents, tokenizer):
                streams[name].write(ids.astype(dtype).tobytes())
                counts[name] += added
        for name in SPLIT_NAMES:
            stream = streams[name]
            stream.flush()
            os.fsync(stream.fileno())
            temporary[name].replace(job.tokens_path(name))
    sync_folder(job.folder)
    record = PartRecord(splits=counts, num_skipped=num_skipped)
    write_json(job.record_path, record.model_dump(mode="json"))
    return record


@lru_cache(maxsize=1)
def _tokenizer(path: Path) -> TextTokenizer:
    return load_tokenizer(path)


def _batches(documents: Iterable[SplitDocument | None]) -> Iterator[list[SplitDocument | None]]:
    batch, share = [], 0.0
    for document in documents:
        batch.append(document)
        if document is not None:
            tokens = document.tokens
            share += len(document.text) / BATCH_CHARS if tokens is None else len(tokens) / BATCH_TOKENS
        if share >= 1:
            yield batch
            batch, share = [], 0.0
    yield batch


def _encoded(
    documents: list[SplitDocument], tokenizer: TextTokenizer
) -> Iterator[tuple[SplitName, np.ndarray, SplitCounts]]:
    """The tokens [length] of each split's documents laid end to end, and what they add to its counts."""
    texts = iter(tokenizer.encode([document.text for document in documents if document.tokens is None]))
    encoded = [next(texts) if document.tokens is None else document.tokens for document in documents]
    for document, ids in zip(documents, encoded, strict=True):
        if (ids == tokenizer.mask_id).any():
            found = "its text encodes to" if document.tokens is None else "holds"
            raise ValueError(
                f"{document.place}: {found} the mask token {tokenizer.mask_id}, which noise needs for itself; "
                f"leave the document out or use another tokenizer"
            )
    end = np.array([tokenizer.end_of_text_id], dtype=np.uint32)
    for name in SPLIT_NAMES:
        here = [index for index, document in enumerate(documents) if document.split == name]
        if here:
            ids = np.concatenate([part for index in here for part in _ended(documents[index], encoded[index], end)])
            num_bytes = sum(len(documents[index].text.encode()) for index in here)
            yield name, ids, SplitCounts(num_tokens=len(ids), num_documents=len(here), num_bytes=num_bytes)


def _ended(document: SplitDocument, ids: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, ...]:
    """Its tokens, followed by end-of-text unless the source's own tokens end with it."""
    has_end = document.tokens is not None and ids[-1] == end[0]
    return (ids,) if has_end else (ids, end)
