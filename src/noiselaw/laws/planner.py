"""From a budget to a whole training run: shape, tokens, batch, steps, learning rate, loss, time, money, memory.

The laws give size and tokens at the budget, the rule of shapes turns the size into layers and width, the batch follows
the tokens and the learning rate the batch. The loss is predicted for the run as it stands after all rounding.

Losses are nats per token. C = M * D: training FLOPs without head, FLOPs per token, tokens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from noiselaw.accounting import ModelShape
from noiselaw.laws.hardware import Machine, Resources, plan_resources, total_flops_per_token
from noiselaw.laws.lawbook import LawBook
from noiselaw.laws.plan import Choice, nearest_shape
from noiselaw.laws.prediction import Laws, Prediction, predict_loss
from noiselaw.laws.published import LARGE_RUNS, LargeRun
from noiselaw.laws.scarce import ScarceOptimum, best_scarce_size
from noiselaw.laws.shapes import MIN_WIDTH, shapes_near
from noiselaw.laws.trainingplan import AUTOREGRESSIVE, LossForecast, TrainingPlan

COOLDOWN_SHARE = 0.2
"""Of the steps, as in the paper's large runs; the gain of a cooldown is known for this share alone."""
MAX_WARMUP_STEPS = 2000
MAX_WARMUP_SHARE = 0.1
MAX_FLOPS = 1e35
"""No computer will do as much soon: beyond it a budget is a slip of the keyboard."""
FICTION = 1e6
"""Times the largest fitted budget: beyond it no law of this kind has ever been tested."""
SAME_RUN = 0.05
"""A published run of this budget, to this share, stands beside the plan."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent: training FLOPs (embedding and head not counted), training tokens, or seconds on a machine."""

    kind: Literal["flops", "tokens", "seconds"]
    amount: float

    def __post_init__(self) -> None:
        """Raises ValueError for an amount that is not positive and finite."""
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise ValueError(f"{self.kind} {self.amount:g}: a plan needs a positive, finite budget")


def plan_training(
    book: LawBook, group: str, budget: Budget, *, on: Machine | None = None, unique_tokens: float | None = None
) -> TrainingPlan:
    """The run of one group (a noise, `autoregressive`) that spends `budget` as the book's laws advise.

    With tokens, the size is the one for which that many are optimal. With seconds, compute is what the machine `on`
    does in that time, head included. With unique tokens fewer than the optimum, data is repeated and size traded
    against repeats (`noiselaw.laws.scarce`). Raises ValueError for a group without laws, an impossible budget, seconds
    without a machine, or both tokens and unique tokens.
    """
    fit = book.fit(group)
    if unique_tokens is not None and budget.kind == "tokens":
        raise ValueError("tokens and unique_tokens: where data is scarce the plan says how often to see it; give FLOPs")
    asked = _flops(book, group, budget, on, unique_tokens)
    if asked > MAX_FLOPS:
        raise ValueError(
            f"{budget.kind} {budget.amount:g}: {asked:.2g} FLOPs are beyond any computer; check the number"
        )
    draft = _draft(book, group, asked, unique_tokens)
    size, length = draft.choice.flops_per_token, book.sequence_length
    tokens = budget.amount if budget.kind == "tokens" else asked / size
    wanted_batch, batch, steps = _pace(book, group, tokens, on, up=budget.kind != "seconds")
    flops = size * batch * length * steps
    prediction = predict_loss(fit, flops, size)
    resources = None
    if on is not None:
        resources = plan_resources(draft.choice.shape, size, length, batch_sequences=batch, num_steps=steps, on=on)
    published = _published_run(book, group, flops) if draft.is_fresh else None
    plan = TrainingPlan(
        group=group,
        shape=draft.choice.shape,
        flops_per_token=size,
        convention=book.convention,
        optimal_flops_per_token=draft.optimal,
        sequence_length=length,
        batch_sequences=batch,
        optimal_batch_tokens=wanted_batch,
        num_steps=steps,
        warmup_steps=_warmup_steps(book, steps),
        cooldown_steps=round(COOLDOWN_SHARE * steps),
        learning_rate=float(book.learning_rate_law(group)(batch * length)),
        unique_tokens=unique_tokens,
        loss=_forecast(book, group, prediction, draft.scarce),
        extrapolation_factor=prediction.extrapolation_factor,
        extrapolation_share=_extrapolation_share(fit.smallest_budget, fit.largest_budget, flops),
        resources=resources,
        published_run=published,
        published_steps=None if published is None else _steps_as_published(book, group, published, on),
        flags=(),
    )
    return replace(plan, flags=(*draft.choice.flags, *_flags(book, fit, plan)))


class _Pace(NamedTuple):
    wanted_batch: float
    """Tokens, by the law."""
    batch: int
    """Sequences."""
    steps: int


def _pace(book: LawBook, group: str, tokens: float, on: Machine | None, *, up: bool) -> _Pace:
    """Batch and steps for so many tokens; steps rounded up or down to a round number."""
    wanted = float(book.batch_law(group)(tokens))
    batch = snap_batch(wanted / book.sequence_length, 1 if on is None else on.count)
    return _Pace(wanted, batch, round_steps(tokens / (batch * book.sequence_length), up=up))


def _steps_as_published(book: LawBook, group: str, run: LargeRun, on: Machine | None) -> int:
    """Steps that a plan has for all the tokens that a published run saw."""
    return _pace(book, group, run.batch_sequences * run.num_steps * book.sequence_length, on, up=True).steps


def snap_batch(sequences: float, num_devices: int) -> int:
    """The batch nearest in log to `sequences` that gives each device 1, 2, 3, 4, 6, 8, 12, 16, ... of them."""
    grid = [factor * 2**power * num_devices for power in range(48) for factor in (1, 3)]
    return min(grid, key=lambda batch: abs(math.log(batch / sequences)))


def round_steps(steps: float, *, up: bool) -> int:
    """A round number of steps: a multiple of the largest of 1, 5, 10, 50, 100, ... up to a fortieth of them."""
    most = max(steps / 40, 1.0)
    power = 10 ** math.floor(math.log10(most))
    unit = 5 * power if 5 * power <= most else power
    # A whole number of steps stays what it is in spite of rounding errors.
    count = math.ceil(steps / unit - 1e-9) if up else math.floor(steps / unit + 1e-9)
    return max(1, unit * count)


@dataclass(frozen=True, slots=True)
class _Draft:
    """Size and shape at a budget."""

    optimal: float
    """FLOPs per token."""
    choice: Choice
    scarce: ScarceOptimum | None

    @property
    def is_fresh(self) -> bool:
        """Whether there is as much data as the laws ask for."""
        return self.scarce is None or self.scarce.penalty == 1


def _draft(book: LawBook, group: str, flops: float, unique_tokens: float | None) -> _Draft:
    fit = book.fit(group)
    scarce = None
    if unique_tokens is None:
        optimal = float(fit.law("flops_per_token")(flops))
    else:
        scarce = best_scarce_size(fit, flops, unique_tokens, book.repeat_value(group))
        optimal = scarce.size
    model = book.run_settings.get("model", {})
    like = ModelShape(1, MIN_WIDTH, 1, book.vocab_size, model.get("attention_sink", True), model.get("mlp_bias", True))
    shapes = shapes_near(optimal, like, book.sequence_length, book.convention)
    return _Draft(optimal, nearest_shape(optimal, shapes, book.sequence_length, book.convention), scarce)


def _flops(book: LawBook, group: str, budget: Budget, on: Machine | None, unique_tokens: float | None) -> float:
    """The budget in training FLOPs without head."""
    if budget.kind == "flops":
        return budget.amount
    if budget.kind == "tokens":
        return book.fit(group).law("tokens").inverse(budget.amount)
    if on is None:
        raise ValueError("a budget of time needs a machine: say which accelerators there are, and how many")
    total = on.flops_per_second * budget.amount

    def too_much(flops: float) -> bool:
        choice = _draft(book, group, flops, unique_tokens).choice
        return flops * total_flops_per_token(choice.shape, choice.flops_per_token) > total * choice.flops_per_token

    # The head's share shrinks with the size, which the budget without the head decides.
    low, high = math.log(total) - _MOST_FOR_HEAD, math.log(total)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if too_much(math.exp(middle)) else (middle, high)
    return math.exp(low)


_MOST_FOR_HEAD = math.log(1e6)
"""A head of a million times the FLOPs of the rest."""
_HALVINGS = 40


def _warmup_steps(book: LawBook, steps: int) -> int:
    """As in the runs behind the laws where they say so, else the paper's 2000; never more than a tenth of the run."""
    usual = book.run_settings.get("schedule", {}).get("warmup_steps", MAX_WARMUP_STEPS)
    return min(usual, round(MAX_WARMUP_SHARE * steps))


def _forecast(book: LawBook, group: str, prediction: Prediction, scarce: ScarceOptimum | None) -> LossForecast:
    """The law's loss, raised by what scarcity costs, lowered by the cooldown.

    Where nobody measured what repeats are worth to this group, the interval reaches down to repeats that are worth as
    much as fresh tokens.
    """
    penalty = 1.0 if scarce is None else scarce.penalty
    value, interval, surface = prediction.value * penalty, prediction.interval, prediction.surface_value
    if interval is not None:
        interval = interval[0] * (penalty if book.knows_repeats(group) else 1.0), interval[1] * penalty
    final = (value, interval) if book.cooldown is None else book.cooldown.lower(value, interval)
    return LossForecast(
        *final,
        before_cooldown=value,
        interval_before_cooldown=interval,
        surface=None if surface is None else surface * penalty,
        scarcity_penalty=penalty,
        bits_per_byte_per_nat=book.bits_per_byte_per_nat,
    )


def _extrapolation_share(smallest: float, largest: float, flops: float) -> float:
    """log(C / C_max) over log(C / C_min), of the budgets that carry the laws; 0 within them."""
    return math.log(flops / largest) / math.log(flops / smallest) if flops > largest else 0.0


def _published_run(book: LawBook, group: str, flops: float) -> LargeRun | None:
    if not book.is_published:
        return None
    near = (run for run in LARGE_RUNS if run.group == group and abs(math.log(run.flops / flops)) < SAME_RUN)
    return next(near, None)


def _flags(book: LawBook, fit: Laws, plan: TrainingPlan) -> Iterator[str]:
    """What to doubt about a plan, one sentence each."""
    if not book.is_published:
        yield from (f"laws: {flag}" for flag in fit.flags)
    yield from _law_flags(book, fit, plan)
    yield from _data_flags(book, plan)
    if plan.resources is not None:
        yield from _machine_flags(plan, plan.resources)


def _law_flags(book: LawBook, fit: Laws, plan: TrainingPlan) -> Iterator[str]:
    if plan.extrapolation_factor > FICTION:
        yield f"extrapolated {plan.extrapolation_factor:.1g} times beyond the largest fitted budget: fiction"
    if plan.flops < fit.smallest_budget:
        yield "the budget lies below the smallest that carries the laws"
    batch = plan.batch_sequences * plan.sequence_length
    if book.largest_tuned_batch is not None and batch > book.largest_tuned_batch:
        times = batch / book.largest_tuned_batch
        yield f"learning rate extrapolated: the batch is {times:.2g} times the largest that was tuned"
    if not book.knows_learning_rate(plan.group):
        yield f"no law of the learning rate for {plan.group}: the mean of the other groups' laws"
    if book.cooldown is None:
        yield "the loss is that before the cooldown: nobody measured its gain here (2.4 % in arXiv 2512.10858)"


def _data_flags(book: LawBook, plan: TrainingPlan) -> Iterator[str]:
    if plan.epochs is not None and plan.epochs > 1:
        repeats = book.repeat_value(plan.group)
        yield f"value of repeats from {repeats.source}, measured for {repeats.measured_for} models"
        if (plan.epochs - 1) * repeats.inverse_tokens > 2:
            yield f"more compute than the data can use: {plan.epochs:.3g} epochs, hardly any gain in the last of them"
        if repeats.measured_for == AUTOREGRESSIVE and plan.group != AUTOREGRESSIVE:
            yield (
                "diffusion models are reported to bear many more repeats (arXiv 2507.15857): "
                "the loss may lie near the lower end of its interval"
            )
    if plan.unique_tokens is None and book.available_tokens is not None and plan.tokens > book.available_tokens:
        yield (
            f"the data holds {book.available_tokens:,} tokens, fewer than the plan's; "
            f"prepare more, or plan with {book.available_tokens} unique tokens"
        )


def _machine_flags(plan: TrainingPlan, resources: Resources) -> Iterator[str]:
    accelerator = resources.machine.accelerator
    if accelerator.price_source is not None:
        yield (
            f"cost: ${accelerator.price_per_hour:.2f} per {accelerator.name} and hour ({accelerator.price_source}); "
            "--price-per-hour takes yours"
        )
    batch = plan.batch_sequences * plan.sequence_length
    if batch > 1.5 * plan.optimal_batch_tokens:
        times = batch / plan.optimal_batch_tokens
        yield f"the batch is {times:.2g} times the optimum: {resources.machine.count} devices need a sequence each"
    if resources.memory.fits is False:
        yield (
            f"does not fit: {resources.memory.total / 1e9:.0f} GB on each {resources.machine.accelerator.name}, "
            "with checkpointing and one sequence at a time; take more or larger devices"
        )
    elif resources.memory.checkpointing:
        yield "fits with activation checkpointing only"
