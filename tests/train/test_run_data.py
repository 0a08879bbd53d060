"""Runs on mixtures and on limited data: what their metrics say, and that prefetch and interruptions change nothing."""

from pathlib import Path

import pytest

from noiselaw.data.prepare import prepare
from noiselaw.metrics import read_rows
from noiselaw.specs import RunSpec
from noiselaw.train.loop import train

LENGTH, BATCH = 16, 4


@pytest.fixture(scope="module")
def sources(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """A mixture of the tiny data, three parts, and a smaller corpus of the same tokenizer, one part."""
    folder = tmp_path_factory.mktemp("second")
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"another source {number} " * 40)
    second = tmp_path_factory.mktemp("prepared") / "second"
    prepare([str(folder)], second, tokenizer=str(tiny_data), validation_fraction=0.3)
    return [{"path": tiny_data, "weight": 3}, {"path": second, "weight": 1}]


def mixture(run_spec, sources: list[dict], **changes) -> RunSpec:
    return run_spec(data={"sources": sources, "sequence_length": LENGTH}, **changes)


def rows(folder: Path) -> list[dict]:
    return [row for kind in ("train", "validation") for row in read_rows(folder / "metrics.jsonl", kind)]


def test_rows_tell_unique_tokens_and_epochs(run_spec, tmp_path: Path):
    unique = 10 * BATCH * LENGTH
    train(run_spec(**{"data.unique_tokens": unique}), tmp_path / "run", [])
    for row in rows(tmp_path / "run"):
        assert row["tokens"] == row["step"] * BATCH * LENGTH
        assert row["unique_tokens"] == min(row["tokens"], unique)
        assert row["epoch"] == row["tokens"] / unique
    speed = read_rows(tmp_path / "run" / "metrics.jsonl", "speed")[-1]
    assert 0 < speed["data_wait_seconds"] < speed["seconds"]


def test_prefetch_changes_nothing(run_spec, tmp_path: Path):
    for ahead in (0, 1, 4):
        train(run_spec(**{"runtime.prefetch_batches": ahead}), tmp_path / str(ahead), [])
    assert rows(tmp_path / "0") == rows(tmp_path / "1") == rows(tmp_path / "4")


class Stop:
    """Breaks a run off after some steps, as a fault anywhere would."""

    def started(self, *_: object) -> None: ...

    def rows(self, rows: list[dict]) -> None:
        if any(row["step"] == 12 for row in rows):
            raise KeyboardInterrupt

    def message(self, _: str) -> None: ...

    def close(self) -> None: ...


def test_a_mixture_goes_on_where_it_stopped(run_spec, sources: list[dict], tmp_path: Path):
    settings = {"runtime.prefetch_batches": 2, "objective.noise": {"shift": 2.0, "reference": "unigram"}}
    spec = mixture(run_spec, sources, **settings)
    train(spec, tmp_path / "whole", [])
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path / "broken", [Stop()])
    train(spec, tmp_path / "broken", [])
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    last = rows(tmp_path / "whole")[-1]
    assert last["bits_per_byte"] > 0
    swapped = mixture(run_spec, sources[::-1], **settings)
    with pytest.raises(ValueError, match="holds another run"):
        train(swapped, tmp_path / "whole", [])


def test_more_unique_tokens_than_there_are(run_spec, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"data.unique_tokens 1000000000 asks .* for 62,500,000 sequences of 16 tokens"
    ):
        train(run_spec(**{"data.unique_tokens": 10**9}), tmp_path / "run", [])
