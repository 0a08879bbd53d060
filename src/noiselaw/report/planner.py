"""The planner on the page: the laws of its books as JSON for planner.js, and the controls.

planner.js makes the plans of `noiselaw.laws.planner` from these numbers, all of them in full float64.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from noiselaw.laws.bootstrap import LEVEL, student_quantile
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.hardware import ACCELERATORS, DEFAULT_MFU
from noiselaw.laws.lawbook import NORMAL_QUANTILE, LawBook, published_book
from noiselaw.laws.ownbook import read_book
from noiselaw.laws.prediction import Laws
from noiselaw.laws.published import LARGE_RUNS, PAPER
from noiselaw.laws.surface import PARAMETERS, SurfaceFit
from noiselaw.laws.trainingplan import published_record
from noiselaw.report.colors import Style, group_styles
from noiselaw.report.markup import Child, Markup, element

PUBLISHED = "published"
"""The name of the published laws on the command line."""
MOST_DEVICES = 14
"""Powers of two on the slider of devices."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A law book under the name that the page shows."""

    title: str
    book: LawBook
    option: str
    """Of `noiselaw plan`, to read it; empty for the published laws."""


def published_shelf() -> Shelf:
    return Shelf(f"Published laws ({PAPER})", published_book(), "")


def own_shelf(title: str, path: Path) -> Shelf:
    """The laws of a study's folder, or of a file. Raises ValueError as `read_book` does."""
    return Shelf(title, read_book([path]), f"--laws {shlex.quote(str(path))}")


def planner_json(shelves: Sequence[Shelf], styles: Mapping[str, Style]) -> dict[str, Any]:
    """What planner.js reads: books, and accelerators by name. `styles` are those of the page's figures."""
    return {
        "books": [_book_json(shelf, styles) for shelf in shelves],
        "accelerators": {name: asdict(accelerator) for name, accelerator in ACCELERATORS.items()},
    }


def _book_json(shelf: Shelf, styles: Mapping[str, Style]) -> dict[str, Any]:
    book, model = shelf.book, shelf.book.run_settings.get("model", {})
    runs = [{"group": run.group, "record": published_record(run)} for run in LARGE_RUNS if book.is_published]
    cooldown = None if book.cooldown is None else {**asdict(book.cooldown), "quantile": NORMAL_QUANTILE}
    names = ("convention", "sequence_length", "vocab_size", "bits_per_byte_per_nat", "largest_tuned_batch")
    return {
        "title": shelf.title,
        "option": shelf.option,
        "source": book.source,
        "notes": list(book.notes),
        **{name: getattr(book, name) for name in (*names, "available_tokens", "is_published")},
        "attention_sink": model.get("attention_sink", True),
        "mlp_bias": model.get("mlp_bias", True),
        "warmup_steps": book.run_settings.get("schedule", {}).get("warmup_steps"),
        "cooldown": cooldown,
        "published_runs": runs,
        "colors": {group: style.color for group, style in {**group_styles(book.groups), **styles}.items()},
        "groups": {group: _group_json(book, group) for group in book.groups},
    }


def _group_json(book: LawBook, group: str) -> dict[str, Any]:
    fit: Laws = book.fit(group)
    loss = fit.laws.get("loss")
    repeats = book.repeat_value(group)
    return {
        "group": fit.group,
        "flags": list(fit.flags),
        "flops_per_token": _law_json(fit.law("flops_per_token")),
        "tokens": _law_json(fit.law("tokens")),
        "loss": None if loss is None else _law_json(loss.law),
        "covariance": None if loss is None else loss.covariance,
        "scatter": fit.scatter,
        "quantile": student_quantile(LEVEL, max(fit.degrees_of_freedom, 1)),
        "surface": None if fit.surface is None else _surface_json(fit.surface),
        "smallest_budget": fit.smallest_budget,
        "largest_budget": fit.largest_budget,
        "batch_tokens": _law_json(book.batch_law(group)),
        "learning_rate": _law_json(book.learning_rate_law(group)),
        "knows_learning_rate": book.knows_learning_rate(group),
        "repeats": asdict(repeats),
        "knows_repeats": book.knows_repeats(group),
    }


def _law_json(law: PowerLaw) -> tuple[float, float]:
    return law.coefficient, law.exponent


def _surface_json(surface: SurfaceFit) -> dict[str, Any]:
    return {**{name: getattr(surface, name) for name in PARAMETERS}, "covariance": surface.covariance}


def planner_section(shelves: Sequence[Shelf], problems: Sequence[str]) -> Markup:
    """Controls and an empty plan; `problems` say which laws cannot be planned with, and why."""
    warnings = [element("p", text, class_="missing") for text in problems]
    if not shelves:
        return element("section", element("h2", "Planner"), warnings, id="planner")
    books = [element("option", shelf.title, value=str(index)) for index, shelf in enumerate(shelves)]
    controls = element(
        "div",
        _field("Laws", element("select", books, id="plan-laws")),
        _slider("noise", "Noise", low=0, high=0, step=1),
        _budget(),
        _limited("unique", "Unique tokens", "data is limited"),
        _hardware(),
        class_="controls",
    )
    result = element(
        "div",
        element("p", id="plan-headline", class_="headline", aria_live="polite"),
        element("p", id="plan-error", class_="missing", role="alert", hidden=True),
        element("div", element("table", id="plan-table"), class_="scroll", tabindex="0", role="region",
                aria_label="The plan in numbers"),
        element("ul", id="plan-flags", class_="caption"),
        element("p", "The same plan on the command line: ", element("code", id="plan-command"), class_="caption"),
        class_="plan",
    )  # fmt: skip
    return element(
        "section",
        element("h2", "Planner"),
        element(
            "p", "The run that spends a budget best, by the laws on this page. Losses are nats per token with 95 % "
            "intervals.", class_="caption",
        ),
        warnings,
        element("div", controls, result, class_="planner"),
        id="planner",
    )  # fmt: skip


def _budget() -> Markup:
    """What is given: compute, tokens or time; a slider for each, of which one is shown."""
    kinds = (("flops", "compute"), ("tokens", "tokens"), ("days", "time"))
    choice = [
        element(
            "label",
            element("input", type="radio", name="plan-kind", value=kind, checked=kind == "flops"),
            f" {text}",
        )
        for kind, text in kinds
    ]
    return element(
        "fieldset",
        element("legend", "Budget"),
        element("div", choice, class_="choices"),
        _slider("flops", "Compute (FLOPs)", typed=True),
        _slider("tokens", "Training tokens", typed=True),
        _slider("days", "Days on the machine", typed=True),
    )


def _hardware() -> Markup:
    names = [element("option", "none", value=""), *(element("option", name, value=name) for name in ACCELERATORS)]
    return element(
        "fieldset",
        element("legend", "Hardware"),
        _field("Accelerator", element("select", names, id="plan-gpu")),
        element(
            "div",
            _slider("count", "How many", low=0, high=MOST_DEVICES, step=1, typed=True),
            _slider("mfu", "Share of their peak (MFU)", low=0.05, high=1, step=0.01, typed=True, value=DEFAULT_MFU),
            _field("Peak FLOP/s, if yours differs", _typed("peak")),
            _field("US dollars per device and hour", _typed("price")),
            id="plan-machine",
        ),
    )


def _limited(name: str, label: str, switch: str) -> Markup:
    """A slider that counts only where its box is ticked."""
    box = element("label", element("input", type="checkbox", id=f"plan-has-{name}"), f" {switch}")
    return element("fieldset", element("legend", label), box, _slider(name, label, typed=True))


def _slider(
    name: str, label: str, *, low: float = 0, high: float = 1, step: float = 0.01, typed: bool = False,
    value: float = math.nan,
) -> Markup:  # fmt: skip
    """A slider with the number it stands for, which may be typed; controls.js sets ranges that depend on laws."""
    given = {} if math.isnan(value) else {"value": f"{value:g}"}
    bounds = {"min": f"{low:g}", "max": f"{high:g}", "step": f"{step:g}"}
    slider = element("input", type="range", id=f"plan-{name}-slider", aria_label=label, **bounds, **given)
    number = _typed(name) if typed else element("output", id=f"plan-{name}", for_=f"plan-{name}-slider")
    return element(
        "div", element("label", label, for_=f"plan-{name}" if typed else f"plan-{name}-slider"), number, slider,
        class_="slider", id=f"plan-{name}-row",
    )  # fmt: skip


def _typed(name: str) -> Markup:
    return element("input", type="text", inputmode="decimal", id=f"plan-{name}", autocomplete="off", spellcheck="false")


def _field(label: str, control: Child) -> Markup:
    return element("label", element("span", label), control, class_="field")
