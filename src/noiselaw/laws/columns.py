"""Which column of somebody's table is which: named by the reader, else guessed from its name and said so."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noiselaw.laws.build import RunBy
from noiselaw.laws.conventions import GIVEN
from noiselaw.laws.numerals import plain_number, read_numbers, split_name, uses_decimal_commas
from noiselaw.words import nearest

Role = Literal[
    "loss", "params", "tokens", "flops", "flops_per_token", "group", "run", "batch", "learning_rate", "unique_tokens",
    "epochs", "cooldown", "layers", "width", "sequence_length",
]  # fmt: skip
"""What a column can be for."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a table. Names of columns may be left out where they can be guessed."""

    loss: str | None = None
    """Column of losses, nats per token."""
    params: str | None = None
    """Column of parameters."""
    tokens: str | None = None
    """Column of training tokens, repeats counted."""
    flops: str | None = None
    """Column of training FLOPs."""
    flops_per_token: str | None = None
    """Column of training FLOPs per token."""
    group: str | None = None
    """Column of groups: laws are fitted for each (a noise, an objective)."""
    run: str | None = None
    """Column that names the run; rows of one run share its luck."""
    batch: str | None = None
    """Column of batch sizes."""
    learning_rate: str | None = None
    """Column of learning rates."""
    unique_tokens: str | None = None
    """Column of distinct training tokens."""
    epochs: str | None = None
    """Column of passes over the unique tokens."""
    cooldown: str | None = None
    """Column that says whether the learning rate was annealed."""
    layers: str | None = None
    """Column of layers."""
    width: str | None = None
    """Column of widths."""
    sequence_length: str | None = None
    """Column of sequence lengths, or one number for all rows."""
    batch_unit: Literal["tokens", "sequences"] | None = None
    """Unit of batch sizes; by default tokens unless the column's name says sequences."""
    convention: str | None = None
    """How FLOPs per token count: 6P, 6P+attention (6P+12Lds), 72Ld2+12Lds, or given (FLOPs per row)."""
    where: tuple[str, ...] = ()
    """Rows to keep, as "COLUMN=VALUE", "COLUMN<VALUE" and the like; all must hold."""
    unit: tuple[str, ...] = ()
    """What the numbers of a column stand in, as "COLUMN=1e6" or "COLUMN=M"; by default what its name says, as in
    "params (M)" or tokens_B, and 1."""
    run_by: RunBy | None = None
    """Without a column of runs: every row its own run, or the rows of one size readings of one run."""


GUESSES: dict[Role, tuple[str, ...]] = {
    "loss": (
        "valloss", "validationloss", "validloss", "evalloss", "testloss", "heldoutloss", "nelbo", "finalloss",
        "lossval", "losseval", "loss", "losses", "nll", "crossentropy", "ce", "elbo", "trainloss", "trainingloss", "l",
    ),
    "params": (
        "params", "nonembparams", "nonembeddingparams", "nonembeddingparameters", "numparams", "nparams", "parameters",
        "numparameters", "parametercount", "modelsize", "modelparams", "modelparameters", "paramcount", "totalparams",
        "n", "p", "size",
    ),
    "tokens": (
        "tokens", "numtokens", "ntokens", "trainingtokens", "traintokens", "totaltokens", "tokensseen",
        "numtrainingtokens", "numtraintokens", "datasetsize", "datasettokens", "data", "d",
    ),
    "flops": (
        "flops", "targetflops", "trainingflops", "trainflops", "totalflops", "flop", "trainingflop", "flopsbudget",
        "flopbudget", "computebudget", "budget", "compute", "trainingcompute", "c",
    ),
    "flops_per_token": ("flopspertoken", "flopspertok", "m"),
    "group": (
        "group", "noise", "noisetype", "objective", "forwardprocess", "modelfamily", "family", "method", "architecture",
        "arch", "dataset",
    ),
    "run": ("run", "runid", "runname", "experiment", "trial"),
    "batch": ("batchtokens", "batchsizetokens", "batchsequences", "batchsize", "batch", "globalbatchsize", "bs", "b"),
    "learning_rate": ("learningrate", "lr", "peaklr", "maxlr", "baselr", "eta"),
    "unique_tokens": ("uniquetokens", "numuniquetokens", "uniquedata", "u", "ud"),
    "epochs": ("epochs", "numepochs", "nepochs"),
    "cooldown": ("cooldown", "annealed", "hascooldown"),
    "layers": ("layers", "numlayers", "nlayers", "nlayer", "depth"),
    "width": ("width", "dmodel", "hiddensize", "hiddendim", "nembd", "modeldim"),
    "sequence_length": ("sequencelength", "seqlen", "seqlength", "contextlength", "maxseqlen", "ctx"),
}  # fmt: skip
"""Names by role, letters and digits only, the likeliest first."""

SIZES: tuple[Role, ...] = ("params", "tokens", "flops", "flops_per_token")
TEXTS: tuple[Role, ...] = ("group", "run", "cooldown")
"""Roles whose values are no numbers."""


@dataclass(frozen=True, slots=True)
class ColumnChoice:
    """The columns of one table by role."""

    columns: Mapping[Role, str]
    constants: Mapping[Role, float]
    """Numbers given in place of a column."""
    guessed: frozenset[Role]
    notes: tuple[tuple[Role, str], ...]
    """What was guessed, by role."""


def choose_columns(raw: Mapping[str, Sequence[Any]], options: ReadOptions) -> ColumnChoice:
    """Named columns as they are, the others guessed, every guess noted.

    Where two sizes are named, no third is guessed: it is derived. Raises ValueError for a column that is not there or
    named twice, and without a loss.
    """
    header = list(raw)
    columns: dict[Role, str] = {}
    constants: dict[Role, float] = {}
    for role in GUESSES:
        name = getattr(options, role)
        constant = plain_number(name) if role == "sequence_length" and name not in header else None
        if constant is not None:
            constants[role] = constant
        elif name is not None:
            refuse_unknown(name, header, option(role))
            columns[role] = name
    _refuse_twice(columns)
    is_settled = options.convention != GIVEN and sum(role in columns for role in SIZES) >= _TWO
    guessed, notes, commas = set(), [], uses_decimal_commas(raw.values())
    for role in GUESSES:
        if role in columns or role in constants:
            continue
        left = {name: values for name, values in raw.items() if name not in columns.values()}
        found = _guess(role, left, decimal_commas=commas)
        if found and role in SIZES and is_settled:
            notes.append((role, f"{words_for(role)}: derived; column {found[0]!r} counts if named by {option(role)}"))
        elif found:
            columns[role] = found[0]
            guessed.add(role)
            others = f" (not {', '.join(map(repr, found[1:]))})" if len(found) > 1 else ""
            notes.append((role, f"{words_for(role)}: column {found[0]!r}{others}"))
    if "loss" not in columns:
        raise ValueError(f"no column looks like a loss among {', '.join(header)}; name it with --loss")
    return ColumnChoice(columns, constants, frozenset(guessed), tuple(notes))


_TWO = 2


def option(role: Role) -> str:
    """Of the command line, by which a column is named."""
    return f"--{role.replace('_', '-')}"


def words_for(role: Role) -> str:
    """The role in running text."""
    return role.replace("_", " ")


def _guess(role: Role, raw: Mapping[str, Sequence[Any]], *, decimal_commas: bool) -> list[str]:
    """Columns that the role may have, the likeliest first: by name, and by holding numbers where numbers belong."""
    known = GUESSES[role]
    ranks = {name: [known.index(word) for word in _spellings(name) if word in known] for name in raw}
    found = sorted((name for name in raw if ranks[name]), key=lambda name: min(ranks[name]))
    if role == "group":
        return [name for name in found if len(set(map(str, raw[name]))) <= max(1, len(raw[name]) // 3)]
    return [name for name in found if role in TEXTS or _mostly_numbers(raw[name], decimal_commas=decimal_commas)]


def _spellings(name: str) -> set[str]:
    """The name whole, without its unit, and as the last part of a nested one: config.params_M is params."""
    bare = split_name(name).bare
    return {_letters(word) for word in (name, bare, re.split(r"[./]", bare)[-1])}


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mostly_numbers(values: Sequence[Any], *, decimal_commas: bool) -> bool:
    read = read_numbers(values, decimal_commas=decimal_commas, suffixes=True).values
    return sum(value is not None and not math.isnan(value) for value in read) >= len(values) / 2


def refuse_unknown(name: str, header: Sequence[str], what: str) -> None:
    if name in header:
        return
    near = nearest(name, header)
    hint = f"did you mean {near!r}?" if near else f"columns: {', '.join(header)}"
    raise ValueError(f"{what} {name!r}: no such column; {hint}")


def _refuse_twice(columns: Mapping[Role, str]) -> None:
    for role, name in columns.items():
        twins = [other for other, column in columns.items() if column == name]
        if len(twins) > 1:
            raise ValueError(
                f"column {name!r} is named for {' and '.join(twins)}; every column has one meaning: {role}?"
            )
