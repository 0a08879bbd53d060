"""A study while it runs: its results from the run folders, and its page served on this machine, always up to date.

The server only reads. It listens on 127.0.0.1 alone, answers two paths, and refuses requests that name another host, so
that no other web site can read it through a browser.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from noiselaw.files import read_json
from noiselaw.report.figures import all_figures
from noiselaw.report.page import Live, desk_of, render_page
from noiselaw.report.results import (
    CURVE_COLUMNS,
    DATA_LAWS,
    STAGES,
    THROUGHPUT_COLUMNS,
    Results,
    RunProgress,
    nothing_yet,
    read_results,
    typed_table,
)
from noiselaw.specs import parse_spec
from noiselaw.study.collect import curve_rows, throughput_rows
from noiselaw.study.design import StudySpec
from noiselaw.study.ledger import RunState
from noiselaw.study.run import planned_runs

LOCAL_ADDRESS = "127.0.0.1"
"""Nobody else on the network can reach it."""
WATCHED = ("recipe.json", DATA_LAWS, *STAGES)
RUN_FILES = ("metrics.jsonl", "result.json", "failure.json")


def study_states(folder: Path) -> list[RunState]:
    """The state of every run. Raises ValueError where no study has been started or its data are being prepared."""
    recipe = folder / "recipe.json"
    if not recipe.is_file():
        raise ValueError(f"{folder}: no study has been started here; start it with `noiselaw study run`")
    return planned_runs(parse_spec(StudySpec, read_json(recipe), str(recipe)), folder)


def live_results(folder: Path) -> Results:
    """What stands in a study folder, with curves and throughput as its run folders have them by now.

    Raises ValueError for a folder that holds no study, or a damaged file.
    """
    if any((folder / name).is_file() for name in STAGES):
        results = read_results(folder)
    elif (folder / "recipe.json").is_file():
        results = nothing_yet(folder.resolve().name)
    else:
        raise ValueError(f"{folder}: no study here; give the folder of `noiselaw study run`")
    try:
        states = study_states(folder)
    except ValueError:  # its data are still being prepared, or it came here without its runs
        return results
    facts, runs = results.facts, [state.run for state in states]
    if "study.json" in results.missing:  # it is written at the end
        recipe = read_json(folder / "recipe.json")
        known = {"name": recipe["name"], "groups": tuple(recipe["groups"]), "budgets": tuple(recipe["budgets_flops"])}
        facts = facts.model_copy(update=known)
    return replace(
        results,
        facts=facts,
        curves=typed_table(curve_rows(runs), CURVE_COLUMNS),
        throughput=typed_table(throughput_rows(runs), THROUGHPUT_COLUMNS),
        states=tuple(map(_progress, states)),
        missing=tuple(name for name in results.missing if name not in ("curves.csv", "throughput.csv")),
    )


def _progress(state: RunState) -> RunProgress:
    validation, speed = state.validation or {}, state.speed or {}
    return RunProgress(
        run=state.run.spec.name,
        group=state.run.group,
        role=state.run.role,
        status=state.status.value,
        share=state.progress,
        loss=validation.get("loss"),
        tokens_per_second=speed.get("tokens_per_second"),
    )


class LivePage:
    """The page of one study, made anew when a file of the study has changed and somebody asks."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder holds no study."""
        self._folder = folder
        self._lock = threading.Lock()
        self._version = ""
        self._page = self._news = ""
        self.refresh()

    def refresh(self) -> str:
        """Make the page anew if anything has changed; its version."""
        with self._lock:
            version = self._signature()
            if version != self._version:
                results = live_results(self._folder)
                desk, drawings = desk_of({self._folder: results}), all_figures(results)
                self._page, self._news = (
                    render_page(results, drawings, desk, Live(version, is_whole)) for is_whole in (True, False)
                )
                self._version = version
            return self._version

    def page(self) -> str:
        self.refresh()
        return self._page

    def news(self, known: str) -> str | None:
        """The page without its scripts; None where `known` is its version."""
        return None if self.refresh() == known else self._news

    def _signature(self) -> str:
        """Changes when any file that the page is made of does."""
        files = [self._folder / name for name in WATCHED]
        runs = self._folder / "runs"
        if runs.is_dir():
            files += [run / name for run in sorted(runs.iterdir()) for name in RUN_FILES]
        facts = [(str(file), stat.st_mtime_ns, stat.st_size) for file in files if (stat := _stat(file))]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def serve(page: LivePage, port: int = 0) -> ThreadingHTTPServer:
    """A server for the page on 127.0.0.1, at the given port or any free one; its caller starts and closes it.

    Raises OSError where the port is taken.
    """

    class Handler(_Handler):
        live = page

    server = ThreadingHTTPServer((LOCAL_ADDRESS, port), Handler)
    Handler.hosts = frozenset(f"{name}:{server.server_port}" for name in (LOCAL_ADDRESS, "localhost"))
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of / and /news, to this machine by its own name alone."""

    live: ClassVar[LivePage]
    hosts: ClassVar[frozenset[str]] = frozenset()
    """Names that it answers to."""
    timeout = 30
    server_version, sys_version = "noiselaw", ""

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        if self.headers.get("Host") not in self.hosts:
            self._answer(HTTPStatus.FORBIDDEN, "This page is for this machine alone.", "text/plain")
        elif where.path == "/":
            self._try(self.live.page)
        elif where.path == "/news":
            known = parse_qs(where.query).get("than", [""])[0]
            self._try(lambda: self.live.news(known))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "There is nothing here but the page.", "text/plain")

    do_HEAD = do_GET  # noqa: N815

    def _try(self, make: Callable[[], str | None]) -> None:
        """A study that cannot be read just now is told as text; the next request tries again."""
        try:
            text = make()
        except (ValueError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "text/plain")
            return
        self._answer(HTTPStatus.NO_CONTENT if text is None else HTTPStatus.OK, text or "", "text/html")

    def _answer(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Nothing: the terminal belongs to the user."""
