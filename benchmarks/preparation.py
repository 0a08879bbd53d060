"""Text to tokens: `noiselaw data prepare` beside Hugging Face's `datasets.map`, same text, same tokenizer.

The text is the standard library's, as JSON lines, repeated to the size asked for; the tokenizer is a byte-level BPE
trained on it. Ours is everything from the file to the finished folder: reading, the split, encoding, checksums, token
counts. Theirs is `map` alone, from an Arrow table that is loaded already to another one on disk. One thread per
process; rounds are interleaved. "MB/s a core" is text over processor seconds, workers' included, so that it holds on a
busy machine too; wall seconds stand beside it.

    python benchmarks/preparation.py        (pip install noiselaw[bench])
"""

import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Claim, cpu_name, parser, write_claims

from noiselaw.data.prepare import prepare
from noiselaw.data.sources import find_files
from noiselaw.data.tokenizer import load_tokenizer, train_bpe

os.environ["TOKENIZERS_PARALLELISM"] = "false"
VOCABULARY = 4096
TRAINING_CHARS = 4_000_000


@dataclass
class Best:
    """Smallest times of a job."""

    wall: float = math.inf
    cpu: float = math.inf


def write_text(folder: Path, megabytes: float) -> tuple[Path, Path, int]:
    """JSON lines of documents, a tokenizer of them, and the bytes of their text."""
    texts = [text for file in find_files(["python"]) if (text := _text(Path(file.address)))]
    tokenizer = folder / "tokenizer.json"
    sample = "".join(texts)[:TRAINING_CHARS]
    tokenizer.write_text(train_bpe([sample], VOCABULARY).to_json(), encoding="utf-8")
    size, number = 0, 0
    with (folder / "text.jsonl").open("w", encoding="utf-8") as stream:
        while size < megabytes * 1e6:
            text = texts[number % len(texts)]
            stream.write(json.dumps({"text": f"{number // len(texts)} {text}"}) + "\n")
            size += len(text.encode())
            number += 1
    return folder / "text.jsonl", tokenizer, size


def _text(path: Path) -> str:
    content = path.read_bytes()
    return content.decode(errors="ignore") if len(content) < 200_000 else ""


def ours(source: Path, tokenizer: Path, workers: int, **options: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        prepare([str(source)], Path(scratch) / "out", tokenizer=str(tokenizer), workers=workers, **options)


def theirs(source: Path, tokenizer: Path, workers: int, scratch: Path) -> Callable[[], None]:
    """A call of `datasets.map` on the text, which is loaded here."""
    import datasets  # noqa: PLC0415 (an extra)

    datasets.disable_progress_bars()
    table = datasets.Dataset.from_json(str(source), cache_dir=str(scratch / "cache"))
    assert isinstance(table, datasets.Dataset)
    encoder = load_tokenizer(tokenizer).tokenizer

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = encoder.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"input_ids": [one.ids for one in encoded]}

    def run() -> None:
        table.map(
            encode,
            batched=True,
            remove_columns=["text"],
            num_proc=workers if workers > 1 else None,
            load_from_cache_file=False,
            cache_file_name=str(scratch / f"mapped-{workers}.arrow"),
        )

    return run


def repacking(source: Path, tokenizer: Path, folder: Path) -> tuple[Path, int]:
    """The text's tokens as Parquet with a column of lists, and their number."""
    texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    rows = load_tokenizer(tokenizer).encode(texts)
    values, ends = np.concatenate(rows).astype(np.int32), np.cumsum([0, *map(len, rows)]).astype(np.int32)
    path = folder / "tokens.parquet"
    pq.write_table(pa.table({"tokens": pa.ListArray.from_arrays(ends, values)}), path, row_group_size=1000)
    return path, len(values)


def measure(jobs: dict[str, Callable[[], None]], rounds: int) -> dict[str, Best]:
    best = {name: Best() for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), _cpu_seconds()
            job()
            best[name].wall = min(best[name].wall, time.perf_counter() - wall)
            best[name].cpu = min(best[name].cpu, _cpu_seconds() - cpu)
    return best


def _cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--megabytes", type=float, default=24, help="text")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    claims = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, tokenizer, size = write_text(folder, arguments.megabytes)
        parquet, num_tokens = repacking(source, tokenizer, folder)
        jobs: dict[str, Callable[[], None]] = {
            "noiselaw, 1 process": lambda: ours(source, tokenizer, 1),
            "noiselaw, 2 processes": lambda: ours(source, tokenizer, 2),
            "noiselaw, tokens repacked": lambda: ours(parquet, tokenizer, 1, tokens_column="tokens"),
        }
        try:
            jobs |= {
                "datasets.map, 1 process": theirs(source, tokenizer, 1, folder),
                "datasets.map, 2 processes": theirs(source, tokenizer, 2, folder),
            }
        except ImportError:
            print("datasets is not installed (pip install noiselaw[bench]): its rows are left out")
        print(f"{cpu_name()}, {size / 1e6:.1f} MB of text, {num_tokens:,} tokens, vocabulary {VOCABULARY}")
        best = measure(jobs, arguments.rounds)
    print(f"{'':28s}{'wall s':>10s}{'cpu s':>10s}{'MB/s a core':>14s}{'tokens/s a core':>18s}")
    for label, times in best.items():
        per_core = size / 1e6 / times.cpu
        print(f"{label:28s}{times.wall:10.2f}{times.cpu:10.2f}{per_core:14.2f}{num_tokens / times.cpu:18,.0f}")
        claims.append(Claim(f"prepare, {label}: MB/s a core", per_core))
    for processes in ("1 process", "2 processes"):
        if f"datasets.map, {processes}" in best:
            ratio = best[f"datasets.map, {processes}"].cpu / best[f"noiselaw, {processes}"].cpu
            claims.append(Claim(f"prepare, {processes}: x datasets.map a core", ratio))
            print(f"{processes}: {ratio:.2f} x datasets.map a core")
    write_claims(claims, arguments.claims)


if __name__ == "__main__":
    main()
