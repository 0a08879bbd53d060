"""One finished study and its report for the whole room, because matplotlib needs seconds for it; and a browser."""

import os
from pathlib import Path

import pytest
from browsing import ARGUMENTS, CHROMIUM
from playwright.sync_api import sync_playwright
from synthetic_study import write_study

from noiselaw.report.figures import all_figures
from noiselaw.report.page import render_page, write_report
from noiselaw.report.results import read_results


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("finished") / "study")


@pytest.fixture(scope="session")
def report_page(study_folder) -> Path:
    return write_report(study_folder)


HOSTILE_NAMES = {
    "masked": "</script><script>window.owned=1</script>",
    "balanced": "\"><img src=x onerror='window.owned=1'>",
    "uniform": "<b>$x_1$</b> %{x} & `${1}`\u2028<!--",
    "autoregressive": "<a href='javascript:window.owned=1'>ключ</a>",
}


@pytest.fixture(scope="session")
def hostile_names() -> dict[str, str]:
    return HOSTILE_NAMES


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory) -> Path:
    """Without figures as files: one of them has a test of its own."""
    folder = write_study(tmp_path_factory.mktemp("hostile") / "study", names=HOSTILE_NAMES)
    facts = folder / "study.json"
    facts.write_text(
        facts.read_text().replace('"laptop"', '"</title></style></script><script>window.owned=1</script>"')
    )
    results = read_results(folder)
    page = folder / "report.html"
    page.write_text(render_page(results, all_figures(results)), encoding="utf-8")
    return page


@pytest.fixture(scope="session")
def browser():
    if not os.access(CHROMIUM, os.X_OK):
        message = f"no browser at {CHROMIUM}; install Chromium or set NOISELAW_CHROMIUM to it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens a page, waits until all is drawn; the page's complaints and requests are in `.complaints`, `.requests`."""
    contexts = []

    def open_page(path, **options):
        context = browser.new_context(**options)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path if isinstance(path, str) else path.as_uri())
        page.locator("html[data-drawn]").wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
