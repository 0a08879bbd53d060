"""`noiselaw demo`: what it shows while a text is written, who may reach it, and what it says without gradio."""

import builtins
import html
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest

from noiselaw.cli import demo as command
from noiselaw.cli.main import EXIT_USER_ERROR, main
from noiselaw.hub import load_model

OPTIONS = {"sampler": "ancestral", "steps": 12, "length": 24, "temperature": 1.0, "seed": 3}


def shown_text(picture: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", picture))


@pytest.mark.parametrize("name", ["masked", "balanced", "autoregressive"])
def test_the_text_appears_step_by_step(trained_run, name):
    loaded = load_model(trained_run(name))
    pictures = list(command.written(loaded, "alp<b>", **OPTIONS))
    assert len(pictures) > 10
    assert all(shown_text(picture).startswith("alp<b>") for picture, _ in pictures)
    assert all(text == "" for _, text in pictures[:-1])
    assert pictures[-1][1].startswith("alp<b>")
    assert "░" in shown_text(pictures[0][0])
    assert "░" not in shown_text(pictures[-1][0])
    assert not re.search("<(?!/?(div|span)[ >])", pictures[-1][0]), "text is escaped"


def test_a_text_is_revised_in_view(trained_run):
    loaded = load_model(trained_run("uniform"))
    *_, (picture, text) = command.revised(loaded, "alpha b~ta gamma", 0)
    assert text != "alpha b~ta gamma"
    assert shown_text(picture) == text
    with pytest.raises(ValueError, match="there is no text to revise yet"):
        next(command.revised(loaded, "", 0))


def test_mistakes_in_the_sampler_reach_the_listener(trained_run):
    loaded = load_model(trained_run("masked"))
    with pytest.raises(ValueError, match="a prompt of 30 tokens leaves nothing to write"):
        next(command.written(loaded, "a" * 30, **OPTIONS))
    with pytest.raises(ValueError, match="a model of masked noise cannot revise"):
        next(command.revised(loaded, "alpha", 0))


def test_the_sampler_stops_when_nobody_looks(trained_run):
    loaded = load_model(trained_run("uniform"))
    before = threading.active_count()
    results = command.written(loaded, "", **OPTIONS | {"steps": 5000})
    next(results)
    assert threading.active_count() == before + 1
    results.close()
    assert threading.active_count() == before


def test_without_gradio_there_is_a_friendly_line(trained_run, monkeypatch, capsys):
    def missing(name, *arguments, **options):
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return builtins.__import__(name, *arguments, **options)

    monkeypatch.setattr(command, "import_module", missing)
    monkeypatch.setattr(sys, "argv", ["noiselaw", "demo", str(trained_run("masked"))])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == EXIT_USER_ERROR
    assert capsys.readouterr().err == "noiselaw: noiselaw demo needs the gradio package; pip install 'noiselaw[demo]'\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetched(address: str, process: subprocess.Popen) -> str:
    """The page, as soon as it is served."""
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return answer.read().decode()
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"nothing at {address} after two minutes")


def test_the_page_is_served_on_this_machine_only(trained_run):
    port = free_port()
    command = [sys.executable, "-m", "noiselaw.cli", "demo", str(trained_run("balanced")), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            page = fetched(f"http://127.0.0.1:{port}", process)
            listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
        finally:
            process.terminate()  # an interrupt is ignored where the tests run in the background
            process.communicate(timeout=60)
    assert "balanced" in page
    assert "fonts.googleapis" not in page
    sockets = re.findall(rf"^ *\d+: ([0-9A-F]{{8}}):{port:04X} 00000000:0000 0A", listening, flags=re.MULTILINE)
    assert set(sockets) <= {"0100007F"}
    assert sockets or not listening
