"""The record of a prepared folder: what is in it, where it came from, how to know it is unharmed.

folder/manifest.json      this record, written last
folder/tokenizer.json     the tokenizer, special tokens included
folder/train-00000.bin    tokens, little-endian unsigned integers, one document after the other
folder/train.counts.npy   int64 [V], how often each token occurs
folder/validation...      the same for held-out documents
"""

import hashlib
import json
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from noiselaw.files import read_json, write_json
from noiselaw.specbase import PlainName, Spec
from noiselaw.specs import parse_spec

FORMAT = "noiselaw-tokens-1"
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"

SplitName = Literal["train", "validation"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)


class FileRecord(Spec):
    name: PlainName
    sha256: str


class ShardRecord(FileRecord):
    num_tokens: int = Field(gt=0)


class SplitRecord(Spec):
    num_tokens: int = Field(gt=0)
    """One end-of-text token per document included."""
    num_documents: int = Field(gt=0)
    num_bytes: int = Field(gt=0)
    """UTF-8 bytes of the documents' text."""
    counts: FileRecord
    shards: tuple[ShardRecord, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _shards_add_up(self) -> Self:
        total = sum(shard.num_tokens for shard in self.shards)
        if total != self.num_tokens:
            raise ValueError(f"num_tokens is {self.num_tokens} but the shards hold {total}")
        return self


class Request(Spec):
    """What was asked for; the same request on a finished folder is already answered."""

    sources: tuple[str, ...]
    source_files: int
    source_bytes: int
    """Size of the source files on disk."""
    tokenizer: str
    """bpe:SIZE, or the SHA-256 of the tokenizer file that was given."""
    validation_fraction: float
    text_column: str
    separator: str | None
    tokens_column: str | None = None
    """Where the sources held token ids in place of text."""
    shard_tokens: int


class Manifest(Spec):
    format: Literal["noiselaw-tokens-1"]
    noiselaw_version: str
    request: Request
    dtype: Literal["<u2", "<u4"]
    vocab_size: int = Field(gt=0, le=2**32)
    end_of_text_id: int
    mask_id: int
    empty_id: int
    tokenizer: FileRecord
    num_skipped_documents: int
    """Documents left out: blank, or files without UTF-8 text."""
    splits: dict[SplitName, SplitRecord]

    @field_validator("splits")
    @classmethod
    def _both_splits(cls, splits: dict[SplitName, SplitRecord]) -> dict[SplitName, SplitRecord]:
        if set(splits) != set(SPLIT_NAMES):
            raise ValueError(f"must be {' and '.join(SPLIT_NAMES)}")
        return splits

    @model_validator(mode="after")
    def _ids_in_vocabulary(self) -> Self:
        for name in ("end_of_text_id", "mask_id", "empty_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is outside the vocabulary of {self.vocab_size}")
        return self

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything a model can notice: tokens, their meaning, their split."""
        content = self.model_dump(mode="json", exclude={"noiselaw_version", "request", "num_skipped_documents"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def token_dtype(vocab_size: int) -> Literal["<u2", "<u4"]:
    """The smallest storage type that holds every id."""
    return "<u2" if vocab_size <= np.iinfo(np.uint16).max + 1 else "<u4"


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest in `folder`.

    Raises:
        ValueError: no folder, no manifest, a manifest of another format, or one with wrong fields.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(f"{folder}: no prepared data here ({MANIFEST_NAME} is missing); run `noiselaw data prepare`")
    values = read_json(path)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path}: format is {found!r}, this version of noiselaw reads {FORMAT!r}; "
            f"prepare the data again with this version"
        )
    return parse_spec(Manifest, values, str(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))
