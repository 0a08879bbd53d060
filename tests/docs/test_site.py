"""The site: every public name has its place in the reference; formulas are drawn, and nothing is asked of the network.

`make docs` builds the whole site with warnings as errors; here two of its pages are built, by the same settings.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from browsing import ARGUMENTS, CHROMIUM
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LISTED = {
    name
    for page in (DOCS / "reference").glob("*.md")
    for name in re.findall(r"automodule:: ([\w.]+)", page.read_text("utf-8"))
}


@pytest.mark.parametrize("room", ["noise", "head", "model", "optim", "sampling", "hub", "laws"])
def test_public_names_are_in_the_reference(room):
    package = import_module(f"noiselaw.{room}")
    public = getattr(package, "__all__", None) or [name for name in vars(package) if name[0].isupper()]
    homes = {name: getattr(getattr(package, name), "__module__", None) for name in public}
    assert homes
    missing = {
        name: home for name, home in homes.items() if home and home.startswith("noiselaw") and home not in LISTED
    }
    assert missing == {}


def test_everything_listed_exists_and_says_what_it_is():
    for name in sorted(LISTED):
        path = ROOT / "src" / f"{name.replace('.', '/')}.py"
        assert path.read_text("utf-8").lstrip("#").startswith('"""'), name


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Theory and a page of code, built."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("extensions", "static"):
        shutil.copytree(DOCS / name, source / name)
    for name in ("conf.py", "theory.md"):
        shutil.copy(DOCS / name, source / name)
    (source / "index.md").write_text("# Site\n\n```{toctree}\ntheory\n```\n\n```sh parsed: a GPU\nls\n```\n", "utf-8")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-b", "html", str(source), str(built)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture(scope="module")
def browser():
    if not os.access(CHROMIUM, os.X_OK):
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"no browser at {CHROMIUM}; install Chromium or set NOISELAW_CHROMIUM to it")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def test_formulas_are_drawn_without_the_network(site, browser):
    page, asked, said = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((site / "theory.html").as_uri())
    heights = page.evaluate(
        "[...document.querySelectorAll('div.math > math')].map(m => m.getBoundingClientRect().height)"
    )
    inline = page.evaluate("[...document.querySelectorAll('p math')].map(m => m.getBoundingClientRect().width)")
    unread = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.textContent).filter(t => /[\\\\$&{}]/.test(t))"
    )
    shown = page.evaluate("document.querySelector('article').innerText")
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
    assert len(heights) >= 37
    assert min(heights) > 12
    assert len(inline) > 60
    assert min(inline) > 3
    assert [text.count("{") for text in unread] == [1]  # the brace of the cases of eq. 21
    assert "$" not in shown


def test_info_strings_do_not_show(site):
    built = (site / "index.html").read_text("utf-8")
    assert "highlight-sh" in built
    assert "a GPU" not in built
