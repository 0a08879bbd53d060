"""A study's recipe as checked data, and the grid of runs it stands for.

Constant learning rate and one run per (noise, size): every point of a run's loss curve is then a sample of
(parameters, tokens, loss), so one run serves every budget along its curve (spec section 1). The same runs on less data,
seen again and again, say what repeats are worth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from noiselaw.accounting import flops_per_token, parameter_counts
from noiselaw.data.shards import TokenData
from noiselaw.specbase import PlainName
from noiselaw.specs import (
    AUTOREGRESSIVE,
    NOISE_SHIFTS,
    ModelSpec,
    RunSpec,
    Spec,
    SpecError,
    nearest_name,
    parse_spec,
)

Role = Literal["grid", "repeated", "confirmation"]


class Shape(Spec):
    """Layers, width and heads of one model size."""

    num_layers: int = Field(gt=0)
    width: int = Field(gt=0)
    num_heads: int = Field(gt=0)


class StudyDataSpec(Spec):
    source: str
    """What `noiselaw data prepare` takes: a file, a folder or a built-in source such as `python`."""
    tokenizer: str
    """A tokenizer file, or bpe:SIZE to train one on the text."""
    sequence_length: int = Field(gt=1)
    unique_tokens: list[Annotated[int, Field(gt=0)]] = Field(default=[])
    """Train the runs of the grid again on each of these amounts of tokens, repeated in a new order every epoch until
    the budget is spent: what repeats are worth is fitted to them. A run that sees no more than that is left out."""

    @model_validator(mode="after")
    def _amounts_are_sequences(self) -> Self:
        amounts: dict[int, int] = {}
        for amount in self.unique_tokens:
            sequences = amount // self.sequence_length
            if not sequences:
                raise ValueError(f"unique_tokens {amount} is less than a sequence of {self.sequence_length}; raise it")
            if sequences in amounts:
                raise ValueError(
                    f"unique_tokens names {amounts[sequences]} and {amount}, which are the same {sequences} whole "
                    "sequences; once is enough"
                )
            amounts[sequences] = amount
        return self


class PowerLawSpec(Spec):
    """coefficient * x^exponent."""

    coefficient: float = Field(gt=0)
    exponent: float

    def __call__(self, x: float) -> float:
        return self.coefficient * x**self.exponent


class ConfirmationSpec(Spec):
    """The run that tests the laws: planned from them, larger than any they were fitted on."""

    groups: list[str] = Field(min_length=1)
    budget_factor: float = Field(default=4.0, gt=1)
    """Its compute as a multiple of the study's largest budget."""
    candidates: list[Shape] = Field(min_length=1)
    """Shapes the plan may choose from."""


class RaySpec(Spec):
    """Where `executor: ray` executes."""

    address: str | None = None
    """Address of a cluster, or auto; None: the one RAY_ADDRESS names, else one started on this machine."""


class SlurmSpec(Spec):
    """What `executor: slurm` asks for, for every run's job; None leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time_minutes: int = Field(default=24 * 60, gt=0)
    """A run that needs longer saves, is requeued and goes on."""
    warning_seconds: int = Field(default=90, gt=0)
    """How long before its end a job is told to save."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Per node."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the run starts, such as module load."""
    max_jobs: int = Field(default=500, gt=0)
    """Jobs of the study in the queue at one time."""


class StudySpec(Spec):
    """A whole study."""

    name: PlainName
    seed: int = Field(default=0, ge=0)
    data: StudyDataSpec
    groups: list[str] = Field(min_length=1)
    """Noises by name (masked, low-uniform, balanced, high-uniform, uniform) and `autoregressive`."""
    shapes: list[Shape] = Field(min_length=4)
    budgets_flops: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=4)
    """Compute at which losses are compared: training FLOPs without embedding and head, C = M * D."""
    batch_tokens: PowerLawSpec
    """Batch of a run from the tokens it will see, rounded to whole sequences (spec section 7: B* rises with D)."""
    learning_rate: PowerLawSpec
    """Learning rate of a run from its batch in tokens, constant over the run."""
    confirmation: ConfirmationSpec
    run: dict[str, Any]
    """Settings every run shares: any key of a run's spec that the study does not decide itself."""
    num_workers: int | None = Field(default=None, gt=0)
    """Runs side by side, each on its own share of the cores; None: as many as a short measurement finds fastest."""
    executor: Literal["local", "ray", "slurm"] = "local"
    """Where runs execute; the results are the same."""
    max_attempts: int = Field(default=3, gt=0)
    """How often a run that failed is started before the study goes on without it; one whose loss became NaN is never
    started again."""
    gpus_per_run: float | None = Field(default=None, gt=0)
    """On each of its nodes; below 1, several runs share one. None: as a measurement finds fastest on this machine, none
    on Ray and Slurm."""
    nodes_per_run: int = Field(default=1, gt=0)
    """More than one: the run trains under torchrun on all of them."""
    ray: RaySpec = RaySpec()
    slurm: SlurmSpec = SlurmSpec()

    @model_validator(mode="after")
    def _runs_fit_the_executor(self) -> Self:
        gpus = self.gpus_per_run
        if gpus is not None and gpus % 1 and (gpus > 1 or self.executor == "slurm"):
            raise ValueError(f"gpus_per_run {gpus} must be whole (on Ray and locally it may also be below 1)")
        if self.nodes_per_run > 1 and self.executor == "local":
            raise ValueError(f"nodes_per_run {self.nodes_per_run} needs --executor ray or slurm; this is one machine")
        if self.nodes_per_run > 1 and gpus is not None and gpus < 1:
            raise ValueError(
                f"gpus_per_run {gpus} with nodes_per_run {self.nodes_per_run}: a run on many nodes has whole GPUs"
            )
        return self

    @model_validator(mode="after")
    def _lists_make_sense(self) -> Self:
        known = [*NOISE_SHIFTS, AUTOREGRESSIVE]
        for group in [*self.groups, *self.confirmation.groups]:
            if group not in known:
                raise ValueError(f"unknown group {group!r}{nearest_name(group, known)}; known: {', '.join(known)}")
        for name in ("groups", "shapes", "budgets_flops"):
            values = getattr(self, name)
            twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
            if twice is not None:
                raise ValueError(f"{name} names {twice!r} twice; once is enough")
        missing = set(self.confirmation.groups) - set(self.groups)
        if missing:
            raise ValueError(f"confirmation.groups names {sorted(missing)}, which are not among the study's groups")
        return self

    @property
    def processes_per_node(self) -> int:
        """Of every run: one per GPU."""
        return max(1, int(self.gpus_per_run or 1))

    @property
    def confirmation_flops(self) -> float:
        return self.confirmation.budget_factor * max(self.budgets_flops)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study, ready to start."""

    role: Role
    group: str
    spec: RunSpec
    folder: Path
    non_embedding_parameters: int
    flops_per_token: int

    @property
    def flops(self) -> float:
        return self.flops_per_token * self.spec.num_tokens


@dataclass(frozen=True, slots=True)
class Site:
    """Where a study takes place: its recipe, its folder, its tokens."""

    study: StudySpec
    folder: Path
    data: TokenData


def grid_runs(site: Site) -> list[PlannedRun]:
    """Every (group, shape) trained to the largest budget, most tokens first: small models take longest to spend it."""
    study = site.study
    budget = max(study.budgets_flops)
    runs = [planned_run(site, "grid", group, shape, budget) for group in study.groups for shape in study.shapes]
    return sorted(runs, key=lambda run: -run.spec.num_tokens)


def repeated_runs(site: Site, grid: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs of the grid again, each on every amount of unique tokens that is less than the run sees."""
    amounts = site.study.data.unique_tokens
    return [_repeated(site, run, unique) for run in grid for unique in amounts if unique < run.spec.num_tokens]


def _repeated(site: Site, run: PlannedRun, unique_tokens: int) -> PlannedRun:
    data = run.spec.data.model_copy(update={"unique_tokens": unique_tokens})
    spec = _named(run.spec.model_copy(update={"data": data}), run.group, site.data)
    return replace(run, role="repeated", spec=spec, folder=site.folder / "runs" / spec.name)


def planned_run(site: Site, role: Role, group: str, shape: Shape, budget_flops: float) -> PlannedRun:
    """The run of `shape` under `group`'s noise that ends at `budget_flops`.

    Raises SpecError for settings the recipe may not fix, or a run that would see its data more than once.
    """
    data = site.data
    spec = _named(_run_spec(site.study, site.folder / "data", group, shape, budget_flops), group, data)
    available = data.split("train").num_tokens
    if spec.num_tokens > available:
        raise SpecError(
            f"recipe: {group} with {shape.num_layers} layers of width {shape.width} needs {spec.num_tokens:,} tokens "
            f"for {budget_flops:.2g} FLOPs but the data holds {available:,}; prepare more text or lower the budgets"
        )
    model_shape = spec.model.shape(data.vocab_size)
    return PlannedRun(
        role=role,
        group=group,
        spec=spec,
        folder=site.folder / "runs" / spec.name,
        non_embedding_parameters=parameter_counts(model_shape).non_embedding,
        flops_per_token=flops_per_token(model_shape, spec.data.sequence_length),
    )


def _named(spec: RunSpec, group: str, data: TokenData) -> RunSpec:
    """The spec under the name of its run."""
    unique = "" if spec.data.unique_tokens is None else f"-u{_short(spec.data.unique_tokens)}"
    shape = f"L{spec.model.num_layers}-d{spec.model.width}"
    name = f"{group}-{shape}{unique}-{spec.fingerprint(data.fingerprint)[:8]}"
    return spec.model_copy(update={"name": name})


def _short(count: int) -> str:
    """20k, 5M; in full where that would round it."""
    units = ((10**9, "B"), (10**6, "M"), (10**3, "k"))
    return next((f"{count // unit}{suffix}" for unit, suffix in units if count % unit == 0), str(count))


def check_recipe(study: StudySpec) -> None:
    """Raises SpecError for what is wrong with the recipe's runs, as far as it shows without any data."""
    data, flops = Path("data"), max(study.budgets_flops)
    for group in study.groups:
        for shape in study.confirmation.candidates:
            _run_spec(study, data, group, shape, flops)
    grid = [_run_spec(study, data, group, shape, flops) for group in study.groups for shape in study.shapes]
    most = max(spec.num_tokens for spec in grid)
    idle = next((amount for amount in study.data.unique_tokens if amount >= most), None)
    if idle is not None:
        raise SpecError(
            f"recipe: data.unique_tokens {idle:,}: nothing would be repeated, no run of the grid sees more than "
            f"{most:,} tokens; lower it or raise the budgets"
        )


def model_spec(study: StudySpec, shape: Shape) -> ModelSpec:
    """The model of `shape` with the settings every run shares."""
    return parse_spec(ModelSpec, {**study.run.get("model", {}), **shape.model_dump()}, "recipe: run.model")


DECIDED = ("name", "seed", "data", "objective", "batch_sequences")
"""Settings of a run that follow from the study and may not be fixed under `run`."""


def _run_spec(study: StudySpec, data: Path, group: str, shape: Shape, budget_flops: float) -> RunSpec:
    """The run of `shape` that spends the budget on tokens in the folder `data`. Raises SpecError as `planned_run`."""
    model = model_spec(study, shape)
    # Embedding and head are not counted, so any vocabulary gives the same.
    flops = flops_per_token(model.shape(vocab_size=1), study.data.sequence_length)
    return parse_spec(RunSpec, _run_settings(study, data, group, model, budget_flops / flops), "recipe: run")


def _run_settings(study: StudySpec, data: Path, group: str, model: ModelSpec, num_tokens: float) -> dict[str, Any]:
    clash = set(DECIDED) & study.run.keys()
    if clash:
        raise SpecError(f"recipe: run sets {', '.join(sorted(clash))}, which the study decides; remove it")
    length = study.data.sequence_length
    batch_sequences = max(1, round(study.batch_tokens(num_tokens) / length))
    shared = {key: value for key, value in study.run.items() if key != "diffusion"}
    objective = {"kind": AUTOREGRESSIVE}
    if group != AUTOREGRESSIVE:
        objective = {"kind": "diffusion", "noise": group, **study.run.get("diffusion", {})}
    return {
        **shared,
        "seed": study.seed,
        "data": {"path": data, "sequence_length": length},
        "objective": objective,
        "model": model.model_dump(),
        "batch_sequences": batch_sequences,
        "optimizer": {
            **shared.get("optimizer", {}),
            "learning_rate": study.learning_rate(batch_sequences * length),
        },
        "schedule": {
            **shared.get("schedule", {}),
            "num_steps": math.ceil(num_tokens / (batch_sequences * length)),
        },
    }
