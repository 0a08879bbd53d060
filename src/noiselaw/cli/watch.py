"""`noiselaw study watch DIR`: the report page of a running study in a browser, or a table of its runs."""

import os
import sys
import time
import webbrowser
from pathlib import Path

from rich.console import Console

from noiselaw.cli.studytable import StudyDisplay, study_table
from noiselaw.report.live import LOCAL_ADDRESS, LivePage, serve, study_states
from noiselaw.study.ledger import Status

LOOK_SECONDS = 2.0


def watch(study: Path, /, *, terminal: bool = False, port: int | None = None) -> None:
    """Follow a study while it runs: its page on this machine, updating live, or a table where there is no browser.

    Ends with Ctrl-C; nothing that it does touches the study.

    Args:
        study: Folder of the study, started or finished.
        terminal: Show the table of runs on the terminal, also where there is a browser.
        port: Serve the page at this port of 127.0.0.1 (and open no browser), for a tunnel from elsewhere.
    """
    if terminal and port is not None:
        raise ValueError(f"--port {port} has no effect with --terminal; leave one of them out")
    if terminal or (port is None and not has_browser()):
        watch_terminal(study)
        return
    with serve(LivePage(study), port or 0) as server:
        address = f"http://{LOCAL_ADDRESS}:{server.server_port}/"
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if port is None:
            webbrowser.open(address)
        server.serve_forever()


def has_browser() -> bool:
    """Whether a page can be shown here: a browser, and on Linux a display."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def watch_terminal(study: Path) -> None:
    """The table of runs, renewed until every run is done or has failed and the study's comparison stands."""
    with StudyDisplay() as display:
        while True:
            states = study_states(study)
            running = sum(state.status is Status.STARTED for state in states)
            display.update(study.resolve().name, states, max(running, 1))
            if (study / "confirmation.json").is_file() and running == 0:
                break
            time.sleep(LOOK_SECONDS)
    Console().print(study_table(states))
