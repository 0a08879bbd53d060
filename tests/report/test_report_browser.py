"""The page in a real browser: everything is drawn, nothing complains, hostile names do nothing."""

import json

from browsing import wait_until

MARKS = "[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.js-line, .point').length)"
FAULTS = """[...document.querySelectorAll('.plot')].flatMap(({ data, layout }) => Plotly.validate(data, layout) ?? [])
  .filter(({ code }) => code !== 'unused').map(({ msg }) => msg)"""
BAD_LABELS = """[...document.querySelectorAll('.plot')].flatMap((plot) => {
  const labels = [...plot.querySelectorAll('.textpoint text')].filter((one) => one.textContent);
  const boxes = labels.map((one) => one.getBoundingClientRect()), edges = plot.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && Math.abs(a.top - b.top) < 7;
  const cut = boxes.filter((box) => box.left < edges.left - 1 || box.right > edges.right + 6);
  return [...cut, ...boxes.filter((box, index) => boxes.slice(index + 1).some((other) => meet(box, other)))];
}).length"""
FITS = """[...document.querySelectorAll('.plot')].every(
  (plot) => Math.abs(plot.querySelector('.main-svg').getBoundingClientRect().width - plot.clientWidth) < 1)"""


def num_marks(page) -> list[int]:
    """Curves and points drawn in every plot."""
    return page.evaluate(MARKS)


def test_every_figure_is_drawn_without_a_complaint(visit, report_page):
    page = visit(report_page)
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file://", "data:", "blob:"))] == []
    marks = num_marks(page)
    assert len(marks) == 4 + 4 + 3 + 2 + 2 + 2 + 2 + 3 + 1 + 2
    assert min(marks) >= 5
    assert page.evaluate(FAULTS) == []
    assert page.locator(".textpoint").count() > 20
    assert page.evaluate(BAD_LABELS) == 0
    star = page.locator(".plot").nth(4).locator(".point").last
    star.hover(force=True)
    page.locator(".hovertext").first.wait_for()
    assert "nats per token" in page.locator(".hovertext").first.text_content()


def test_the_overview_fits_a_screen(visit, report_page):
    page = visit(report_page, viewport={"width": 1280, "height": 800})
    assert page.locator(".overview").bounding_box()["y"] + page.locator(".overview").bounding_box()["height"] <= 800
    assert page.locator(".overview .scroll").evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")


def test_nothing_is_wider_than_a_phone(visit, report_page):
    page = visit(report_page, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot.clientWidth > 300)")
    assert page.evaluate(BAD_LABELS) == 0


def test_figures_follow_the_width_of_the_window(visit, report_page):
    page = visit(report_page)
    assert page.evaluate(FITS)
    page.set_viewport_size({"width": 700, "height": 800})
    wait_until(page, FITS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_on_paper_figures_are_light_and_as_wide_as_the_page(visit, report_page):
    page = visit(report_page, color_scheme="dark")
    fill = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    dark = page.evaluate(fill)
    page.emulate_media(media="print")
    light = page.evaluate(f"(dispatchEvent(new Event('beforeprint')), {fill})")
    assert light != dark
    assert page.evaluate(FITS)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    wait_until(page, f"{fill} === '{dark}'")
    assert page.complaints == []


def test_a_noise_can_be_switched_off_and_on(visit, report_page):
    page = visit(report_page)
    before = num_marks(page)
    button = page.get_by_role("button", name="masked")
    button.focus()
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('.plot').querySelectorAll('.js-line, .point').length === 0")
    assert button.get_attribute("aria-pressed") == "false"
    assert sum(num_marks(page)) < sum(before)
    button.click()
    wait_until(page, f"JSON.stringify({MARKS}) === {json.dumps(json.dumps(before, separators=(',', ':')))}")


def test_dark_pages_have_dark_figures(visit, report_page):
    page = visit(report_page, color_scheme="light")
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{ink} !== '{light}'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert page.complaints == []


def test_hostile_names_are_shown_and_never_run(visit, hostile_page, hostile_names):
    page = visit(hostile_page)
    assert page.complaints == []
    assert page.evaluate("typeof window.owned") == "undefined"
    shown = page.locator(".panel h4").all_text_contents()
    assert set(hostile_names.values()) <= set(shown)
    assert page.locator(".plot b, .plot a, .plot img, .plot script").count() == 0
    page.locator(".plot").first.hover()
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.owned") == "undefined"
