"""A law book from the user's own files: what `noiselaw laws ... --json` printed, or the folder of a study.

What the files do not say is taken from the paper (arXiv 2512.10858), and the book notes it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from noiselaw.accounting import DEFAULT_CONVENTION, FLOPS_CONVENTIONS
from noiselaw.files import read_json
from noiselaw.laws.datalaws import FILE_NAME as DATA_LAWS
from noiselaw.laws.datalaws import METHOD as TOKENS
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.isoflop import IsoflopFit
from noiselaw.laws.lawbook import (
    NORMAL_QUANTILE,
    PAPER_SEQUENCE_LENGTH,
    PAPER_VOCAB_SIZE,
    CooldownFactor,
    LawBook,
    published_batch_laws,
    published_learning_rates,
)
from noiselaw.laws.lawfits import finite
from noiselaw.laws.otherlaws import READERS, OtherLaws, turned_surface
from noiselaw.laws.prediction import Laws
from noiselaw.laws.record import METHOD, from_json
from noiselaw.laws.scarce import RepeatValue
from noiselaw.laws.table import ALL
from noiselaw.units import bits_per_byte_from_nats_per_token

Record = Mapping[str, Any]


def read_book(paths: Sequence[Path]) -> LawBook:
    """The laws in `paths`, files or study folders.

    One holds laws of compute, by parabolas, a surface or a frontier; others may add what EXTRAS names. Beside a study's
    laws.json, its study.json, recipe.json and token_laws.json say the rest. Raises ValueError naming a file that is
    missing, damaged, of another kind, or given twice.
    """
    found: dict[str, tuple[Path, Record]] = {}
    for path in paths:
        file = path / "laws.json" if path.is_dir() else path
        record = _read_mapping(file)
        method = str(record.get("method"))
        if method not in COMPUTE and method not in EXTRAS:
            known = ", ".join((*COMPUTE, *(name for name in EXTRAS if name not in COMPUTE)))
            raise ValueError(f"{file}: laws of method {method!r}; a plan reads {known}")
        if method in found:
            raise ValueError(f"{file}: {method} laws again, beside {found[method][0]}; give one of them")
        found[method] = file, record
    base = next((method for method in COMPUTE if method in found), None)
    if base is None:
        raise ValueError(
            f"{', '.join(map(str, paths))}: no laws of compute; add what `noiselaw laws isoflop --json` says "
            "(or surface, or frontier)"
        )
    file, record = found.pop(base)
    book = _with_study(_bare_book(base, file, record), file.parent)
    for method, (origin, extra) in found.items():
        if method not in EXTRAS:
            raise ValueError(f"{origin}: {method} laws of compute beside the {base} laws of {file}; give one of them")
        with _reading(origin):
            _refuse_other_count(method, extra, record)
            book = EXTRAS[method](book, extra["groups"])
    return book


def _refuse_other_count(method: str, extra: Record, base: Record) -> None:
    """A surface and laws of compute must count FLOPs alike."""
    if method == "surface" and extra["convention"] != base["convention"]:
        raise ValueError(
            f"FLOPs counted as {extra['convention']!r} beside {base['convention']!r}; fit both with one --convention"
        )


COMPUTE = (METHOD, "frontier", "surface")
"""Methods that a plan can rest on, the first that is given; a surface may also stand beside one of the others."""


def _bare_book(method: str, file: Path, record: Record) -> LawBook:
    """Laws alone: everything else as in the paper."""
    with _reading(file):
        fits: Mapping[str, Laws]
        if method == METHOD:
            fits = from_json(record)
        else:
            fits = {name: READERS[method](name, group) for name, group in record["groups"].items()}
        for fit in fits.values():
            _check_laws(fit)
    convention = str(record.get("convention"))
    notes = [
        f"sequences of {PAPER_SEQUENCE_LENGTH} tokens and a vocabulary of {PAPER_VOCAB_SIZE} assumed",
        _PAPERS_TUNING,
    ]
    if convention not in FLOPS_CONVENTIONS:
        notes.append(f"FLOPs counted as {convention!r} in the laws, as {DEFAULT_CONVENTION!r} in the plan")
        convention = DEFAULT_CONVENTION
    return LawBook(
        source=str(file),
        fits=fits,
        convention=convention,
        sequence_length=PAPER_SEQUENCE_LENGTH,
        vocab_size=PAPER_VOCAB_SIZE,
        bits_per_byte_per_nat=None,
        batch_laws=published_batch_laws(),
        learning_rates=published_learning_rates(),
        largest_tuned_batch=None,
        cooldown=None,
        notes=tuple(notes),
    )


def _with_study(book: LawBook, folder: Path) -> LawBook:
    """The book with what the study in `folder` says of its data and its runs; as it is where there is no study."""
    facts_file, recipe_file = folder / "study.json", folder / "recipe.json"
    if not (facts_file.is_file() and recipe_file.is_file()):
        return book
    facts, recipe = _read_mapping(facts_file), _read_mapping(recipe_file)
    with _reading(facts_file):
        data = facts["data"]
        book = replace(
            book,
            sequence_length=int(facts["sequence_length"]),
            vocab_size=int(data["vocab_size"]),
            bits_per_byte_per_nat=bits_per_byte_from_nats_per_token(1.0, data["bytes_per_token"]),
            available_tokens=int(data["train_tokens"]),
        )
    if (folder / DATA_LAWS).is_file():
        data_laws = _read_mapping(folder / DATA_LAWS)
        with _reading(folder / DATA_LAWS):
            book = replace(book, repeats=_repeat_values(data_laws["groups"]))
    with _reading(recipe_file):
        return replace(
            book,
            batch_laws={ALL: _power_law(recipe["batch_tokens"])},
            learning_rates={ALL: _power_law(recipe["learning_rate"])},
            run_settings=dict(recipe["run"]),
            data_path=str(folder / "data"),
            notes=(),
        )


_PAPERS_TUNING = "batch and learning rate by the laws of arXiv 2512.10858"


def _with_surface(book: LawBook, groups: Record) -> LawBook:
    """Surfaces beside the laws, in place of those that came with them."""
    surfaces = {group: turned_surface(record) for group, record in groups.items()}
    fits = {
        group: fit if surfaces.get(group) is None else replace(fit, surface=surfaces[group])
        for group, fit in book.fits.items()
        if isinstance(fit, (IsoflopFit, OtherLaws))
    }
    return replace(book, fits=fits)


def _with_hyperparameters(book: LawBook, groups: Record) -> LawBook:
    """Laws of batch and learning rate by group, where the fit has them."""
    batches, rates = _laws_of(groups, "batch_tokens"), _laws_of(groups, "learning_rate")
    notes = tuple(note for note in book.notes if note != _PAPERS_TUNING)
    missing = [name for name, laws in (("batch", batches), ("learning rate", rates)) if not laws]
    if missing:
        notes += (f"{' and '.join(missing)} by the laws of arXiv 2512.10858",)
    return replace(
        book, batch_laws=batches or book.batch_laws, learning_rates=rates or book.learning_rates, notes=notes
    )


def _with_cooldown(book: LawBook, groups: Record) -> LawBook:
    """One factor for all groups: the geometric mean of theirs, as uncertain as the widest interval says."""
    factors = [float(record["parameters"]["factor"]) for record in groups.values()]
    intervals = [record["intervals"]["factor"] for record in groups.values()]
    widths = [math.log(high / low) for low, high in filter(None, intervals)]
    value = math.exp(sum(map(math.log, factors)) / len(factors))
    return replace(book, cooldown=CooldownFactor(value, value * max(widths, default=0.0) / (2 * NORMAL_QUANTILE)))


def _with_repeats(book: LawBook, groups: Record) -> LawBook:
    """What repeats are worth, in place of what a study says."""
    repeats = _repeat_values(groups)
    if not repeats:
        raise ValueError("no law of repeated data; fit a table with unique tokens, or leave this file out")
    return replace(book, repeats=repeats)


def _repeat_values(groups: Record) -> dict[str, RepeatValue]:
    """The decay of repeats for every group whose law of repeated data was fitted."""
    repeats = {}
    for group, record in groups.items():
        parameters = record.get("repeated", record).get("parameters", {})
        if "inverse_R_D" in parameters:
            tokens, size = finite(parameters["inverse_R_D"]), finite(parameters.get("inverse_R_N", 0.0))
            if min(tokens, size) < 0:
                raise ValueError(f"group {group}: 1 / R* of {min(tokens, size):g} is negative; fit the table again")
            repeats[group] = RepeatValue(tokens, size, "your own laws", "your" if group == ALL else group)
    return repeats


EXTRAS: dict[str, Callable[[LawBook, Record], LawBook]] = {
    "surface": _with_surface,
    "hyperparameters": _with_hyperparameters,
    "cooldown": _with_cooldown,
    TOKENS: _with_repeats,
}
"""What may be read besides laws of compute, by method."""


def _laws_of(groups: Record, quantity: str) -> dict[str, PowerLaw]:
    laws = {group: record["laws"] for group, record in groups.items()}
    return {group: _power_law(mine[quantity]) for group, mine in laws.items() if quantity in mine}


def _power_law(record: Record) -> PowerLaw:
    law = PowerLaw(float(record["coefficient"]), float(record["exponent"]))
    _check_law(law)
    return law


def _check_laws(fit: Laws) -> None:
    for law in fit.laws.values():
        _check_law(law.law)


def _check_law(law: PowerLaw) -> None:
    if not (0 < law.coefficient < math.inf and math.isfinite(law.exponent)):
        raise ValueError(f"a law of coefficient {law.coefficient} and exponent {law.exponent}; fit the table again")


def _read_mapping(file: Path) -> Record:
    content = read_json(file)
    with _reading(file):
        return dict(content)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn whatever is wrong with the content of `file` into a ValueError that names it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({type(error).__name__} {error}); fit the table again") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
