"""Laws and large runs that others published, as frozen records with source and counting convention.

"The paper" is arXiv 2512.10858 (spec section 7). Compute C is in FLOPs and sizes in FLOPs per token M or non-embedding
parameters P, by the convention each record names; losses are nats per token, batches tokens, learning rates the paper's
eta. The paper's isoFLOP points and tables are package data (`data/SOURCE.md` says where they come from).
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noiselaw.laws.curves import IsoflopTable, tabulate_points
from noiselaw.laws.forms import PowerLaw

PAPER = "arXiv 2512.10858"
METHOD_1 = "6P+12Lds"
"""The paper's FLOPs per token ("method 1, DeepSeek"), as its table counts them."""
METHOD_2 = "6P"
"""The older count ("method 2, Chinchilla")."""
NOISES = ("masked", "low-uniform", "balanced", "high-uniform", "uniform")

COOLDOWN_FACTOR = 1.0245
"""Loss without over loss with a cooldown of the last 20 % of training (the paper)."""
COOLDOWN_FACTOR_UNCERTAINTY = 0.0014

Quantity = Literal["loss", "tokens", "params", "flops_per_token", "batch_tokens", "learning_rate"]


@dataclass(frozen=True, slots=True)
class PublishedLaw:
    """quantity = coefficient * of ** exponent, as printed."""

    source: str
    group: str
    """Noise, `autoregressive`, or `all` noises pooled."""
    quantity: Quantity
    of: Literal["flops", "tokens", "batch_tokens"]
    exponent: float
    coefficient: float | None
    """None where only the exponent is printed."""
    interval: tuple[float, float] | None = None
    """Of the exponent: 95 % bootstrap for laws of compute, the printed +- for batch and learning rate."""
    convention: str | None = None
    """How C, M or P count; None where neither enters."""
    r_squared: float | None = None
    """Of the logs, over the optima that it was fitted to."""

    def law(self) -> PowerLaw:
        """The power law itself. Raises ValueError where only the exponent is published."""
        if self.coefficient is None:
            raise ValueError(
                f"{self.source}, {self.group}, {self.quantity}: only the exponent is published, no coefficient"
            )
        return PowerLaw(self.coefficient, self.exponent)


@dataclass(frozen=True, slots=True)
class PublishedSurface:
    """L = E + A M^-alpha + B D^-beta, printed to three digits; least squares of log residuals (the paper)."""

    group: str
    E: float
    A: float
    alpha: float
    B: float
    beta: float
    convention: str = METHOD_1

    def __call__(self, flops_per_token: float, tokens: float) -> float:
        return self.E + self.A * flops_per_token**-self.alpha + self.B * tokens**-self.beta

    @property
    def size_exponent(self) -> float:
        """Of M*(C) where the surface is lowest at fixed C = M D: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)


@dataclass(frozen=True, slots=True)
class LargeRun:
    """A run that tested the laws; head dimension 128, sequences of 2048 tokens, cooldown over the last 20 %."""

    name: str
    group: str
    num_layers: int
    width: int
    num_heads: int
    params: float
    """Non-embedding."""
    flops_per_token: float
    batch_sequences: int
    num_steps: int
    tokens: float
    loss: float
    loss_before_cooldown: float
    benchmarks: Mapping[str, float]
    """Accuracy in percent."""
    source: str = PAPER

    @property
    def flops(self) -> float:
        return self.flops_per_token * self.tokens


_BENCHMARKS = ("ARC-E", "ARC-C", "WinoG", "PIQA", "OBQA", "BoolQ", "GSM8k")


def _scores(*values: float) -> dict[str, float]:
    return dict(zip(_BENCHMARKS, values, strict=True))


LARGE_RUNS = (
    LargeRun("mask-3b", "masked", 18, 3072, 24, 2.039e9, 1.359e10, 1536, 23_500, 74e9, 2.422, 2.495,
             _scores(49.9, 29.4, 51.6, 64.8, 30.6, 60.9, 1.67)),
    LargeRun("unif-3b", "uniform", 19, 3072, 24, 2.152e9, 1.434e10, 1536, 22_500, 71e9, 2.462, 2.538,
             _scores(50.6, 28.0, 51.1, 63.5, 28.8, 56.4, 2.05)),
    LargeRun("unif-10b", "uniform", 34, 4608, 36, 8.666e9, 5.583e10, 3072, 29_000, 182e9, 2.214, 2.275,
             _scores(61.8, 35.7, 55.5, 66.3, 32.8, 60.3, 2.43)),
)  # fmt: skip
"""The paper's runs at 1e21 and 1e22 FLOPs."""

LOSS_GAPS = {1e18: 0.032, 1e22: 0.0075}
"""Fitted L* of uniform over that of masked noise, minus one, at C in FLOPs (the paper)."""

BITS_PER_BYTE_PER_NAT = 0.34124
"""Bits per byte for one nat per token, with the paper's tokenizer on its data."""


def load_points(name: str = "gidd-2512.10858") -> dict[str, NDArray[Any]]:
    """The columns of a shipped table: `noise` and the columns that data/SOURCE.md describes. Raises ValueError."""
    if name not in _TABLES:
        raise ValueError(f"no points named {name!r}; known: {', '.join(_TABLES)}")
    rows = list(csv.DictReader(_read_data(_TABLES[name]).splitlines()))
    points: dict[str, NDArray[Any]] = {
        column: np.array([float(row[column]) for row in rows]) for column in rows[0] if column != "noise"
    }
    return points | {
        "noise": np.array([row["noise"] for row in rows]),
        "in_fit_mask": points["in_fit_mask"] == 1,
    }


def isoflop_tables(column: str = "loss") -> dict[str, IsoflopTable]:
    """The points that the paper's laws are fitted to (5e17 <= C <= 2e20, loss < 4), by noise: 45 budgets, 5 sizes.

    Another `column` may stand in for the loss, such as `loss_sd`.
    """
    points = load_points()
    rows = {name: values[points["in_fit_mask"]] for name, values in points.items()}
    return tabulate_points(
        group=rows["noise"].tolist(),
        params=rows["non_emb_params"],
        flops_per_token=rows["flops_per_token"],
        flops=rows["target_flops"],
        loss=rows[column],
    )


def isoflop_laws() -> tuple[PublishedLaw, ...]:
    """The paper's laws of compute by method 1: L*, D*, M*, P* of parabolas, for the five noises.

    The coefficients of P* are printed to five decimals, so one or two digits of them are known.
    """
    table = json.loads(_read_data("published.json"))
    return tuple(
        PublishedLaw(
            PAPER, noise, quantity, "flops", law["exponent"], law["A"],
            _offset(law["exponent"], table["ci95_offsets"][noise].get(symbol)), METHOD_1, r_squared,
        )
        for noise in NOISES
        for (symbol, quantity), r_squared in zip(
            _SYMBOLS.items(), table["sq_fit"][noise]["r2_L_D_M_P"], strict=True
        )
        for law in (table["sq_fit"][noise][symbol],)
    )  # fmt: skip


def raw_isoflop_laws() -> tuple[PublishedLaw, ...]:
    """As `isoflop_laws`, through the lowest point of each budget instead of the parabola's vertex."""
    table = json.loads(_read_data("published.json"))["raw"]
    return tuple(
        PublishedLaw(PAPER, noise, quantity, "flops", law["exponent"], law.get("A"), None, METHOD_1)
        for noise in NOISES
        for symbol, quantity in _SYMBOLS.items()
        for law in (table[noise][symbol],)
    )


def surfaces() -> tuple[PublishedSurface, ...]:
    """The paper's loss surfaces."""
    table = json.loads(_read_data("published.json"))["loss_surface"]
    return tuple(
        PublishedSurface(noise, values["E"], values["a"], values["alpha"], values["b"], values["beta"])
        for noise, values in table.items()
    )


def _method_2_laws() -> tuple[PublishedLaw, ...]:
    exponents: dict[Quantity, tuple[float, ...]] = {
        "loss": (-0.0462, -0.0475, -0.0479, -0.0483, -0.0490),
        "tokens": (0.403, 0.433, 0.432, 0.379, 0.382),
        "params": (0.597, 0.567, 0.568, 0.621, 0.618),
    }
    return tuple(
        PublishedLaw(PAPER, noise, quantity, "flops", exponent, None, None, METHOD_2)
        for quantity, values in exponents.items()
        for noise, exponent in zip(NOISES, values, strict=True)
    )


METHOD_2_LAWS = _method_2_laws()
"""The paper's laws of compute with C = 6 P D: exponents only."""


def _tuning_laws(
    quantity: Quantity, of: Literal["tokens", "batch_tokens"], rows: Mapping[str, tuple[float | None, float, float]]
) -> tuple[PublishedLaw, ...]:
    """Laws from printed rows: natural log of the coefficient, exponent and its printed +-."""
    return tuple(
        PublishedLaw(
            PAPER, group, quantity, of, exponent, None if log_a is None else math.exp(log_a),
            (exponent - error, exponent + error),
        )
        for group, (log_a, exponent, error) in rows.items()
    )  # fmt: skip


BATCH_LAWS = _tuning_laws(
    "batch_tokens",
    "tokens",
    {
        "masked": (-4.4488, 0.7759, 0.0167),
        "low-uniform": (-4.8374, 0.7916, 0.0194),
        "balanced": (-5.8452, 0.8373, 0.0214),
        "high-uniform": (-6.3977, 0.8607, 0.0206),
        "uniform": (-6.7918, 0.8787, 0.0160),
        "all": (None, 0.8225, 0.0104),
    },
)
"""Optimal batch in tokens, B* = A D^a, by noise."""

POOLED_BATCH_LAW = PublishedLaw(PAPER, "all", "batch_tokens", "tokens", 0.8179, 3.614e-3)
"""The batch law that the paper's large runs were planned with."""

LEARNING_RATE_LAWS = _tuning_laws(
    "learning_rate",
    "batch_tokens",
    {
        "masked": (-4.5690, 0.3295, 0.0286),
        "low-uniform": (-4.1345, 0.2924, 0.0290),
        "balanced": (-5.0164, 0.3653, 0.0207),
        "high-uniform": (-5.0472, 0.3628, 0.0190),
        "uniform": (-4.9331, 0.3554, 0.0151),
        "all": (None, 0.3412, 0.0110),
    },
)
"""Optimal learning rate eta* = A B^a at the optimal batch B in tokens, by noise."""

COMPARISON_LAWS = (
    PublishedLaw("Chinchilla, arXiv 2203.15556", "autoregressive", "params", "flops", 0.49, 0.15, None, METHOD_2),
    PublishedLaw("Chinchilla, arXiv 2203.15556", "autoregressive", "tokens", "flops", 0.51, 1.15, None, METHOD_2),
    PublishedLaw("DeepSeek, arXiv 2401.02954", "autoregressive", "flops_per_token", "flops", 0.5243, 0.1715, None,
                 "72Ld2+12Lds"),
    PublishedLaw("DeepSeek, arXiv 2401.02954", "autoregressive", "tokens", "flops", 0.4757, 5.8316, None,
                 "72Ld2+12Lds"),
    PublishedLaw("Llama 3, arXiv 2407.21783", "autoregressive", "params", "flops", 0.463, 0.6, None, METHOD_2),
    PublishedLaw("Llama 3, arXiv 2407.21783", "autoregressive", "tokens", "flops", 0.537, 0.299, None, METHOD_2),
    PublishedLaw("Nie et al.", "masked", "params", "flops", 0.634, 1.029e-4, None, METHOD_2),
    PublishedLaw("Nie et al.", "masked", "tokens", "flops", 0.366, 1619.0, None, METHOD_2),
    PublishedLaw("Ni et al.", "masked", "params", "flops", 0.514, 0.0216, None, METHOD_2),
    PublishedLaw("Ni et al.", "masked", "tokens", "flops", 0.486, 7.7, None, METHOD_2),
)  # fmt: skip
"""Laws of other papers, as the paper compares with them; those stated in parameters count C = 6 P D."""

_TABLES = {"gidd-2512.10858": "isoflops.csv"}
_SYMBOLS: dict[str, Quantity] = {"L": "loss", "D": "tokens", "M": "flops_per_token", "P": "params"}


def _offset(exponent: float, offsets: list[float] | None) -> tuple[float, float] | None:
    return None if offsets is None else (exponent + offsets[0], exponent + offsets[1])


def _read_data(name: str) -> str:
    return (files("noiselaw.laws") / "data" / name).read_text(encoding="utf-8")
