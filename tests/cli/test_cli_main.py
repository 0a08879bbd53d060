"""Finding a command: every verb can say what it does, and a misspelt one is answered with the nearest."""

import subprocess
import sys

import pytest

from noiselaw.cli.main import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_USER_ERROR, VERBS, main


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["noiselaw", *arguments])
    main()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_command_has_help(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *words, "--help")
    assert stop.value.code == 0
    assert f"usage: noiselaw {' '.join(words)}" in capsys.readouterr().out


def test_the_program_and_its_families_list_their_commands(monkeypatch, capsys):
    for arguments in ([], ["--help"], ["-h"]):
        call(monkeypatch, *arguments)
        shown = capsys.readouterr().out
        assert all(f"\n  {' '.join(words)} " in shown for words in VERBS)
    for arguments in (["study"], ["study", "--help"], ["data", "-h"]):
        call(monkeypatch, *arguments)
        shown = capsys.readouterr().out
        assert all((f"\n  {' '.join(words)} " in shown) == (words[0] == arguments[0]) for words in VERBS)
    call(monkeypatch, "--version")
    assert capsys.readouterr().out.startswith("noiselaw 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "x.yaml"], "unknown command 'trian' (did you mean 'train'?)"),
        (["study", "staus"], "unknown command 'study staus' (did you mean 'study status'?)"),
        (["zzz"], "unknown command 'zzz'\n"),
    ],
)
def test_unknown_commands_are_answered_with_the_nearest(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments)
    assert stop.value.code == EXIT_USER_ERROR
    assert capsys.readouterr().err.startswith(f"noiselaw: {message}")


def test_an_interruption_has_its_own_exit_code(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("noiselaw.cli.main._call", interrupt)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "report", "x")
    assert stop.value.code == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "noiselaw: interrupted\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--settings"]])
def test_a_reader_that_has_enough_is_no_reason_to_complain(arguments):
    program = subprocess.Popen(
        [sys.executable, "-m", "noiselaw.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == EXIT_BROKEN_PIPE


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from noiselaw.cli.main import main; sys.argv = ['noiselaw', '--help']; main();"
        "sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
