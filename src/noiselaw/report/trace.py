"""A page that plays how texts were written: every token of every step, coloured by noise, change or confidence.

Shapes: B texts, T positions of the longest.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noiselaw.report.document import document, package_file
from noiselaw.report.markup import Markup, element

SHADES = string.digits + string.ascii_letters
"""A probability as one character: 62 shades, more than an eye can tell."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceFrame:
    """The texts after a step."""

    step: int
    log_snr: float | None
    """Noise level the texts stand at; None where there is none (clean, or a model without noise)."""
    tokens: np.ndarray
    """Ids, int [B, T]."""
    support: np.ndarray
    """Probability of each token given all others, [B, T]."""
    noise: np.ndarray
    """Probability that the token is not the clean one, given everything, [B, T]."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """All that the page shows."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What was asked for: names and values."""
    given: np.ndarray
    """Tokens that were never to change, bool [B, T]."""
    ends: tuple[int, ...]
    """Length of each text."""
    frames: tuple[TraceFrame, ...]
    """At least the start; steps may be missing where there were too many to show."""
    pieces: Mapping[int, str]
    """How each id that occurs is shown."""
    mask_id: int
    texts: tuple[str, ...]
    """The finished texts."""


def render_trace(trace: Trace) -> str:
    """The page as text: one file, nothing fetched, all text escaped."""
    return document(
        f"{trace.title} – noiselaw",
        element(
            "header",
            element("h1", trace.title),
            element(
                "dl",
                [element("div", element("dt", name), element("dd", value)) for name, value in trace.facts],
                class_="facts",
            ),
            class_="top",
        ),
        element("nav", _player(len(trace.frames) - 1), _colours(), class_="player", aria_label="Player"),
        element("main", element("div", [_sample(trace, row) for row in range(len(trace.texts))], class_="samples")),
        element("footer", _explanation()),
        styles=[package_file("page.css"), package_file("trace.css")],
        data={"trace": trace_data(trace)},
        scripts=[package_file("trace.js")],
    )


def trace_data(trace: Trace) -> dict[str, Any]:
    """What the page's script reads: tokens by their place in a list of pieces, and only those that changed."""
    ids = sorted(trace.pieces)
    place = {token: index for index, token in enumerate(ids)}
    return {
        "pieces": [trace.pieces[token] for token in ids],
        "mask": place.get(trace.mask_id, -1),
        "frames": [[frame.step, frame.log_snr] for frame in trace.frames],
        "samples": [_sample_data(trace, row, place) for row in range(len(trace.texts))],
    }


def _sample_data(trace: Trace, row: int, place: Mapping[int, int]) -> dict[str, Any]:
    end = trace.ends[row]
    frames, before = [], np.full(end, -1)
    for frame in trace.frames:
        tokens = frame.tokens[row, :end]
        changes = [[int(position), place[int(tokens[position])]] for position in np.flatnonzero(tokens != before)]
        frames.append([changes, _shades(frame.support[row, :end]), _shades(frame.noise[row, :end])])
        before = tokens
    return {"given": [int(flag) for flag in trace.given[row, :end]], "frames": frames}


def _shades(probabilities: np.ndarray) -> str:
    levels = np.rint(np.clip(probabilities, 0.0, 1.0) * (len(SHADES) - 1)).astype(int)
    return "".join(SHADES[level] for level in levels)


def _player(last: int) -> Markup:
    def button(name: str, label: str, sign: str) -> Markup:
        return element("button", sign, type="button", id=name, aria_label=label, title=label)

    speeds = [element("option", f"{rate}", value=str(rate), selected=rate == 10) for rate in (2, 5, 10, 20, 40)]
    return element(
        "div",
        button("play", "Play", "▶"),
        button("back", "One step back", "‹"),
        button("forward", "One step forward", "›"),
        element(
            "div",
            element("svg", id="activity", aria_hidden="true", preserveAspectRatio="none"),
            element("input", type="range", id="step", min="0", max=str(last), value="0", step="1", aria_label="Step"),
            class_="track",
        ),
        element("output", "", id="where", for_="step"),
        element("label", "steps a second ", element("select", speeds, id="speed")),
        class_="controls",
    )


COLOURS: Sequence[tuple[str, str, str, str]] = (
    ("noise", "Noise", "surely clean", "surely noise"),
    ("change", "Change", "long ago", "just now"),
    ("confidence", "Confidence", "the other tokens expect it", "they do not"),
)
"""Ways to colour: value, name, what a pale and what a deep colour mean."""


def _colours() -> Markup:
    choices = [
        element(
            "label",
            element("input", type="radio", name="colour", value=value, checked=value == "noise"),
            element("span", name),
            element("span", pale, element("i", "", class_="scale", aria_hidden="true"), deep, class_="meaning"),
            class_=value,
        )
        for value, name, pale, deep in COLOURS
    ]
    return element("fieldset", element("legend", "Colour by"), choices, class_="colours")


def _sample(trace: Trace, row: int) -> Markup:
    name = f"Sample {row + 1}"
    return element(
        "section",
        element("h2", name),
        element("div", "", class_="text", data_sample=str(row), role="img", aria_label=f"{name}, token by token"),
        element("details", element("summary", "Finished text"), element("pre", trace.texts[row])),
        class_="sample",
    )


def _explanation() -> list[Markup]:
    return [
        element(
            "p",
            "Noise: the probability that a token is not the clean one, given everything, itself included. Confidence: "
            "its probability given all other tokens. A frame marks what the step rewrote; hatched boxes are masks; "
            "given text is grey. Point at a token for its numbers.",
        ),
        element("p", "Keys: space plays and pauses, arrows step, Home and End jump."),
    ]
