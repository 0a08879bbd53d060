"""The planner on the page makes the plans of `noiselaw plan --json` to every digit, and refuses what it refuses."""

import json
import math
import shlex
import sys

import pytest

from noiselaw.cli import main as command_line
from noiselaw.cli import plan as plan_module
from noiselaw.laws import lawbook
from noiselaw.report import phrases
from noiselaw.report.figures import frontier
from noiselaw.report.page import desk_of, render_page
from noiselaw.report.results import read_results

RECIPE = {
    "batch_tokens": {"coefficient": 3.614e-3, "exponent": 0.8179},
    "learning_rate": {"coefficient": 0.0222, "exponent": 0.3412},
    "run": {"schedule": {"warmup_steps": 20}, "model": {"mlp_bias": False}},
}
OWN, PUBLISHED = 0, 1
H100 = {"gpu": "h100", "count": 64, "mfu": 0.4}
SETTINGS = (
    (OWN, "masked", {"flops": 3e16}),
    (OWN, "balanced", {"flops": 4.17e17}),
    (OWN, "autoregressive", {"flops": 1e13}),
    (OWN, "uniform", {"tokens": 2.5e9}),
    (OWN, "masked", {"flops": 6e16, "unique": 1.2e7}),
    (OWN, "autoregressive", {"flops": 5e17, "unique": 3e6}),
    (OWN, "uniform", {"days": 0.02, "gpu": "cpu", "peak": 1e11, "count": 2, "mfu": 0.55}),
    (OWN, "masked", {"flops": 1e25, "gpu": "rtx-4090", "count": 8, "mfu": 0.4}),
    (PUBLISHED, "masked", {"flops": 1e21, **H100}),
    (PUBLISHED, "uniform", {"flops": 1e22, "gpu": "h100", "count": 256, "mfu": 0.35, "price": 2.2}),
    (PUBLISHED, "balanced", {"flops": 3.3e20}),
    (PUBLISHED, "low-uniform", {"tokens": 1e11}),
    (PUBLISHED, "high-uniform", {"tokens": 2e12, "gpu": "tpu-v5p", "count": 512, "mfu": 0.5}),
    (PUBLISHED, "masked", {"flops": 1e22, "unique": 2e10}),
    (PUBLISHED, "uniform", {"flops": 1e21, "unique": 1e9, **H100}),
    (PUBLISHED, "masked", {"days": 7, "gpu": "b200", "count": 8, "mfu": 0.4}),
    (PUBLISHED, "uniform", {"days": 3, "unique": 5e9, "gpu": "a100", "count": 16, "mfu": 0.4}),
    (PUBLISHED, "balanced", {"flops": 1e24, "gpu": "a100", "count": 4, "mfu": 0.4}),
    (PUBLISHED, "masked", {"flops": 2e16}),
    (PUBLISHED, "uniform", {"flops": 8.8e30}),
)
REFUSED = (
    (OWN, "masked", {"tokens": 1e9, "unique": 1e8}),
    (PUBLISHED, "masked", {"days": 7}),
    (PUBLISHED, "masked", {"flops": 1e21, "unique": 0}),
    (PUBLISHED, "uniform", {"flops": 1e36}),
    (PUBLISHED, "uniform", {"flops": -1}),
    (PUBLISHED, "masked", {"flops": 1e21, "gpu": "cpu", "count": 1, "mfu": 0.4}),
    (PUBLISHED, "masked", {"flops": 1e21, "gpu": "h100", "count": 0, "mfu": 0.4}),
    (PUBLISHED, "masked", {"flops": 1e21, "gpu": "h100", "count": 1, "mfu": 1.5}),
    (PUBLISHED, "masked", {"flops": 1e21, "gpu": "h100", "count": 1, "mfu": 0.4, "peak": -2.5}),
)


@pytest.fixture(scope="module")
def study(study_folder, tmp_path_factory):
    """The made-up study with a recipe, so that its own batch, learning rate and warm-up stand in the book."""
    folder = tmp_path_factory.mktemp("a study") / "it's mine"
    folder.mkdir()
    for name in ("study.json", "laws.json", "curves.csv", "throughput.csv", "prediction.json", "confirmation.json"):
        (folder / name).write_text((study_folder / name).read_text())
    facts = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(facts | {"sequence_length": 256}))
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    return folder


@pytest.fixture(scope="module")
def planner_page(study, tmp_path_factory):
    results = read_results(study)
    page = tmp_path_factory.mktemp("planner") / "report.html"
    page.write_text(render_page(results, (frontier(results),), desk_of({study: results}, ["published"])), "utf-8")
    return page


@pytest.fixture(scope="module")
def published():
    return lawbook.published_book()


@pytest.fixture
def command(monkeypatch, capsys, published):
    """Runs `noiselaw plan ...`: its JSON, or its complaint. The published laws are fitted once."""
    monkeypatch.setattr(plan_module, "published_book", lambda: published)

    def run(words):
        monkeypatch.setattr(sys, "argv", ["noiselaw", "plan", *words, "--json"])
        try:
            command_line.main()
        except SystemExit:
            return capsys.readouterr().err.removeprefix("noiselaw: ").strip()
        return json.loads(capsys.readouterr().out)["plans"][0]

    return run


FILL = """([book, group, given]) => {
  const part = (name) => document.getElementById(`plan-${name}`);
  const tell = (element) => element.dispatchEvent(new Event("input", { bubbles: true }));
  const kind = ["flops", "tokens", "days"].find((name) => name in given);
  part("laws").value = String(book);
  tell(part("laws"));
  const noises = Object.keys(JSON.parse(document.getElementById("books").textContent).books[book].groups);
  part("noise-slider").value = String(noises.indexOf(group));
  document.querySelector(`input[name=plan-kind][value=${kind}]`).checked = true;
  part("gpu").value = given.gpu ?? "";
  part("has-unique").checked = "unique" in given;
  for (const name of [kind, "unique", "count", "mfu"]) if (name in given) part(name).value = String(given[name]);
  for (const name of ["peak", "price"]) part(name).value = String(given[name] ?? "");
  tell(part(kind));
  return {
    plan: document.getElementById("planner").dataset.plan, error: part("error").hidden ? "" : part("error").textContent,
    command: part("command").textContent, headline: part("headline").textContent, noise: part("noise").textContent,
    rows: Object.fromEntries([...part("table").rows].map(({ cells }) => [cells[0].textContent, cells[1].textContent])),
    flags: [...part("flags").children].map((flag) => flag.textContent),
  };
}"""

OPTIONS = {
    "flops": "--flops", "tokens": "--tokens", "days": "--days", "unique": "--unique-tokens", "gpu": "--gpu",
    "count": "--count", "mfu": "--mfu", "peak": "--peak-flops", "price": "--price-per-hour",
}  # fmt: skip


def words_of(book, group, given, study):
    own = ["--laws", str(study)] if book == OWN else []
    return [*own, "--noise", group, *(word for name, value in given.items() for word in (OPTIONS[name], str(value)))]


def same(found, expected, where=""):
    """Numbers to 12 digits, whole ones up to 2^53 and everything else exactly."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for name, value in expected.items():
            same(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            same(found[index], value, f"{where}[{index}]")
    elif isinstance(expected, float) or (isinstance(expected, int) and expected > 2**53):
        assert math.isclose(found, expected, rel_tol=1e-12), f"{where}: {found} for {expected}"
    else:
        assert found == expected, where


def test_the_plans_of_twenty_settings_are_those_of_the_command(visit, planner_page, study, command):
    page = visit(planner_page)
    assert len(SETTINGS) == 20
    for book, group, given in SETTINGS:
        shown = page.evaluate(FILL, [book, group, given])
        plan = command(words_of(book, group, given, study))
        assert shown["error"] == "", given
        same(json.loads(shown["plan"]), plan, f"{group} {given}")
        check_text(shown, plan)
    assert page.complaints == []


def check_text(shown, plan):
    """What the page prints is the plan of the command, rounded as the terminal rounds it."""
    rows, loss = shown["rows"], plan["loss"]
    assert shown["noise"] == plan["noise"]
    assert rows["training FLOPs"] == phrases.scientific(plan["flops"])
    assert rows["layers × width"] == f"{plan['layers']} × {plan['width']}"
    assert rows["parameters without embedding"] == phrases.count(plan["params"])
    assert rows["FLOPs per token"] == phrases.scientific(plan["flops_per_token"])
    assert rows["tokens"] == phrases.count(plan["tokens"])
    assert rows["tokens per parameter"] == f"{plan['tokens_per_parameter']:.1f}"
    assert rows["batch"] == f"{plan['batch_sequences']:,} × {plan['sequence_length']:,} tokens"
    assert rows["steps"] == f"{plan['steps']:,}"
    assert rows["of them"] == f"{plan['warmup_steps']:,} warm-up, {plan['cooldown_steps']:,} cooldown"
    assert rows["learning rate"] == f"{plan['learning_rate']:.3g}"
    assert rows["loss, nats per token"] == f"{loss['value']:.3f}"
    assert rows["95 % interval"] == "{:.3f} to {:.3f}".format(*loss["interval"])
    assert rows["bits per byte"] == f"{plan['bits_per_byte']['value']:.4f}"
    assert rows.get("epochs") == (None if plan["epochs"] is None else f"{plan['epochs']:.3g}")
    assert rows["beyond the largest budget"] == f"{plan['extrapolation_factor']:.3g} times"
    on = plan["resources"]
    if on is not None:
        cost = None if on["cost"] is None else f"${on['cost']:,.0f}"
        days = on["seconds"] / 86_400
        assert rows.get("cost") == cost
        assert rows["wall-clock"] == (phrases.duration(on["seconds"]) if days < 2 else f"{days:,.1f} days")
        assert rows["memory per device"].startswith(f"{on['memory_bytes']['total'] / 1e9:.1f}")
    assert shown["flags"][len(shown["flags"]) - len(plan["flags"]) :] == plan["flags"]
    assert f"loss {loss['value']:.3f}" in shown["headline"]


def test_what_cannot_be_planned_is_refused_in_the_words_of_the_command(visit, planner_page, study, command):
    page = visit(planner_page)
    for book, group, given in REFUSED:
        shown = page.evaluate(FILL, [book, group, given])
        assert shown["error"] == command(words_of(book, group, given, study)), given
        assert (shown["plan"], shown["rows"], shown["headline"]) == ("", {}, "")
    shown = page.evaluate(FILL, [PUBLISHED, "masked", {"flops": "much"}])
    assert shown["error"] == "Compute (FLOPs) “much”: give a number"
    assert page.complaints == []


def test_the_command_on_the_page_is_the_same_plan(visit, planner_page, study, command):
    page = visit(planner_page)
    for book, group, given in (SETTINGS[4], SETTINGS[6], SETTINGS[9]):
        shown = page.evaluate(FILL, [book, group, given])
        words = shlex.split(shown["command"])
        assert words[:2] == ["noiselaw", "plan"]
        same(json.loads(shown["plan"]), command(words[2:]))


def test_sliders_move_the_plan_by_keyboard_and_fit_a_phone(visit, planner_page):
    page = visit(planner_page, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    noise, compute, headline = (page.locator(f"#plan-{name}") for name in ("noise-slider", "flops-slider", "headline"))
    noise.focus()
    before = headline.text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#plan-noise").text_content() == "balanced"
    assert noise.get_attribute("aria-valuetext") == "balanced"
    assert headline.text_content() != before
    compute.focus()
    number = float(page.locator("#plan-flops").input_value())
    page.keyboard.press("ArrowRight")
    stop = round(math.log10(number), 2) + 0.01  # the slider stops at hundredths of a decade
    assert float(page.locator("#plan-flops").input_value()) == float(f"{10**stop:.3g}")
    assert page.complaints == []


def test_laws_that_no_plan_can_read_are_named(study, tmp_path):
    laws = json.loads((study / "laws.json").read_text())
    for group in laws["groups"].values():
        group["laws"]["tokens"]["exponent"] = "steep"
    (tmp_path / "laws.json").write_text(json.dumps(laws))
    results = read_results(study)
    desk = desk_of({tmp_path: results})
    assert desk.shelves == ()
    assert "No plans from the laws of laptop" in desk.problems[0]
    assert "No plans from the laws of laptop" in render_page(results, (), desk)
    with pytest.raises(ValueError, match="laws"):
        desk_of({}, [str(tmp_path)])
