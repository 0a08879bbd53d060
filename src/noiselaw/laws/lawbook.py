"""Everything a plan is drawn from, gathered from published laws or from the user's own files.

Laws of compute say how large and how long, laws of batch and learning rate how to train. The rest (vocabulary, sequence
length, bytes per token, the value of repeated data, what a cooldown gains) turns a law into one run.

Losses are nats per token; D training tokens, B batch in tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from noiselaw.laws import published
from noiselaw.laws.bootstrap import LEVEL
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.isoflop import fit_tables
from noiselaw.laws.prediction import Laws
from noiselaw.laws.scarce import MUENNIGHOFF, RepeatValue
from noiselaw.laws.table import ALL
from noiselaw.words import nearest_name

PAPER_SEQUENCE_LENGTH = 2048
PAPER_VOCAB_SIZE = 131_072
PAPER_LARGEST_TUNED_BATCH = 512 * 2048
"""Tokens: the largest batch among the cells of the paper's laws of batch and learning rate."""
NORMAL_QUANTILE = NormalDist().inv_cdf(0.5 + LEVEL / 2)
OBJECTIVES = (*published.NOISES, "autoregressive")
"""What a run can be trained with by name."""
NUM_DRAWS = 2000
"""Enough for the variance of a law, which is all that a prediction needs."""


@dataclass(frozen=True, slots=True)
class CooldownFactor:
    """Loss without over loss with a cooldown of the learning rate over the last 20 % of training."""

    value: float
    deviation: float

    def lower(self, loss: float, interval: tuple[float, float] | None) -> tuple[float, tuple[float, float] | None]:
        """A loss without cooldown and its interval, turned into those with it.

        In logs, the half widths of prediction and factor add in quadrature, each side by itself.
        """
        final = loss / self.value
        if interval is None:
            return final, None
        doubt = NORMAL_QUANTILE * self.deviation / self.value
        low, high = (math.hypot(math.log(end / loss), doubt) for end in interval)
        return final, (final * math.exp(-low), final * math.exp(high))


@dataclass(frozen=True, slots=True)
class LawBook:
    """Laws by group, and what one more run needs besides."""

    source: str
    fits: Mapping[str, Laws]
    convention: str
    """How FLOPs per token count in the laws (`noiselaw.accounting.FLOPS_CONVENTIONS`)."""
    sequence_length: int
    vocab_size: int
    bits_per_byte_per_nat: float | None
    """None where nobody said how many bytes a token stands for."""
    batch_laws: Mapping[str, PowerLaw]
    """Best batch of D, both in tokens, by group or for `all`."""
    learning_rates: Mapping[str, PowerLaw]
    """Best base learning rate eta of B, before width scaling, by group or for `all`."""
    largest_tuned_batch: float | None
    """Tokens; learning rates beyond it are extrapolated. None where it is not known."""
    cooldown: CooldownFactor | None
    """None where nobody measured what a cooldown gains."""
    repeats: Mapping[str, RepeatValue] = field(default_factory=dict)
    """What repeated tokens are worth, by group, where it was fitted."""
    available_tokens: int | None = None
    """Training tokens that the study's data holds."""
    data_path: str = "data"
    run_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that every run behind the laws shared: keys of a run's spec."""
    notes: tuple[str, ...] = ()
    """What was assumed, one sentence each."""
    is_published: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that have laws."""
        return tuple(group for group, fit in self.fits.items() if fit.laws)

    def fit(self, group: str) -> Laws:
        """The laws of one group; those of the only group of a table without groups stand for any objective.

        Raises ValueError for a group that is not there, or has no laws.
        """
        name = ALL if ALL in self.fits and group in OBJECTIVES else group
        if name not in self.fits:
            hint = nearest_name(group, self.fits)
            raise ValueError(f"no laws for {group!r} in {self.source}{hint}; known: {', '.join(self.fits)}")
        self.fits[name].law("tokens")
        return self.fits[name]

    def batch_law(self, group: str) -> PowerLaw:
        return _law_for(self.batch_laws, group)

    def learning_rate_law(self, group: str) -> PowerLaw:
        return _law_for(self.learning_rates, group)

    def knows_learning_rate(self, group: str) -> bool:
        """Whether the group's law of the learning rate is its own or one for all."""
        return group in self.learning_rates or ALL in self.learning_rates

    def repeat_value(self, group: str) -> RepeatValue:
        """What repeats are worth: as fitted for the group (or all), else as published for autoregressive models."""
        return self.repeats.get(group) or self.repeats.get(ALL, MUENNIGHOFF)

    def knows_repeats(self, group: str) -> bool:
        """Whether the value of repeats was fitted to runs of the user's own."""
        return group in self.repeats or ALL in self.repeats


def published_book(num_draws: int = NUM_DRAWS) -> LawBook:
    """The laws of arXiv 2512.10858, fitted to its points as it does, so that they come with covariances.

    Their exponents are those printed to 5e-5. Batches follow the pooled law that its large runs were planned with.
    """
    return LawBook(
        source=published.PAPER,
        fits=fit_tables(published.isoflop_tables(), keep="all", resample="optima", num_draws=num_draws),
        convention=published.METHOD_1,
        sequence_length=PAPER_SEQUENCE_LENGTH,
        vocab_size=PAPER_VOCAB_SIZE,
        bits_per_byte_per_nat=published.BITS_PER_BYTE_PER_NAT,
        batch_laws=published_batch_laws(),
        learning_rates=published_learning_rates(),
        largest_tuned_batch=PAPER_LARGEST_TUNED_BATCH,
        cooldown=CooldownFactor(published.COOLDOWN_FACTOR, published.COOLDOWN_FACTOR_UNCERTAINTY),
        run_settings={"precision": "bfloat16"},
        is_published=True,
    )


def published_batch_laws() -> dict[str, PowerLaw]:
    """The paper's pooled law of the batch, for every group."""
    return {ALL: published.POOLED_BATCH_LAW.law()}


def published_learning_rates() -> dict[str, PowerLaw]:
    """The paper's laws of the learning rate, by noise."""
    return {law.group: law.law() for law in published.LEARNING_RATE_LAWS if law.coefficient is not None}


def _law_for(laws: Mapping[str, PowerLaw], group: str) -> PowerLaw:
    """The group's own law, else that of all groups, else the geometric mean of every group's."""
    if group in laws or ALL in laws:
        return laws.get(group) or laws[ALL]
    coefficient = math.exp(float(np.mean([math.log(law.coefficient) for law in laws.values()])))
    return PowerLaw(coefficient, float(np.mean([law.exponent for law in laws.values()])))
