"""A self-contained page: styles, scripts and data are inside, and it opens from a file without a network.

A content security policy lets only these very scripts run (by their hashes), so that no text a page shows could, even
if it slipped through `markup`.
"""

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from noiselaw.report.markup import Child, element, json_text, raw


def document(
    title: str,
    *body: Child,
    styles: Sequence[str],
    data: Mapping[str, Any],
    scripts: Sequence[str],
    connects: bool = False,
) -> str:
    """The page as text. Styles and scripts are files of packages; `data` goes in as JSON, by element id.

    A page that `connects` may ask the server it came from.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts, connects=connects)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", raw("\n".join(styles))),
    )
    whole = element(
        "body",
        *body,
        [element("script", json_text(value), type="application/json", id=name) for name, value in data.items()],
        [element("script", raw(script)) for script in scripts],
    )
    return f"<!doctype html>\n{element('html', head, whole, lang='en')}\n"


def package_file(name: str) -> str:
    """The text of a style or script that comes with this room; one whose name ends in .gz is unpacked."""
    content = files("noiselaw.report").joinpath(name).read_bytes()
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8")


def _policy(scripts: Sequence[str], *, connects: bool) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    rules = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"{rules}; connect-src 'self'" if connects else rules
