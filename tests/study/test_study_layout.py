"""How many runs side by side: the measurement, the choice, and that it is made once."""

from dataclasses import replace

import pytest

from noiselaw.files import read_json
from noiselaw.study import layout as layout_module
from noiselaw.study.design import grid_runs
from noiselaw.study.layout import choose_layout, measure_layout


@pytest.fixture
def runs(tiny_data, tmp_path, site):
    (tmp_path / "data").symlink_to(tiny_data)
    return grid_runs(site())


def pretend(monkeypatch, cores, rates):
    """A machine of `cores` cores where so many workers make so many tokens per second; returns what is asked."""
    asked = []
    monkeypatch.setattr(layout_module, "available_cores", lambda: list(range(cores)))
    monkeypatch.setattr(
        layout_module, "_tokens_per_second", lambda _run, workers, _scratch: asked.append(workers) or rates[workers]
    )
    return asked


def test_the_fastest_layout_is_chosen_once_and_kept(runs, tmp_path, monkeypatch):
    asked = pretend(monkeypatch, 8, {8: 100.0, 4: 130.0, 2: 120.0, 1: 10.0})
    said = []
    assert choose_layout(tmp_path, runs, said.append) == 4
    assert asked == [8, 4, 2]
    rates = "8 x 1 thread(s) 100, 4 x 2 thread(s) 130, 2 x 4 thread(s) 120"
    assert said == [f"layout: 4 runs side by side (tokens/s in all: {rates})"]
    assert choose_layout(tmp_path, runs, said.append) == 4
    assert len(asked) == 3
    assert read_json(tmp_path / "layout.json")["tokens_per_second"] == {"8": 100.0, "4": 130.0, "2": 120.0}


def test_another_machine_measures_anew(runs, tmp_path, monkeypatch):
    pretend(monkeypatch, 2, {2: 2.0, 1: 1.0})
    assert choose_layout(tmp_path, runs, str) == 2
    pretend(monkeypatch, 4, {4: 1.0, 2: 2.0, 1: 3.0})
    assert choose_layout(tmp_path, runs, str) == 1


def test_a_real_measurement_writes_nothing_but_its_choice(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(layout_module, "MEASURE_SECONDS", 0.2)
    before = set(tmp_path.iterdir())
    found = measure_layout(runs[0], tmp_path / ".measure.json")
    assert all(rate > 0 for rate in found.tokens_per_second.values())
    assert set(tmp_path.iterdir()) == before


def test_a_run_that_fails_says_so(runs, tmp_path):
    runtime = runs[0].spec.runtime.model_copy(update={"device": "cuda:9"})
    broken = replace(runs[0], spec=runs[0].spec.model_copy(update={"runtime": runtime}))
    with pytest.raises(ValueError, match=r"runtime\.device is 'cuda:9' but torch sees no GPU"):
        measure_layout(broken, tmp_path / ".measure.json")
