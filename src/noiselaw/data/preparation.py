"""A request being answered: tokenizer, parts, shards, manifest, each kept in the work folder once it is whole."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from noiselaw import __version__
from noiselaw.data.encode import EncodeJob, PartRecord, SampleJob, SplitCounts, encode_part, sample_part
from noiselaw.data.executors import RunJobs
from noiselaw.data.manifest import (
    FORMAT,
    SPLIT_NAMES,
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    Request,
    SplitName,
    SplitRecord,
    token_dtype,
    write_manifest,
)
from noiselaw.data.parts import Part
from noiselaw.data.readers import ReadOptions
from noiselaw.data.shardfiles import ShardJob, cut_shards, finish_split, write_shard
from noiselaw.data.tokenizer import TextTokenizer, load_tokenizer, sample_texts, train_bpe
from noiselaw.data.workfolder import WorkFolder
from noiselaw.files import write_text

BPE_SAMPLE_CHARS = 8_000_000
"""A tokenizer is trained on at most this much text: more changes the merges little and takes longer."""
ENCODING_VERSION = 1
"""Raised when a part would be encoded to other bytes, so that parts of an older release are not mixed in."""

Observer = Callable[[str, int, int | None], None]
"""Called as work proceeds: the stage, bytes done, bytes in all (None where work has no measure)."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What it takes to answer a request."""

    request: Request
    parts: Sequence[Part]
    options: ReadOptions
    tokenizer: Path | int
    """A tokenizer.json, or the size of the vocabulary to train one for."""
    work: WorkFolder
    run: RunJobs
    observer: Observer | None

    def tell(self, stage: str, done: int, total: int | None) -> None:
        if self.observer is not None:
            self.observer(stage, done, total)


def fill(preparation: Preparation) -> None:
    """Fill the work folder's `finished`; the manifest comes last. Raises as `prepare.prepare`."""
    work = preparation.work
    path = _tokenizer_path(preparation)
    tokenizer = load_tokenizer(path)
    jobs = _encode_jobs(preparation, path, tokenizer)
    records = _encode_all(preparation, path, jobs)
    totals: dict[SplitName, SplitCounts] = {
        name: sum((record.splits[name] for record in records), SplitCounts()) for name in SPLIT_NAMES
    }
    _check_splits(preparation, totals)
    shards = {name: _shard_jobs(preparation, name, jobs, records, tokenizer) for name in SPLIT_NAMES}
    _write_shards(preparation, jobs, [job for name in SPLIT_NAMES for job in shards[name]])
    token_bytes = tokenizer.token_bytes()
    splits: dict[SplitName, SplitRecord] = {
        name: finish_split(shards[name], totals[name].num_documents, totals[name].num_bytes, token_bytes)
        for name in SPLIT_NAMES
    }
    text = path.read_text(encoding="utf-8")
    write_text(work.finished / TOKENIZER_NAME, text)
    manifest = Manifest(
        format=FORMAT,
        noiselaw_version=__version__,
        request=preparation.request,
        dtype=token_dtype(tokenizer.vocab_size),
        vocab_size=tokenizer.vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        mask_id=tokenizer.mask_id,
        empty_id=tokenizer.empty_id,
        tokenizer=FileRecord(name=TOKENIZER_NAME, sha256=hashlib.sha256(text.encode()).hexdigest()),
        num_skipped_documents=sum(record.num_skipped for record in records),
        splits=splits,
    )
    write_manifest(work.finished, manifest)


def _tokenizer_path(preparation: Preparation) -> Path:
    """The tokenizer in the work folder, trained or copied unless it is there."""
    tokenizer, root = preparation.tokenizer, preparation.work.root
    if isinstance(tokenizer, Path):
        text = load_tokenizer(tokenizer).to_json()
        path = root / f"tokenizer-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        write_text(path, text)
        return path
    settings = (asdict(preparation.options), preparation.request.validation_fraction, tokenizer, BPE_SAMPLE_CHARS)
    keys = "".join(part.key(*settings) for part in preparation.parts)
    path = root / f"tokenizer-{hashlib.sha256(keys.encode()).hexdigest()[:32]}.json"
    if not path.exists():
        write_text(path, _train_tokenizer(preparation, tokenizer).to_json())
    return path


def _train_tokenizer(preparation: Preparation, vocab_size: int) -> TextTokenizer:
    """A tokenizer trained on a sample of the training documents."""
    sample = list[tuple[bytes, str]]()
    has_text, below, done, total = False, None, 0, sum(part.size for part in preparation.parts)

    def jobs() -> Iterator[SampleJob]:
        for part in preparation.parts:
            fraction = preparation.request.validation_fraction
            yield SampleJob(part, preparation.options, fraction, BPE_SAMPLE_CHARS, below)

    for job, (found, part_has_text) in preparation.run(sample_part, jobs()):
        known = [*sample, *found]
        sample = sample_texts(known, BPE_SAMPLE_CHARS)
        below = min({key for key, _ in known} - {key for key, _ in sample}, default=below)
        has_text |= part_has_text
        done += job.part.size
        preparation.tell("reading", done, total)
    if not has_text:
        raise _no_text(preparation)
    preparation.tell("training the tokenizer", 0, None)
    return train_bpe((text for _, text in sample), vocab_size)


def _no_text(preparation: Preparation) -> ValueError:
    request = preparation.request
    return ValueError(
        f"the sources hold no text ({request.source_files} files, {request.source_bytes:,} bytes); name others"
    )


def _encode_jobs(preparation: Preparation, path: Path, tokenizer: TextTokenizer) -> list[EncodeJob]:
    options = preparation.options
    if options.tokens_column is not None:
        options = replace(options, vocab_size=tokenizer.vocab_size)
    fraction, folder = preparation.request.validation_fraction, preparation.work.parts
    settings = (asdict(options), fraction, path.stem, ENCODING_VERSION)
    return [EncodeJob(part, options, fraction, path, folder, part.key(*settings)) for part in preparation.parts]


def _encode_all(preparation: Preparation, path: Path, jobs: Sequence[EncodeJob]) -> list[PartRecord]:
    """The records of all parts, in order; what other requests left is removed first."""
    work = preparation.work
    work.keep_only(work.root, {path.stem, work.parts.name, work.records.name, work.finished.name})
    work.keep_only(work.parts, {job.name for job in jobs})
    records = {job.name: found for job in jobs if (found := job.record()) is not None}
    records |= _encode(preparation, jobs, [job for job in jobs if job.name not in records])
    return [records[job.name] for job in jobs]


def _encode(preparation: Preparation, jobs: Sequence[EncodeJob], left: Sequence[EncodeJob]) -> dict[str, PartRecord]:
    """Encode the parts that are `left` of all `jobs`; their records by name."""
    total = sum(job.part.size for job in jobs)
    done = total - sum(job.part.size for job in left)
    records = {}
    for job, record in preparation.run(encode_part, left):
        records[job.name] = record
        done += job.part.size
        preparation.tell("encoding", done, total)
    return records


def _check_splits(preparation: Preparation, totals: dict[SplitName, SplitCounts]) -> None:
    empty = [name for name in SPLIT_NAMES if totals[name].num_documents == 0]
    if not empty:
        return
    preparation.work.forget_parts()
    if len(empty) == len(SPLIT_NAMES):
        raise _no_text(preparation)
    raise ValueError(
        f"the {empty[0]} split got no document; give more documents, change --validation-fraction, "
        f"or cut text files into documents with --separator"
    )


def _shard_jobs(
    preparation: Preparation,
    name: SplitName,
    jobs: Sequence[EncodeJob],
    records: Sequence[PartRecord],
    tokenizer: TextTokenizer,
) -> list[ShardJob]:
    parts = [(job.tokens_path(name), record.splits[name].num_tokens) for job, record in zip(jobs, records, strict=True)]
    work = preparation.work
    return [
        ShardJob(work.finished, work.records, name, number, slices, tokenizer.vocab_size)
        for number, slices in enumerate(cut_shards(parts, preparation.request.shard_tokens))
    ]


def _write_shards(preparation: Preparation, jobs: Sequence[EncodeJob], shards: Sequence[ShardJob]) -> None:
    """Write the shards that are not finished; the tokens of a part go once every shard they reach into is."""
    work = preparation.work
    for folder in (work.records, work.finished):
        work.keep_only(folder, {shard.name.split(".")[0] for shard in shards})
    left = [shard for shard in shards if shard.record() is None]
    readers = Counter(piece.path for shard in left for piece in shard.slices)
    lost = [
        job for job in jobs if any(path in readers and not path.exists() for path in map(job.tokens_path, SPLIT_NAMES))
    ]
    _encode(preparation, jobs, lost)
    total = sum(shard.num_bytes for shard in shards)
    done = total - sum(shard.num_bytes for shard in left)
    for shard, _ in preparation.run(write_shard, left):
        for piece in shard.slices:
            readers[piece.path] -= 1
            if readers[piece.path] == 0:
                piece.path.unlink()
        done += shard.num_bytes
        preparation.tell("writing shards", done, total)
