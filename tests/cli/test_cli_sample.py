"""`noiselaw sample` as typed on the command line."""

import io
import json
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from noiselaw.cli import sample as command
from noiselaw.cli.main import EXIT_USER_ERROR, main


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line; returns (standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["noiselaw", "sample", *map(str, arguments), "--device", "cpu"])
        main()
        return capsys.readouterr()

    return call


@pytest.fixture
def fails(run, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code == EXIT_USER_ERROR
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    return call


@pytest.mark.parametrize("name", ["masked", "uniform", "autoregressive"])
def test_prompts_are_continued(trained_run, run, name):
    out, _ = run(trained_run(name), "--prompt", "alpha", "beta ga", "--num-samples", "2", "--json")
    record = json.loads(out)
    assert record["noise"] == name
    assert record["tokens_per_second"] > 0
    assert [found["asked"] for found in record["samples"]] == ["alpha", "alpha", "beta ga", "beta ga"]
    for found in record["samples"]:
        assert found["text"] == found["asked"] + found["written"]
        assert len(found["tokens"]) == 32
        assert found["num_tokens"] <= 32
        assert "<|mask|>" not in found["text"]


def test_text_alone_is_printed_for_one_sample(trained_run, run):
    out, err = run(trained_run("balanced"), "--prompt", "alpha", "--length", "12", "--temperature", "0.5")
    assert out.startswith("alpha")
    assert err == ""
    many, _ = run(trained_run("balanced"), "--num-samples", "3", "--length", "8")
    assert re.findall(r"^--- (\d) of 3$", many, flags=re.MULTILINE) == ["1", "2", "3"]


def test_the_seed_decides(trained_run, run):
    texts = [run(trained_run("balanced"), "--seed", seed).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    "options",
    [
        ("--sampler", "ancestral", "--steps", "16", "--grid", "linear"),
        ("--sampler", "adaptive", "--steps", "40", "--top-k", "5"),
        ("--sampler", "adaptive", "--positions-per-step", "4", "--top-p", "0.9"),
        ("--sampler", "blockwise", "--block-length", "8", "--steps", "6"),
    ],
)
def test_every_sampler_and_its_options(trained_run, run, options):
    out, _ = run(trained_run("balanced"), "--prompt", "alp", *options)
    assert out.startswith("alp")


def test_blanks_are_filled_and_nothing_else(trained_run, run):
    out, _ = run(trained_run("masked"), "--infill", "alpha ____ __init__ _____.", "--json")
    (found,) = json.loads(out)["samples"]
    assert re.fullmatch(r"alpha (.|\n)*? __init__ (.|\n)*?\.", found["text"])
    assert found["num_tokens"] == len("alpha ____ __init__ _____.")
    assert "____" not in found["text"]


def test_a_text_is_revised_from_the_line_or_from_a_file(trained_run, run, tmp_path):
    text = "alpha bexa gamma"
    (tmp_path / "text.txt").write_text(text)
    line = run(trained_run("uniform"), "--revise", text, "--json").out
    file = run(trained_run("uniform"), "--revise", tmp_path / "text.txt", "--json").out
    one, other = (json.loads(shown)["samples"][0] for shown in (line, file))
    assert one == other
    assert one["num_tokens"] == len(text)
    assert one["text"] != text


def test_the_page_is_written(trained_run, run, tmp_path):
    page = tmp_path / "out.html"
    out, err = run(trained_run("balanced"), "--prompt", "<script>", "--steps", "8", "--trace", page)
    assert err == f"{page}: open it in a browser\n"
    assert "<h1>balanced-" in page.read_text()
    assert "<script>" in out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("masked", ("--prompt", "a" * 32), "a prompt of 32 tokens leaves nothing to write in a text of 32"),
        ("masked", ("--length", "64"), "a text of 64 tokens is longer than the 32"),
        ("masked", ("--length", "0"), "a prompt of 0 tokens leaves nothing to write in a text of 0"),
        ("masked", ("--num-samples", "0"), "--num-samples 0: give at least 1"),
        ("masked", ("--prompt", "a", "--infill", "b____"), "--prompt and --infill: give one of them"),
        ("masked", ("--infill", "b____", "--length", "9"), "--length: without effect with --infill"),
        ("masked", ("--infill", "no blank __ here"), "has no blank; write ____ or more"),
        ("masked", ("--infill", "a____b", "--sampler", "blockwise"), "blockwise sampling cannot see what is given"),
        ("masked", ("--revise", "text"), "a model of masked noise cannot revise"),
        ("uniform", ("--revise", ""), "--revise: the text is empty"),
        ("uniform", ("--revise", "a" * 40), "a text of 40 tokens is longer than the 32"),
        ("autoregressive", ("--infill", "a____b"), "an autoregressive model cannot infill"),
        ("autoregressive", ("--revise", "text"), "an autoregressive model cannot revise"),
        ("autoregressive", ("--steps", "5"), "steps: without effect on an autoregressive model"),
        ("masked", ("--block-length", "5"), "block_length: without effect on the ancestral sampler"),
        ("masked", ("--temperature", "0", "--top-k", "5"), "top_k and top_p have no effect"),
        ("masked", ("--sampler", "magic"), "sampler 'magic': known are ancestral, adaptive, blockwise"),
        ("masked", ("--tokenizer", "nowhere.json"), "nowhere.json"),
    ],
)
def test_a_mistake_is_one_clear_line(trained_run, fails, name, options, message):
    text = fails(trained_run(name), *options)
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_binary_file_to_revise_is_refused(trained_run, fails, tmp_path):
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in fails(trained_run("uniform"), "--revise", tmp_path / "image")


def test_a_wrong_folder_is_named(fails, tiny_data, tmp_path):
    assert "is prepared data; give the run folder" in fails(tiny_data)
    assert "no such folder" in fails(tmp_path / "nowhere")


def test_a_terminal_shows_the_steps(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        command, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80, legacy_windows=False)
    )
    with command._progress(disable=False) as observe:
        observe(SimpleNamespace(num_steps=8, index=7))
    shown = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", screen.getvalue())
    assert "7/8" in shown
    with command._progress(disable=True) as observe:
        assert observe is None


def test_control_characters_cannot_reach_the_terminal(trained_run, run):
    """A byte-level model may write escape sequences; the terminal is shown pictures of them."""
    out, _ = run(trained_run("masked"), "--prompt", "\x1b[31m\x07", "--length", "8")
    assert "\x1b" not in out
    assert out.startswith("␛[31m␇")
