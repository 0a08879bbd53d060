"""A study folder as typed, read-only data.

Everything the report knows comes from the files named here; any of them may be missing while a study is under way.
Losses are nats per token, C = M * D is training compute in FLOPs with M FLOPs per token and D tokens, P counts
non-embedding parameters. Keys that the report does not use are ignored, so that other rooms may write more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from noiselaw.files import read_json
from noiselaw.laws.datalaws import FILE_NAME as DATA_LAWS
from noiselaw.report.colors import STYLES, Style, group_styles


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("an interval is [low, high]")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ordered)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Machine(Record):
    device: str | None = None
    num_cores: int | None = None
    num_threads: int | None = None
    """Of one run."""
    torch: str | None = None
    matmul_flops_per_second: float | None = None
    """Measured rate of large matrix products with the threads of one run."""


class Elapsed(Record):
    """Wall-clock seconds by stage, as far as known."""

    data: float | None = None
    grid: float | None = None
    confirmation: float | None = None
    total: float | None = None


class DataFacts(Record):
    source: str | None = None
    vocab_size: int | None = None
    train_tokens: int | None = None
    bytes_per_token: float | None = None


class Facts(Record):
    """study.json"""

    name: str
    created: str | None = None
    machine: Machine = Machine()
    groups: tuple[str, ...] = ()
    budgets: tuple[Positive, ...] = ()
    flops_convention: str | None = None
    elapsed_seconds: Elapsed = Elapsed()
    data: DataFacts = DataFacts()


class PowerLaw(Record):
    """coefficient * C ** exponent; `interval` is that of the exponent."""

    coefficient: Positive
    exponent: float
    interval: Interval | None = None
    covariance: tuple[float, float, float] | None = None
    """Of log coefficient and exponent: (variance, covariance, variance)."""

    def at(self, flops: float) -> float:
        return self.coefficient * flops**self.exponent

    def standard_error(self, flops: float) -> float | None:
        """Of the log of the law at C."""
        if self.covariance is None:
            return None
        x = math.log(flops)
        return math.sqrt(max(self.covariance[0] + x * (2 * self.covariance[1] + x * self.covariance[2]), 0.0))


class SizePoint(Record):
    """The loss of one run at a budget."""

    params: Positive
    loss: Positive
    run: str | None = None
    flops_per_token: Positive | None = None


class Curve(Record):
    """log loss = c0 + c1 x + c2 x² with x = log P (natural logs)."""

    log_params_coefficients: tuple[float, float, float]

    def loss_at(self, params: float) -> float:
        c0, c1, c2 = self.log_params_coefficients
        x = math.log(params)
        return math.exp(c0 + x * (c1 + x * c2))


class Optimum(Record):
    """The compute-optimal size at one budget: the vertex of a parabola through the points."""

    budget: Positive
    params: Positive
    tokens: Positive
    flops_per_token: Positive
    loss: Positive
    flags: tuple[str, ...] = ()
    curve: Curve | None = None
    points: tuple[SizePoint, ...] = ()


class Surface(Record):
    """L = E + A M^-alpha + B D^-beta."""

    E: float
    A: Positive
    alpha: float
    B: Positive
    beta: float

    def at(self, flops_per_token: float, tokens: float) -> float:
        return self.E + self.A * flops_per_token**-self.alpha + self.B * tokens**-self.beta


class GroupLaws(Record):
    laws: dict[str, PowerLaw] = {}
    """By quantity: loss, tokens, params, flops_per_token."""
    optima: tuple[Optimum, ...] = ()
    flags: tuple[str, ...] = ()
    scatter: float | None = None
    """Standard deviation of the log loss between runs."""
    degrees_of_freedom: int = 0
    """Of the scatter."""
    parameters: Surface | None = None


class Laws(Record):
    """laws.json"""

    method: str | None = None
    convention: str | None = None
    groups: dict[str, GroupLaws] = {}


class RepeatParameters(Record):
    """L = E + A N'^-alpha + B D'^-beta (`noiselaw.laws.repeated`); R_D and R_N are None where value never decays."""

    E: NotNegative
    A: Positive
    alpha: Positive
    B: Positive
    beta: Positive
    inverse_R_D: NotNegative  # noqa: N815  names of the file
    R_D: Positive | None
    inverse_R_N: NotNegative = 0.0  # noqa: N815
    R_N: Positive | None = None


class RepeatLaw(Record):
    size: Literal["params", "flops_per_token"]
    """What N counts."""
    parameters: RepeatParameters
    intervals: dict[str, tuple[float | None, float | None] | None] = {}
    """95 %; None is no end."""
    flags: tuple[str, ...] = ()


class GroupDataLaws(Record):
    repeated: RepeatLaw | None = None
    flags: tuple[str, ...] = ()


class DataLaws(Record):
    """token_laws.json"""

    groups: dict[str, GroupDataLaws] = {}


class LossInterval(Record):
    value: float
    interval: Interval | None = None


class Prediction(Record):
    flops: Positive
    layers: int
    width: int
    heads: int
    params: Positive
    flops_per_token: Positive
    tokens: Positive
    loss: LossInterval
    surface_loss: LossInterval | None = None
    extrapolation_factor: float | None = None


class Predictions(Record):
    """prediction.json"""

    written_at: str | None = None
    groups: dict[str, Prediction] = {}


class ConfirmationRun(Record):
    run: str
    seed: int
    measured_loss: float
    standard_error: float | None = None
    predicted: float
    interval: Interval | None = None
    error_percent: float
    """100 * (predicted / measured - 1)."""


class Confirmation(Record):
    """confirmation.json"""

    groups: dict[str, tuple[ConfirmationRun, ...]] = {}


TEXT, WHOLE, NUMBER = pl.String, pl.Int64, pl.Float64
_RUN_COLUMNS = {"run": TEXT, "group": TEXT, "role": TEXT, "layers": WHOLE, "width": WHOLE}
CURVE_COLUMNS = _RUN_COLUMNS | {
    "seed": WHOLE, "heads": WHOLE, "params": NUMBER, "flops_per_token": NUMBER, "batch_tokens": NUMBER,
    "learning_rate": NUMBER, "step": WHOLE, "tokens": NUMBER, "flops": NUMBER, "loss": NUMBER, "standard_error": NUMBER,
    "bits_per_byte": NUMBER, "unique_tokens": NUMBER,
}  # fmt: skip
LATER_COLUMNS = ("unique_tokens",)
"""Those that tables of earlier releases do not have."""
THROUGHPUT_COLUMNS = _RUN_COLUMNS | {
    "tokens_per_second": NUMBER, "model_flops_per_second": NUMBER, "share_of_matmul_peak": NUMBER, "seconds": NUMBER,
}  # fmt: skip

STAGES = {
    "study.json": "what is studied",
    "curves.csv": "the loss curves",
    "throughput.csv": "throughput",
    "laws.json": "the fitted laws",
    "prediction.json": "the prediction",
    "confirmation.json": "the confirming runs",
}
"""The files of a study folder that the report reads, in the order in which a study writes them."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands."""

    run: str
    group: str
    role: str
    status: str
    share: float
    """Of its steps."""
    loss: float | None
    """Of the last validation, nats per token."""
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """What stands in a study folder. Tables have no rows, laws no groups where a file is missing."""

    facts: Facts
    curves: pl.DataFrame
    throughput: pl.DataFrame
    laws: Laws
    predictions: Predictions
    confirmation: Confirmation
    missing: tuple[str, ...]
    """Names of STAGES that are not there yet."""
    data_laws: DataLaws = field(default_factory=DataLaws)
    """Without groups where no run repeats its data."""
    palette: tuple[str, ...] = ()
    """Groups of all studies on the page, by which colours are given out: a name has the same one in each of them."""
    states: tuple["RunProgress", ...] = ()
    """Of every run, while the study runs."""

    @property
    def styles(self) -> dict[str, Style]:
        return group_styles(dict.fromkeys([*self.palette, *self.groups]))

    @property
    def groups(self) -> tuple[str, ...]:
        """Every group that any file names: in the study's order, then the table of styles', then by name."""
        named = {*self.curves["group"], *self.laws.groups, *self.predictions.groups, *self.confirmation.groups}
        known = [name for name in STYLES if name in named]
        return tuple(dict.fromkeys([*self.facts.groups, *known, *sorted(named)]))


def read_results(folder: Path) -> Results:
    """Read the files of a study folder.

    Raises ValueError when `folder` holds none of them, or naming the file and the field that cannot be read.
    """
    missing = tuple(name for name in STAGES if not (folder / name).is_file())
    if len(missing) == len(STAGES):
        raise ValueError(
            f"{folder}: no study here (none of {', '.join(STAGES)}); give the folder of `noiselaw study run`"
        )
    return Results(
        facts=_read_record(folder / "study.json", Facts, Facts(name=folder.resolve().name)),
        curves=_read_table(folder / "curves.csv", CURVE_COLUMNS).filter(pl.col("loss") > 0, pl.col("flops") > 0),
        throughput=_read_table(folder / "throughput.csv", THROUGHPUT_COLUMNS),
        laws=_read_record(folder / "laws.json", Laws, Laws()),
        predictions=_read_record(folder / "prediction.json", Predictions, Predictions()),
        confirmation=_read_record(folder / "confirmation.json", Confirmation, Confirmation()),
        missing=missing,
        data_laws=_read_record(folder / DATA_LAWS, DataLaws, DataLaws()),
    )


def nothing_yet(name: str) -> Results:
    """A study of which nothing stands but its name."""
    curves, throughput = pl.DataFrame(schema=CURVE_COLUMNS), pl.DataFrame(schema=THROUGHPUT_COLUMNS)
    return Results(Facts(name=name), curves, throughput, Laws(), Predictions(), Confirmation(), missing=tuple(STAGES))


R = TypeVar("R", bound=Record)


def _read_record(path: Path, record: type[R], absent: R) -> R:
    if not path.is_file():
        return absent
    try:
        return record.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"]) or "top level"
        raise ValueError(f"{path}: {field}: {fault['msg']}; run the study again to rewrite it") from error


def _read_table(path: Path, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """The named columns; cells that are empty, NaN or infinite are null, and more columns are ignored."""
    if not path.is_file() or not path.read_bytes().strip():  # a study without a row yet writes an empty table
        return pl.DataFrame(schema=columns)
    try:
        table = pl.read_csv(path, schema_overrides=columns, null_values=["", "nan", "NaN"])
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: damaged table ({reason}); run the study again to rewrite it") from error
    absent = [name for name in columns if name not in table.columns]
    if set(absent) <= set(LATER_COLUMNS):
        table = table.with_columns(pl.lit(None).alias(name) for name in absent)
    else:
        raise ValueError(f"{path}: no column {', '.join(absent)}; run the study again to rewrite it")
    return typed_table(table, columns)


def typed_table(table: pl.DataFrame, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """The named columns of a table, of their types; a table without any has no rows."""
    if not table.width:
        return pl.DataFrame(schema=columns)
    floats = [name for name, kind in columns.items() if kind is NUMBER]
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in floats]
    return table.select(pl.col(name).cast(kind) for name, kind in columns.items()).with_columns(finite)
