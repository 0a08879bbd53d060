"""`noiselaw data prepare` and `noiselaw data inspect` as typed on the command line."""

import json
import sys
from pathlib import Path

import pytest

from noiselaw.cli.data import SourceProgress
from noiselaw.cli.main import EXIT_USER_ERROR, main
from noiselaw.data.shards import open_tokens


def noiselaw(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["noiselaw", *map(str, arguments)])
    main()


def test_prepare_then_again(corpus: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "out"
    command = ("data", "prepare", corpus, "--tokenizer", "bpe:300", "--out", out, "--validation-fraction", "0.25")
    noiselaw(monkeypatch, *command)
    shown = capsys.readouterr().out
    assert shown.startswith(f"{out}: prepared\n")
    assert f"{open_tokens(out).split('train').num_tokens:,}" in shown
    noiselaw(monkeypatch, *command)
    assert capsys.readouterr().out.startswith(f"{out}: already prepared")


def test_inspect(data, texts: list[str], monkeypatch, capsys):
    noiselaw(monkeypatch, "data", "inspect", data.folder, "--documents", "2", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["fingerprint"] == data.fingerprint
    assert len(shown["documents"]["train"]) == 2
    for text in shown["documents"]["train"] + shown["documents"]["validation"]:
        assert any(text[:200] in document + "<|endoftext|>" for document in texts)
    noiselaw(monkeypatch, "data", "inspect", data.folder)
    assert "validation document 2" in capsys.readouterr().out


def test_a_mistake_is_one_line(corpus: Path, tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        noiselaw(monkeypatch, "data", "prepare", corpus, "--tokenizer", "bpe:12", "--out", tmp_path / "out")
    assert stop.value.code == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert captured.err == "noiselaw: tokenizer 'bpe:12': SIZE must be a whole number of at least 259, as in bpe:1024\n"
    assert captured.out == ""


def test_progress_has_one_line_per_stage():
    """Training a tokenizer has no measure: its line pulses, and goes when the next stage begins."""
    with SourceProgress(disable=True) as progress:
        progress.update("reading", 5, 10)
        progress.update("reading", 10, 10)
        progress.update("training the tokenizer", 0, None)
        tasks = progress._progress.tasks
        assert [(task.description, task.completed, task.total) for task in tasks] == [
            ("reading", 10, 10),
            ("training the tokenizer", 0, None),
        ]
        progress.update("encoding", 3, 10)
        assert [task.description for task in progress._progress.tasks] == ["reading", "encoding"]


def test_no_source_is_a_mistake(tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        noiselaw(monkeypatch, "data", "prepare", "--tokenizer", "bpe:300", "--out", tmp_path / "out")
    assert "no source given" in capsys.readouterr().err


def test_workers_are_chosen_on_the_command_line(data, corpus: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("noiselaw.data.parts.LEAST_PART_BYTES", 15_000)
    settings = ("--tokenizer", "bpe:300", "--validation-fraction", "0.25")
    noiselaw(monkeypatch, "data", "prepare", corpus, *settings, "--out", tmp_path / "out", "--workers", "2")
    assert "prepared" in capsys.readouterr().out
    found = open_tokens(tmp_path / "out").split("train")
    assert found.num_tokens == data.split("train").num_tokens
    with pytest.raises(SystemExit) as stop:
        noiselaw(monkeypatch, "data", "prepare", corpus, *settings, "--out", tmp_path / "other", "--workers", "0")
    assert stop.value.code == EXIT_USER_ERROR
    assert capsys.readouterr().err == "noiselaw: workers 0 must be at least 1, for example 2\n"
