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


@pytest.fixture
def study(site):
    return site().study


def pretend(monkeypatch, cores, rates, gpus=""):
    """A machine where so many workers make so many tokens per second; returns what is asked."""
    asked = []
    monkeypatch.setattr(layout_module, "available_cores", lambda: list(range(cores)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(
        layout_module, "_tokens_per_second", lambda _run, workers, _scratch: asked.append(workers) or rates[workers]
    )
    return asked


def test_the_fastest_layout_is_chosen_once_and_kept(runs, study, tmp_path, monkeypatch):
    asked = pretend(monkeypatch, 8, {8: 100.0, 4: 130.0, 2: 120.0, 1: 10.0})
    said = []
    assert choose_layout(study, tmp_path, runs, said.append).num_workers == 4
    assert asked == [8, 4, 2]
    rates = "8 x 1 thread(s) 100, 4 x 2 thread(s) 130, 2 x 4 thread(s) 120"
    assert said == [f"layout: 4 runs side by side (tokens/s in all: {rates})"]
    assert choose_layout(study, tmp_path, runs, said.append).num_workers == 4
    assert len(asked) == 3
    assert read_json(tmp_path / "layout.json")["tokens_per_second"] == {"8": 100.0, "4": 130.0, "2": 120.0}


def test_another_machine_measures_anew(runs, study, tmp_path, monkeypatch):
    pretend(monkeypatch, 2, {2: 2.0, 1: 1.0})
    assert choose_layout(study, tmp_path, runs, str).num_workers == 2
    pretend(monkeypatch, 4, {4: 1.0, 2: 2.0, 1: 3.0})
    assert choose_layout(study, tmp_path, runs, str).num_workers == 1


def test_several_runs_share_a_gpu_where_that_is_faster(runs, study, tmp_path, monkeypatch):
    asked = pretend(monkeypatch, 16, {2: 100.0, 4: 150.0, 8: 140.0, 16: 10.0}, gpus="0,1")
    layout = choose_layout(study, tmp_path, runs, str)
    assert asked == [2, 4, 8]
    assert (layout.num_workers, layout.num_gpus, layout.threads(99)) == (4, 2, 4)
    assert choose_layout(study, tmp_path, runs, str).num_workers == 4
    assert len(asked) == 3
    pretend(monkeypatch, 16, {16: 2.0, 8: 1.0})  # the GPUs are gone
    assert choose_layout(study, tmp_path, runs, str).num_workers == 16


def test_the_recipe_decides_where_it_says_so(runs, site, tmp_path, monkeypatch):
    asked = pretend(monkeypatch, 16, {}, gpus="0,1")
    for changes, workers, threads in (
        ({"num_workers": 3}, 3, 5),
        ({"gpus_per_run": 0.5}, 4, 4),
        ({"gpus_per_run": 2}, 1, 16),
        ({"run.runtime.num_threads": 4, "run.runtime.device": "cpu"}, 4, 4),
        ({"run.runtime.num_threads": 4, "executor": "slurm"}, 4, 4),
    ):
        layout = choose_layout(site(**changes).study, tmp_path, runs, str)
        assert (layout.num_workers, layout.threads(99)) == (workers, threads)
    assert asked == []
    assert not (tmp_path / "layout.json").exists()


def test_a_clusters_runs_keep_their_threads_wherever_the_study_is_started(runs, site, tmp_path, monkeypatch):
    pretend(monkeypatch, 8, {8: 1.0, 4: 2.0, 2: 1.0})
    study = site(executor="ray").study
    assert choose_layout(study, tmp_path, runs, str).threads(99) == 2
    pretend(monkeypatch, 64, {})
    assert choose_layout(study, tmp_path, runs, str).threads(99) == 2


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
