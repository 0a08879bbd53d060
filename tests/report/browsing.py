"""How the page tests drive a real browser."""

import os
import shutil

import pytest

CHROMIUM = os.environ.get("NOISELAW_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def wait_until(page, script: str) -> None:
    """Poll from outside: the page's policy rightly refuses to evaluate a string inside."""
    for _ in range(200):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"still not true after 20 s: {script}")
