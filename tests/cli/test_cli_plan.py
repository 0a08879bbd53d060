"""`noiselaw plan` from the command line: what it prints, what it writes, what it refuses."""

import json
import math
import sys

import numpy as np
import pytest
import yaml

from noiselaw.accounting import flops_per_token
from noiselaw.cli import main as command_line
from noiselaw.cli import plan as plan_module
from noiselaw.laws import fit_tables, tabulate_points, to_json
from noiselaw.laws.lawbook import published_book
from noiselaw.specs import RunSpec, parse_spec, read_mapping

KEYS = {
    "noise", "layers", "width", "heads", "params", "flops_per_token", "tokens", "batch_sequences", "sequence_length",
    "steps", "learning_rate", "loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def book():
    return published_book(num_draws=200)


@pytest.fixture
def run(monkeypatch, capsys, book):
    """Runs the command; returns what it printed. The published laws are fitted once for all tests."""
    monkeypatch.setattr(plan_module, "published_book", lambda: book)
    monkeypatch.setenv("COLUMNS", "160")

    def run_plan(*words):
        monkeypatch.setattr(sys, "argv", ["noiselaw", "plan", *map(str, words)])
        command_line.main()
        return capsys.readouterr()

    return run_plan


@pytest.fixture
def refused(run, capsys):
    """Runs a command that must fail; returns its message."""

    def run_refused(*words):
        with pytest.raises(SystemExit) as stop:
            run(*words)
        assert stop.value.code == command_line.EXIT_USER_ERROR
        return capsys.readouterr().err

    return run_refused


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The files of a study that a plan reads, with laws for two groups."""
    flops, size = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e11, 1e12, 5), np.geomspace(1e5, 2e6, 6)))
    optimal = 4e5 * (flops / 3e11) ** 0.5
    loss = 60 * flops**-0.11 * np.exp(0.02 * np.log(size / optimal) ** 2)
    table = {
        group: tabulate_points(
            group=[group] * size.size, params=size / 7, flops_per_token=size, flops=flops, loss=factor * loss
        )[group]
        for group, factor in {"masked": 1.0, "autoregressive": 0.9}.items()
    }
    folder = tmp_path_factory.mktemp("study")
    records = {
        "laws": to_json(fit_tables(table, num_draws=50), "72Ld2+12Lds"),
        "study": {
            "sequence_length": 64,
            "data": {"vocab_size": 259, "bytes_per_token": 1.1, "train_tokens": 1_000_000_000},
        },
        "recipe": {
            "batch_tokens": {"coefficient": 3.614e-3, "exponent": 0.8179},
            "learning_rate": {"coefficient": 0.0222, "exponent": 0.3412},
            "run": {"schedule": {"warmup_steps": 20}, "validation": {"draws": 2}, "diffusion": {"min_log_snr": -8.0}},
        },
    }
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def plans(printed):
    return json.loads(printed.out)["plans"]


def test_json_holds_the_papers_own_choices(run):
    (masked,) = plans(run("--flops", "1e21", "--noise", "masked", "--json"))
    assert masked.keys() >= KEYS
    assert (masked["layers"], masked["width"], masked["heads"]) == (18, 3072, 24)
    assert (masked["batch_sequences"], masked["sequence_length"], masked["steps"]) == (1536, 2048, 23_500)
    assert masked["loss"]["interval"][0] < masked["loss"]["value"] < masked["loss"]["interval"][1]
    (uniform,) = plans(run("--flops", "1e22", "--noise", "uniform", "--json"))
    assert (uniform["layers"], uniform["width"], uniform["heads"]) == (34, 4608, 36)
    assert uniform["batch_sequences"] == 3072
    assert uniform["published"]["name"] == "unif-10b"
    assert uniform["published"]["steps"] == 29_000


def test_noises_stand_side_by_side_in_the_order_asked_for(run):
    side_by_side = plans(run("--flops", "1e20", "--noise", "uniform", "masked", "--json"))
    assert [plan["noise"] for plan in side_by_side] == ["uniform", "masked"]
    everything = plans(run("--flops", "1e20", "--json"))
    assert [plan["noise"] for plan in everything] == ["masked", "low-uniform", "balanced", "high-uniform", "uniform"]


def test_the_table_shows_plan_and_paper(run):
    shown = run(
        "--flops", "1e22", "--noise", "masked", "uniform", "--gpu", "h200", "--count", "64", "--mfu", "0.45"
    ).out
    rows = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert shown.splitlines()[0].split() == ["masked", "uniform", "paper:", "unif-10b"]
    assert rows["layers × width"].count("34 × 4608") == 2
    assert rows["steps"].split()[-2:] == ["28,500", "29,000"]
    assert "2.214 measured" in rows["loss, nats per token"]
    assert "64 h200 at 45% of peak" in rows["machine"]
    assert rows["wall-clock"].split()[-2:] == ["4.3", "days"]
    assert "epochs" not in rows
    assert "masked, uniform: learning rate extrapolated" in shown


def test_other_budgets(run):
    (by_tokens,) = plans(run("--tokens", "2e12", "--noise", "uniform", "--json"))
    assert 2e12 <= by_tokens["tokens"] <= 2.05e12
    (by_time,) = plans(
        run("--gpu", "h200", "--count", "64", "--days", "10", "--mfu", "0.45", "--noise", "uniform", "--json")
    )
    assert 9.5 < by_time["resources"]["seconds"] / 86_400 <= 10
    (scarce,) = plans(run("--flops", "1e22", "--noise", "uniform", "--unique-tokens", "20e9", "--json"))
    assert scarce["epochs"] == pytest.approx(scarce["tokens"] / 20e9)
    assert scarce["epochs"] > 5
    assert any("autoregressive" in flag for flag in scarce["flags"])


def test_the_command_line_goes_before_the_book(run):
    (plan,) = plans(
        run("--flops", "1e20", "--noise", "masked", "--sequence-length", "1024", "--vocab-size", "50304",
            "--bytes-per-token", "4", "--gpu", "cpu", "--peak-flops", "1e12", "--price-per-hour", "2", "--json")
    )  # fmt: skip
    assert (plan["sequence_length"], plan["vocab_size"]) == (1024, 50_304)
    assert plan["bits_per_byte"]["value"] == pytest.approx(plan["loss"]["value"] / math.log(2) / 4)
    assert plan["resources"]["cost"] == pytest.approx(2 * plan["resources"]["seconds"] / 3600)
    assert plan["resources"]["fits"] is None


@pytest.mark.parametrize("words", [(), ("--gpu", "h200", "--count", "64")])
def test_the_written_spec_is_what_train_accepts(run, tmp_path, words):
    path = tmp_path / "run.yaml"
    printed = run("--flops", "1e22", "--noise", "uniform", "--write", path, "--data", "data/web", "--json", *words)
    (plan,) = plans(printed)
    spec = parse_spec(RunSpec, read_mapping(path), str(path))
    assert (spec.model.num_layers, spec.model.width, spec.model.num_heads) == (34, 4608, 36)
    assert spec.objective.kind == "diffusion"
    assert spec.objective.noise.shift == math.inf
    assert (spec.batch_sequences, spec.data.sequence_length, str(spec.data.path)) == (3072, 2048, "data/web")
    schedule = spec.schedule
    assert (schedule.num_steps, schedule.warmup_steps, schedule.cooldown_steps) == (28_500, 2000, 5700)
    assert spec.optimizer.learning_rate == plan["learning_rate"]
    assert spec.num_tokens == plan["tokens"]
    assert spec.name == "uniform-1.0e22"
    assert spec.precision == "bfloat16"
    if words:
        assert spec.runtime.micro_batch_sequences == plan["resources"]["micro_batch_sequences"]
        assert 48 % spec.runtime.micro_batch_sequences == 0
        assert (spec.runtime.parallel.recompute == "full") is plan["resources"]["checkpointing"]
    assert path.read_text(encoding="utf-8").startswith("# Planned from the laws of arXiv 2512.10858")
    assert f"noiselaw train {path}" in printed.err


@pytest.mark.parametrize("noise", ["masked", "autoregressive"])
def test_a_study_plans_its_next_run(run, study, tmp_path, noise):
    path = tmp_path / "next.yaml"
    printed = run("--laws", study, "--flops", "4e12", "--noise", noise, "--write", path, "--json")
    (plan,) = plans(printed)
    assert plan["convention"] == "72Ld2+12Lds"
    assert plan["extrapolation_factor"] == pytest.approx(plan["flops"] / 1e12)
    assert plan["published"] is None
    assert any("before the cooldown" in flag for flag in plan["flags"])
    spec = parse_spec(RunSpec, read_mapping(path), str(path))
    assert flops_per_token(spec.model.shape(259), 64) == plan["flops_per_token"]
    assert spec.objective.name == noise
    assert spec.schedule.warmup_steps == 20
    assert spec.validation.draws == 2
    assert str(spec.data.path) == str(study / "data")
    assert spec.optimizer.learning_rate == pytest.approx(0.0222 * spec.tokens_per_step**0.3412)
    if noise == "masked":
        assert spec.objective.min_log_snr == -8.0
    assert "note:" not in printed.err


def test_a_plain_file_of_laws_says_what_was_assumed(run, study, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text((study / "laws.json").read_text(encoding="utf-8"), encoding="utf-8")
    printed = run("--laws", path, "--flops", "4e12", "--json")
    assert [plan["noise"] for plan in plans(printed)] == ["masked", "autoregressive"]
    assert "note: sequences of 2048 tokens" in printed.err
    assert len(json.loads(printed.out)["notes"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--noise masked", "one of --flops, --tokens or --days (with --gpu); found none"),
        ("--flops 1e21 --tokens 1e12", "found --flops 1e+21 and --tokens 1e+12"),
        ("--flops 1e21 --gpu h200 --days 10", "found --flops 1e+21 and --days 10"),
        ("--flops 0", "flops 0: a plan needs a positive, finite budget"),
        ("--flops -1e21", "positive, finite budget"),
        ("--flops nan", "positive, finite budget"),
        ("--flops 1e99", "beyond any computer"),
        ("--flops 1e21 --noise unifrom", "no laws for 'unifrom' in arXiv 2512.10858 (did you mean 'uniform'?)"),
        ("--days 10", "a budget of time needs a machine"),
        ("--days 10 --gpu h20", "unknown accelerator 'h20' (did you mean 'h200'?)"),
        ("--flops 1e21 --count 8 --mfu 0.4", "--count, --mfu: say of which accelerator, with --gpu"),
        ("--flops 1e21 --gpu cpu", "give it with --peak-flops"),
        ("--flops 1e21 --gpu h100 --mfu 45", "mfu 45.0: the share of the peak"),
        ("--flops 1e21 --laws nowhere.json", "nowhere.json: no such file"),
        ("--flops 1e21 --write run.yaml", "a spec holds one run, not 5"),
        ("--flops 1e21 --noise masked --data here", "--data here: only a written spec names it"),
        ("--flops 1e21 --vocab-size 0", "--vocab-size 0: give at least 2"),
        ("--flops 1e21 --bytes-per-token -1", "bytes_per_token must be positive"),
        ("--tokens 1e12 --unique-tokens 1e9", "tokens and unique_tokens"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(refused, words, message):
    error = refused(*words.split())
    assert message in error
    assert error.count("\n") == 1


def test_a_group_that_is_no_noise_cannot_be_written_as_a_spec(refused, study, tmp_path):
    record = json.loads((study / "laws.json").read_text(encoding="utf-8"))
    record["groups"] = {"all": record["groups"]["masked"]}
    (tmp_path / "laws.json").write_text(json.dumps(record), encoding="utf-8")
    path = tmp_path / "run.yaml"
    error = refused("--laws", tmp_path, "--flops", "4e12", "--write", path)
    assert "unknown noise 'all'" in error
    assert not path.exists()


def test_the_written_yaml_is_plain(run, tmp_path):
    path = tmp_path / "run.yaml"
    run("--flops", "1e21", "--noise", "masked", "--write", path)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(settings) == [
        "name",
        "data",
        "model",
        "objective",
        "batch_sequences",
        "optimizer",
        "schedule",
        "precision",
    ]
    assert settings["objective"] == {"kind": "diffusion", "noise": "masked"}
