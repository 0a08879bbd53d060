"""HTML in which text is always escaped: only `element` makes markup, and every plain string it is given is text."""

import html
import json
from collections.abc import Sequence
from typing import Any


class Markup(str):
    """A string that is HTML already. Made by `element`, and by `raw` for files of this package."""

    __slots__ = ()


Child = str | None | Sequence["Child"]


def raw(text: str) -> Markup:
    """Trusted markup: only for constants of this package, never for anything read from a study."""
    return Markup(text)


def render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    return html.escape(child) if isinstance(child, str) else "".join(map(render, child))


def element(tag: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """<tag attributes>children</tag>; `class_` and `data_x` become class and data-x; None and False are left out."""
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    opening = f"<{tag}{written}>"
    return Markup(opening if tag in ("br", "meta", "img", "input") else f"{opening}{render(children)}</{tag}>")


def json_text(value: Any) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
