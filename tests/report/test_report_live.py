"""A study while it runs: its page follows the run folders, its server shows nothing else, the terminal has a table."""

import html
import json
import threading
import urllib.error
import urllib.request

import pytest
from browsing import wait_until
from synthetic_study import write_study

from noiselaw.cli import watch as watch_command
from noiselaw.report.live import LivePage, live_results, serve, study_states
from noiselaw.study.ledger import Status

RECIPE = {
    "name": "<script><b>live",
    "data": {"source": "python", "tokenizer": "bpe:259", "sequence_length": 32},
    "groups": ["masked", "uniform"],
    "shapes": [{"num_layers": 1, "width": width, "num_heads": 1} for width in (8, 16, 24, 32)],
    "budgets_flops": [1e8, 2e8, 4e8, 8e8],
    "batch_tokens": {"coefficient": 256, "exponent": 0},
    "learning_rate": {"coefficient": 0.3, "exponent": 0},
    "confirmation": {"groups": ["masked"], "candidates": [{"num_layers": 1, "width": 48, "num_heads": 1}]},
    "run": {},
}


@pytest.fixture
def study(tmp_path, tiny_data):
    """A study of which nothing has run yet."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    (folder / "data").symlink_to(tiny_data)
    return folder


def train(state, *, step, loss):
    """What a run has written by some step."""
    folder = state.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    tokens = step * state.run.spec.tokens_per_step
    rows = [
        {"kind": "train", "step": step, "loss": loss},
        {"kind": "validation", "step": step, "tokens": tokens, "flops": tokens * state.run.flops_per_token,
         "loss": loss, "standard_error": 0.01, "bits_per_byte": loss},
        {"kind": "speed", "step": step, "tokens_per_second": 1e4, "model_flops_per_second": 1e9,
         "share_of_matmul_peak": 0.2, "seconds": 3.0},
    ]  # fmt: skip
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def address(study):
    """Where the study is served."""
    with serve(LivePage(study)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_results_follow_the_run_folders(study):
    before = live_results(study)
    assert before.facts.name == RECIPE["name"]
    assert before.groups == ("masked", "uniform")
    assert {state.status for state in before.states} == {"waiting"}
    assert len(before.curves) == 0
    first = study_states(study)[0]
    train(first, step=5, loss=4.5)
    train(first, step=10, loss=4.25)
    with (first.run.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "validation", "step": 11, "lo')  # a row being written
    now = live_results(study)
    assert now.curves["loss"].to_list() == [4.5, 4.25]
    assert (now.states[0].status, now.states[0].loss, now.states[0].tokens_per_second) == ("started", 4.25, 1e4)
    assert "curves.csv" not in now.missing
    assert "laws.json" in now.missing


def test_a_study_whose_data_are_being_prepared_has_a_page(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    assert "Not there yet" in LivePage(tmp_path).page()
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(ValueError, match="no study here"):
        LivePage(tmp_path)


def test_a_study_that_came_without_its_runs_is_served_as_it_stands(tmp_path):
    results = live_results(write_study(tmp_path / "study"))
    assert results.states == ()
    assert len(results.curves) > 0


def test_the_page_in_the_browser_follows_the_study(visit, study, address):
    page = visit(address)
    assert page.locator("h1").text_content() == RECIPE["name"]
    assert page.locator(".plot").count() == 0
    states = study_states(study)
    train(states[0], step=5, loss=4.5)
    train(states[0], step=10, loss=4.25)
    wait_until(page, "document.querySelectorAll('.plot .js-line').length > 0")
    button = page.get_by_role("button", name="masked")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    train(next(state for state in states if state.run.group == "uniform"), step=5, loss=4.75)
    wait_until(page, "document.getElementById('table-progress').textContent.includes('4.7500')")
    wait_until(page, "document.querySelector('html[data-drawn]') && document.querySelectorAll('.plot').length > 6")
    assert page.get_by_role("button", name="masked").get_attribute("aria-pressed") == "false"
    assert page.complaints == []


def test_the_server_shows_the_page_to_this_machine_and_nothing_else(study, address):
    status, text, headers = ask(address)
    assert status == 200
    assert "connect-src 'self'" in html.unescape(text)
    assert "<b>live" not in text
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    for path in ("/recipe.json", "/../recipe.json", "/%2e%2e/recipe.json", "//etc/passwd", "/data/manifest.json"):
        assert ask(address + path)[0] == 404
    assert ask(address, Host="example.org")[0] == 403
    assert ask(f"{address}/news", Host="example.org:80")[0] == 403
    request = urllib.request.Request(address, data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 501
    refused.value.close()
    assert address.startswith("http://127.0.0.1:")


def test_news_are_told_once(study, address):
    _, text, _ = ask(address)
    version = text.split('data-version="')[1].split('"')[0]
    assert ask(f"{address}/news?than={version}")[:2] == (204, "")
    train(study_states(study)[0], step=5, loss=4.5)
    status, news, _ = ask(f"{address}/news?than={version}")
    assert status == 200
    assert version not in news
    assert len(news) < len(text) / 4
    before = sorted(path for path in study.rglob("*"))
    assert ask(f"{address}/news?than={version}")[0] == 200
    assert sorted(path for path in study.rglob("*")) == before


def test_a_damaged_file_is_told_and_heals(study, address):
    (study / "laws.json").write_text("{")
    status, text, _ = ask(address)
    assert status == 503
    assert "laws.json" in text
    (study / "laws.json").unlink()
    assert ask(address)[0] == 200


def test_the_terminal_has_the_table_of_runs(study, monkeypatch, capsys):
    for state in study_states(study):
        train(state, step=5, loss=4.5)
        last = {
            "validation": {"loss": 4.5},
            "speed": {"tokens_per_second": 1e4, "share_of_matmul_peak": 0.2, "seconds": 3.0},
        }
        (state.run.folder / "result.json").write_text(json.dumps(last))
    (study / "confirmation.json").write_text("{}")
    assert {state.status for state in study_states(study)} == {Status.DONE}
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(watch_command.sys, "platform", "linux")
    watch_command.watch(study)
    printed = capsys.readouterr().out
    assert "8 of 8 runs done" in printed
    assert printed.count("4.5000") == 8
    with pytest.raises(ValueError, match="--port 80"):
        watch_command.watch(study, terminal=True, port=80)
    with pytest.raises(ValueError, match="no study"):
        watch_command.watch(study.parent, terminal=True)
