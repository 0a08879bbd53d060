"""Whole plans from the published laws: the paper's own choices, every budget, every doubt said."""

import json
import math
from dataclasses import replace

import pytest

from noiselaw.accounting import flops_per_token
from noiselaw.laws import predict_loss
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.hardware import machine
from noiselaw.laws.lawbook import CooldownFactor, LawBook, published_book
from noiselaw.laws.planner import Budget, plan_training, round_steps, snap_batch
from noiselaw.laws.published import BATCH_LAWS, LARGE_RUNS, LEARNING_RATE_LAWS, NOISES
from noiselaw.laws.scarce import RepeatValue

NODE = machine("h200", 64, 0.45)


@pytest.fixture(scope="module")
def book() -> LawBook:
    return published_book(num_draws=500)


@pytest.mark.parametrize("run", LARGE_RUNS, ids=lambda run: run.name)
@pytest.mark.parametrize("on", [None, NODE], ids=["no machine", "64 devices"])
def test_the_papers_large_runs_are_planned_as_they_were_trained(book, run, on):
    plan = plan_training(book, run.group, Budget("flops", 10.0 ** round(math.log10(run.flops))), on=on)
    shape = plan.shape
    assert (shape.num_layers, shape.width, shape.num_heads) == (run.num_layers, run.width, run.num_heads)
    assert (plan.batch_sequences, plan.sequence_length) == (run.batch_sequences, 2048)
    assert plan.num_steps == pytest.approx(run.num_steps, rel=0.018)
    assert plan.tokens == pytest.approx(run.tokens, rel=0.018)
    assert plan.params == pytest.approx(run.params, rel=1e-3)
    assert plan.published_run is run
    assert plan.loss.interval[0] <= run.loss <= plan.loss.interval[1]
    assert plan.loss.value == pytest.approx(run.loss, rel=0.021)
    assert plan.loss.before_cooldown == pytest.approx(run.loss_before_cooldown, rel=0.024)


def test_steps_are_the_papers_for_the_3b_runs(book):
    """The 10B run went on for 29,000 steps, 2 % beyond 1e22 FLOPs; planned for those FLOPs it has as many."""
    budgets = [("masked", 1e21), ("uniform", 1e21), ("uniform", 1e22)]
    plans = [plan_training(book, noise, Budget("flops", flops)) for noise, flops in budgets]
    assert [plan.num_steps for plan in plans] == [23_500, 22_500, 28_500]
    assert [plan.published_steps for plan in plans] == [23_500, 22_500, 29_000]
    assert plans[2].record()["published"]["planned_steps"] == 29_000
    assert plans[2].published_run.flops == pytest.approx(1.016e22, rel=1e-3)


def test_a_plan_hangs_together(book):
    plan = plan_training(book, "balanced", Budget("flops", 3e20), on=NODE)
    assert plan.flops_per_token == flops_per_token(plan.shape, 2048, "6P+12Lds")
    assert plan.tokens == plan.batch_sequences * 2048 * plan.num_steps
    assert plan.flops == plan.flops_per_token * plan.tokens
    assert 3e20 <= plan.flops <= 3e20 * 1.03
    assert plan.tokens_per_parameter == plan.tokens / plan.params
    assert plan.optimal_batch_tokens == pytest.approx(3.614e-3 * (3e20 / plan.flops_per_token) ** 0.8179)
    law = next(law for law in LEARNING_RATE_LAWS if law.group == "balanced")
    assert plan.learning_rate == pytest.approx(math.exp(-5.0164) * (plan.batch_sequences * 2048) ** law.exponent)
    assert plan.cooldown_steps == round(0.2 * plan.num_steps)
    assert plan.warmup_steps == min(2000, round(0.1 * plan.num_steps))
    prediction = predict_loss(book.fits["balanced"], plan.flops, plan.flops_per_token)
    assert plan.loss.before_cooldown == prediction.value
    assert plan.loss.value == prediction.value / 1.0245
    assert plan.loss.bits_per_byte == pytest.approx(0.34124 * plan.loss.value)
    assert plan.loss.surface == prediction.surface_value
    assert plan.extrapolation_factor == prediction.extrapolation_factor
    largest, smallest = book.fits["balanced"].largest_budget, book.fits["balanced"].smallest_budget
    assert plan.extrapolation_share == pytest.approx(math.log(plan.flops / largest) / math.log(plan.flops / smallest))


def test_the_interval_pays_for_the_cooldown_too():
    factor = CooldownFactor(1.0245, 0.0014)
    final, (low, high) = factor.lower(2.5, (2.4, 2.7))
    doubt = 1.959964 * 0.0014 / 1.0245
    assert final == pytest.approx(2.5 / 1.0245)
    assert math.log(final / low) == pytest.approx(math.hypot(math.log(2.5 / 2.4), doubt), rel=1e-6)
    assert math.log(high / final) == pytest.approx(math.hypot(math.log(2.7 / 2.5), doubt), rel=1e-6)
    assert factor.lower(2.5, None) == (2.5 / 1.0245, None)


def test_tokens_decide_the_size_they_are_optimal_for(book):
    plan = plan_training(book, "uniform", Budget("tokens", 2e12))
    assert 2e12 <= plan.tokens <= 2e12 * 1.03
    optimal = float(book.fits["uniform"].law("tokens").inverse(2e12)) / 2e12
    assert plan.flops_per_token == pytest.approx(optimal, rel=0.02)
    assert plan.optimal_flops_per_token == pytest.approx(optimal, rel=1e-9)


@pytest.mark.parametrize("days", [0.01, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("noise", ["masked", "uniform"])
def test_time_is_spent_and_not_exceeded(book, noise, days):
    plan = plan_training(book, noise, Budget("seconds", days * 86_400), on=NODE)
    # Steps are rounded down by less than a fortieth; where the width jumps, so does the head's share.
    assert 0.93 * days < plan.resources.seconds / 86_400 <= days * (1 + 1e-9)


def test_scarce_data_is_repeated_and_the_interval_says_how_little_is_known(book):
    fresh = plan_training(book, "uniform", Budget("flops", 1e22))
    scarce = plan_training(book, "uniform", Budget("flops", 1e22), unique_tokens=20e9)
    assert scarce.epochs == scarce.tokens / 20e9 > 5
    assert scarce.flops == pytest.approx(1e22, rel=0.03)
    assert scarce.loss.scarcity_penalty > 1.01
    assert scarce.loss.value == pytest.approx(fresh.loss.value * scarce.loss.scarcity_penalty, rel=2e-3)
    # Nobody measured repeats for uniform noise: they may be worth as much as fresh tokens.
    assert scarce.loss.interval[0] == pytest.approx(fresh.loss.interval[0], rel=2e-3)
    assert scarce.loss.interval[1] == pytest.approx(fresh.loss.interval[1] * scarce.loss.scarcity_penalty, rel=2e-2)
    assert any("measured for autoregressive models" in flag for flag in scarce.flags)
    assert any("bear many more repeats" in flag for flag in scarce.flags)
    plenty = plan_training(book, "uniform", Budget("flops", 1e22), unique_tokens=1e12)
    assert replace(plenty, unique_tokens=None) == fresh
    assert (fresh.published_run.name, scarce.published_run) == ("unif-10b", None)


def test_own_measurement_of_repeats_goes_first(book):
    own = replace(book, repeats={"uniform": RepeatValue(1 / 500, 0.0, "mine.json", "uniform")})
    plan = plan_training(own, "uniform", Budget("flops", 1e22), unique_tokens=20e9)
    published = plan_training(book, "uniform", Budget("flops", 1e22), unique_tokens=20e9)
    assert 1 < plan.loss.scarcity_penalty < published.loss.scarcity_penalty
    assert plan.loss.interval[0] > published.loss.interval[0]
    assert "value of repeats from mine.json, measured for uniform models" in plan.flags
    assert not any("many more repeats" in flag for flag in plan.flags)


def test_more_compute_than_the_data_can_use_is_said(book):
    plan = plan_training(book, "masked", Budget("flops", 1e22), unique_tokens=1e9)
    assert any(flag.startswith("more compute than the data can use") for flag in plan.flags)


@pytest.mark.parametrize("noise", NOISES)
def test_small_and_absurd_budgets_are_planned_and_marked(book, noise):
    small = plan_training(book, noise, Budget("flops", 1e16))
    assert "the budget lies below the smallest that carries the laws" in small.flags
    assert small.extrapolation_share == 0.0
    absurd = plan_training(book, noise, Budget("flops", 1e30))
    assert any(flag.endswith("fiction") for flag in absurd.flags)
    assert not any(flag.endswith("fiction") for flag in plan_training(book, noise, Budget("flops", 1e24)).flags)


def test_batches_are_snapped_to_the_devices(book):
    assert [snap_batch(1364, 1), snap_batch(1305, 1), snap_batch(2822, 1)] == [1536, 1536, 3072]
    assert [snap_batch(1364, count) for count in (64, 48, 40, 7)] == [1536, 1536, 1280, 1344]
    assert snap_batch(0.2, 1) == 1
    assert snap_batch(100, 4096) == 4096
    for sequences in (3, 17, 300, 5000):
        for count in (1, 3, 8, 60):
            batch = snap_batch(sequences, count)
            assert batch % count == 0
            assert batch == count or abs(math.log(batch / sequences)) <= math.log(1.5) / 2 + 1e-9
    crowded = plan_training(book, "masked", Budget("flops", 1e19), on=machine("h100", 4096))
    assert any("devices need a sequence each" in flag for flag in crowded.flags)


@pytest.mark.parametrize(
    ("steps", "up", "down"),
    [
        (23_391, 23_500, 23_000),
        (28_470, 28_500, 28_000),
        (2000, 2000, 2000),
        (2001, 2050, 2000),
        (40_001, 41_000, 40_000),
        (123, 123, 123),
        (122.5, 123, 122),
        (0.2, 1, 1),
    ],
)
def test_steps_are_round_numbers(steps, up, down):
    assert (round_steps(steps, up=True), round_steps(steps, up=False)) == (up, down)


def test_a_model_that_fits_nowhere_is_planned_and_marked(book):
    plan = plan_training(book, "uniform", Budget("flops", 1e22), on=machine("rtx-4090", 2))
    assert any(flag.startswith("does not fit: ") for flag in plan.flags)
    tight = plan_training(book, "uniform", Budget("flops", 1e22), on=machine("rtx-4090", 256))
    assert "fits with activation checkpointing only" in tight.flags


def test_other_laws_than_the_papers_speak_for_themselves(book):
    group = replace(book.fits["masked"], group="mine", flags=("only 3 runs",))
    own = replace(book, fits={"mine": group}, is_published=False, cooldown=None, available_tokens=1000)
    plan = plan_training(own, "mine", Budget("flops", 1e21))
    assert plan.published_run is None
    assert plan.loss.value == plan.loss.before_cooldown
    assert "laws: only 3 runs" in plan.flags
    assert any("before the cooldown" in flag for flag in plan.flags)
    assert any("no law of the learning rate for mine" in flag for flag in plan.flags)
    assert any("the data holds 1,000 tokens" in flag for flag in plan.flags)
    rates = [law.law()(plan.batch_sequences * 2048) for law in LEARNING_RATE_LAWS if law.coefficient]
    assert plan.learning_rate == pytest.approx(math.exp(sum(map(math.log, rates)) / 5))
    by_noise = {law.group: law.law() for law in BATCH_LAWS if law.coefficient}
    assert replace(book, batch_laws=by_noise).batch_law("uniform") == by_noise["uniform"]
    settings = {"schedule": {"warmup_steps": 20}, "model": {"attention_sink": False}}
    plan = plan_training(
        replace(own, run_settings=settings, learning_rates={"all": PowerLaw(1, 0)}), "mine", Budget("flops", 1e21)
    )
    assert plan.warmup_steps == 20
    assert plan.learning_rate == 1
    assert not plan.shape.attention_sink


@pytest.mark.parametrize(
    ("group", "budget", "options", "message"),
    [
        ("unifrom", ("flops", 1e21), {}, r"no laws for 'unifrom' in arXiv 2512.10858 \(did you mean 'uniform'\?\)"),
        ("autoregressive", ("flops", 1e21), {}, "known: masked, low-uniform"),
        ("masked", ("flops", 1e60), {}, "beyond any computer"),
        ("masked", ("tokens", 1e25), {}, "beyond any computer"),
        ("masked", ("seconds", 1.0), {}, "needs a machine"),
        ("masked", ("tokens", 1e12), {"unique_tokens": 1e9}, "tokens and unique_tokens"),
        ("masked", ("flops", 1e22), {"unique_tokens": 0.0}, "unique_tokens 0"),
    ],
)
def test_what_cannot_be_is_refused(book, group, budget, options, message):
    with pytest.raises(ValueError, match=message):
        plan_training(book, group, Budget(*budget), **options)


@pytest.mark.parametrize("amount", [0.0, -1e21, math.nan, math.inf])
def test_impossible_budgets_are_refused(amount):
    with pytest.raises(ValueError, match="positive, finite budget"):
        Budget("flops", amount)


def test_the_record_is_json_with_the_agreed_keys(book):
    plan = plan_training(book, "uniform", Budget("flops", 1e22), on=NODE, unique_tokens=20e9)
    record = plan.record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    agreed = {
        "noise", "layers", "width", "heads", "params", "flops_per_token", "tokens", "batch_sequences",
        "sequence_length", "steps", "learning_rate", "loss", "warmup_steps", "cooldown_steps", "extrapolation_factor",
    }  # fmt: skip
    assert agreed <= record.keys()
    assert record["loss"] == {"value": plan.loss.value, "interval": list(plan.loss.interval)}
    assert record["noise"] == "uniform"
    assert record["resources"]["accelerator"] == "h200"
    bare = plan_training(replace(book, bits_per_byte_per_nat=None), "masked", Budget("flops", 1e20)).record()
    assert bare["bits_per_byte"] is None
    assert bare["resources"] is None
    assert bare["published"] is None
