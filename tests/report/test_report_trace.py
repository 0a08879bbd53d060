"""The trace page: what it holds, and that it plays in a real browser, whatever the text says."""

import json
import re

import numpy as np
import pytest
from browsing import wait_until
from pageparser import parse_page

from noiselaw.report.document import package_file
from noiselaw.report.trace import SHADES, Trace, TraceFrame, render_trace, trace_data

HOSTILE = [
    "</script><script>window.owned=1</script>",
    "\"><img src=x onerror='window.owned=1'>",
    "<b>&amp;</b>\u2028<!--",
    "a\n",
]
MASK, NUM_STEPS, LENGTHS = 4, 6, (8, 5)


def make_trace():
    """Two texts of masks that become tokens one after the other; the first token of each is given."""
    draw = np.random.default_rng(0)
    tokens = np.full((2, 8), MASK)
    tokens[:, 0] = 3
    frames = [TraceFrame(0, -9.0, tokens.copy(), np.ones((2, 8)), (tokens == MASK).astype(float))]
    for step in range(1, NUM_STEPS + 1):
        tokens[:, step] = draw.integers(0, 4, 2)
        support = np.where(tokens == MASK, 0.0, 0.25)
        level = None if step == NUM_STEPS else -9.0 + 3 * step
        frames.append(TraceFrame(step, level, tokens.copy(), support, (tokens == MASK) * 1.0))
    return Trace(
        title="</title><script>window.owned=1</script>",
        facts=(("prompt", HOSTILE[0]), ("noise", "masked")),
        given=np.arange(8)[None, :] < np.array([[1], [1]]),
        ends=LENGTHS,
        frames=tuple(frames),
        pieces={0: HOSTILE[0], 1: HOSTILE[1], 2: HOSTILE[2], 3: HOSTILE[3], MASK: "░"},
        mask_id=MASK,
        texts=(HOSTILE[1], "plain"),
    )


@pytest.fixture(scope="module")
def trace_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "out.html"
    path.write_text(render_trace(make_trace()), encoding="utf-8")
    return path


def test_data_give_every_frame_back():
    trace = make_trace()
    data = trace_data(trace)
    assert [tuple(frame) for frame in data["frames"]] == [(frame.step, frame.log_snr) for frame in trace.frames]
    ids = sorted(trace.pieces)
    for row, sample in enumerate(data["samples"]):
        tokens = np.full(LENGTHS[row], -1)
        for (changes, support, noise), frame in zip(sample["frames"], trace.frames, strict=True):
            for position, place in changes:
                tokens[position] = ids[place]
            assert tokens.tolist() == frame.tokens[row, : LENGTHS[row]].tolist()
            for letters, values in ((support, frame.support), (noise, frame.noise)):
                found = np.array([SHADES.index(letter) for letter in letters]) / (len(SHADES) - 1)
                np.testing.assert_allclose(found, values[row, : LENGTHS[row]], atol=0.5 / (len(SHADES) - 1))
    later = [change for sample in data["samples"] for frame in sample["frames"][1:] for change in frame[0]]
    assert len(later) == 6 + 4, "only what changed is written again"


def test_the_page_is_one_file_with_nothing_to_fetch(trace_page):
    page = parse_page(trace_page)
    attributes = [name for _, named in page.elements for name in named]
    assert not {"src", "href", "onclick", "onerror"} & set(attributes)
    (policy,) = [named["content"] for tag, named in page.elements if named.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    data, script = page.scripts
    assert json.loads(data)["pieces"][0] == HOSTILE[0]
    assert not re.search(r"fetch|import|https?://(?!www\.w3\.org/2000/svg)", script)
    assert not re.search(r"url\(|@import", package_file("trace.css") + package_file("page.css"))


def text_of(page, row):
    return page.locator(".text").nth(row).evaluate("box => [...box.children].map(span => span.textContent)")


def test_it_plays_to_the_end_and_starts_again(visit, trace_page):
    page = visit(trace_page)
    assert page.locator("html").get_attribute("data-frame") == "0"
    assert text_of(page, 0) == ["a↵\n", *["░"] * 7]
    page.locator("#speed").select_option("40")
    page.get_by_role("button", name="Play").click()
    wait_until(page, f"document.documentElement.dataset.frame === '{NUM_STEPS}'")
    wait_until(page, "document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    assert "░" not in text_of(page, 0)[1:7]
    assert page.locator("#where").text_content() == f"step {NUM_STEPS} of {NUM_STEPS}"
    page.get_by_role("button", name="Play").click()
    wait_until(page, "Number(document.documentElement.dataset.frame) < 6")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("file://")] == []


def test_hostile_text_is_shown_as_text(visit, trace_page):
    page = visit(trace_page)
    page.locator("#step").fill(str(NUM_STEPS))
    shown = "".join(text_of(page, 0) + text_of(page, 1))
    assert any(text.replace("\n", "↵\n") in shown for text in HOSTILE[:3])
    assert page.locator("h1").text_content() == "</title><script>window.owned=1</script>"
    assert page.locator(".facts dd").first.text_content() == HOSTILE[0]
    assert page.locator("pre").first.text_content() == HOSTILE[1]
    assert page.locator(".text img, .text script, pre img, dl script").count() == 0
    page.locator(".text b").nth(3).hover()
    assert page.evaluate("typeof window.owned") == "undefined"
    assert page.complaints == []


def test_keys_and_slider_step_through(visit, trace_page):
    page = visit(trace_page)
    frame = page.locator("html")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert frame.get_attribute("data-frame") == "2"
    page.keyboard.press("ArrowLeft")
    assert frame.get_attribute("data-frame") == "1"
    page.keyboard.press("End")
    assert frame.get_attribute("data-frame") == str(NUM_STEPS)
    page.keyboard.press("Home")
    assert frame.get_attribute("data-frame") == "0"
    page.locator("#speed").select_option("2")
    page.locator("#speed").blur()
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").startswith("step ")
    page.get_by_role("button", name="One step back").click()
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.localName"
            )
        )
    assert {"forward", "step", "speed", "colour", "summary"} <= reached


def depths(page):
    return page.locator(".text").first.evaluate(
        "box => [...box.children].map(span => Number(span.style.getPropertyValue('--p') || 0))"
    )


def test_each_colour_means_what_it_says(visit, trace_page):
    page = visit(trace_page)
    page.locator("#step").fill("3")
    assert depths(page) == [0, 0, 0, 0, 1, 1, 1, 1]
    page.get_by_label("Confidence").check()
    assert depths(page) == pytest.approx([0, 0.75, 0.75, 0.75, 0, 0, 0, 0], abs=0.02)
    page.get_by_label("Change").check()
    found = depths(page)
    assert found[3] == 1
    assert found[1] < found[2] < found[3]
    assert found[4:] == [0, 0, 0, 0]
    assert page.locator(".text").first.locator("b.now").count() == 1
    assert page.locator(".text").first.locator("b.mask").count() == 4
    page.locator(".text").first.locator("b").nth(3).hover()
    title = page.locator(".text").first.locator("b").nth(3).get_attribute("title")
    assert title == "noise 0 %, confidence 25 %, written at step 3"


def test_it_fits_a_phone_and_follows_light_and_dark(visit, trace_page):
    page = visit(
        trace_page, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme="dark"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = page.evaluate("getComputedStyle(document.querySelector('.text')).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.querySelector('.text')).backgroundColor") != dark
    wide = visit(trace_page, viewport={"width": 1280, "height": 800})
    first, second = (wide.locator(".sample").nth(row).bounding_box() for row in range(2))
    assert first["y"] == second["y"], "samples stand side by side"
