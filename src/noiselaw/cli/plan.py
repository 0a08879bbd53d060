"""`noiselaw plan`: the run that spends a budget best, by published laws or the user's own."""

import json as json_format
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console

from noiselaw.cli.plantable import WIDTH, plan_table
from noiselaw.files import write_text
from noiselaw.laws.hardware import DEFAULT_MFU, SECONDS_PER_DAY, Machine, machine
from noiselaw.laws.lawbook import LawBook, published_book
from noiselaw.laws.ownbook import read_book
from noiselaw.laws.planner import Budget, plan_training
from noiselaw.laws.trainingplan import TrainingPlan
from noiselaw.report import phrases
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.units import bits_per_byte_from_nats_per_token


def plan(
    *,
    noise: tuple[str, ...] = (),
    flops: float | None = None,
    tokens: float | None = None,
    days: float | None = None,
    gpu: str | None = None,
    count: int | None = None,
    mfu: float | None = None,
    peak_flops: float | None = None,
    price_per_hour: float | None = None,
    unique_tokens: float | None = None,
    laws: tuple[Path, ...] = (),
    sequence_length: int | None = None,
    vocab_size: int | None = None,
    bytes_per_token: float | None = None,
    data: Path | None = None,
    write: Path | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Plan the run that spends a budget best: shape, tokens, batch, learning rate, loss, time, cost, memory.

    The budget is one of --flops, --tokens, or --days on the machine that --gpu and --count name.

    Args:
        noise: One or several of masked, low-uniform, balanced, high-uniform, uniform, or the groups of your own laws,
            side by side; by default all that have laws.
        flops: Training FLOPs, embedding and head not counted.
        tokens: Training tokens; the size is the one for which they are optimal.
        days: Time on the machine.
        gpu: Kind of accelerator: a100, h100, h200, b200, mi300x, tpu-v5e, tpu-v5p, tpu-v6e, rtx-4090, cpu.
        count: Number of accelerators; by default 1.
        mfu: Share of their peak that training reaches, head included; by default 0.4.
        peak_flops: FLOP/s of one accelerator, in place of the built-in number.
        price_per_hour: US dollars for one accelerator; some kinds have a built-in price, with its source.
        unique_tokens: How many tokens there are, where data is scarce: they are repeated, and the model made to fit.
        laws: Your own laws in place of the published ones: files that `noiselaw laws ... --json` printed, or a study's
            folder.
        sequence_length: Tokens per sequence; by default that of the laws.
        vocab_size: Entries of the vocabulary; by default that of the laws.
        bytes_per_token: Of your text, for bits per byte; by default that of the laws.
        data: Prepared data that the written spec names; by default that of the laws.
        write: File for the plan as a spec that `noiselaw train` accepts; one noise only.
        dry_run: Build the planned run with fake tensors on as many pretended devices as --count says, and print what it
            takes and which layouts fit; one noise only. `noiselaw train SPEC --dry-run` has more settings.
        json: Print JSON.
    """
    budget = _budget({"flops": flops, "tokens": tokens, "days": days})
    on = _machine(gpu, count, mfu, peak_flops, price_per_hour)
    if data is not None and write is None:
        raise ValueError(f"--data {data}: only a written spec names it; add --write FILE")
    book = read_book(laws) if laws else published_book()
    book = _adjusted(book, sequence_length, vocab_size, bytes_per_token)
    groups = noise or book.groups
    if (write is not None or dry_run) and len(groups) != 1:
        option = "--dry-run" if write is None else f"--write {write}"
        raise ValueError(f"{option}: a spec holds one run, not {len(groups)} ({', '.join(groups)}); give one noise")
    if dry_run and on is None:
        raise ValueError("--dry-run: say on which devices, with --gpu and --count")
    plans = [plan_training(book, group, budget, on=on, unique_tokens=unique_tokens) for group in groups]
    if write is not None:
        write_spec(plans[0], book, write, data)
    if dry_run and on is not None:
        _dry_run(plans[0], book, on, as_json=json)
    else:
        _show(plans, book, as_json=json)
    if write is not None:
        print(f"{write}: start it with `noiselaw train {shlex.quote(str(write))}`", file=sys.stderr)


def write_spec(plan: TrainingPlan, book: LawBook, path: Path, data: Path | None = None) -> None:
    """Write the plan as a spec that `noiselaw train` accepts.

    Raises SpecError for a group that is neither a noise's name nor `autoregressive`.
    """
    settings = plan.run_settings(book.run_settings, str(data or book.data_path))
    parse_spec(RunSpec, settings, f"plan for {plan.group}")
    low_high = "" if plan.loss.interval is None else " [{:.3f}, {:.3f}]".format(*plan.loss.interval)
    about = (
        f"# Planned from the laws of {book.source}: {phrases.scientific(plan.flops)} training FLOPs, "
        f"{phrases.count(plan.params)} parameters, {phrases.count(plan.tokens)} tokens;\n"
        f"# predicted loss {plan.loss.value:.3f}{low_high} nats per token.\n"
    )
    write_text(path, about + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _dry_run(plan: TrainingPlan, book: LawBook, on: Machine, *, as_json: bool) -> None:
    """Print what the planned run takes on each device of `on`."""
    from noiselaw.cli.dryrun import MEMORY_GB, planned_cluster, show_dry_run  # noqa: PLC0415 (loads torch: seconds)

    spec = parse_spec(RunSpec, plan.run_settings(book.run_settings, str(book.data_path)), f"plan for {plan.group}")
    limits = tuple(size * 1e9 for size in MEMORY_GB)
    show_dry_run(spec, book.vocab_size, planned_cluster(on), limits, search=True, as_json=as_json)


def _budget(given: dict[str, float | None]) -> Budget:
    amounts = {kind: amount for kind, amount in given.items() if amount is not None}
    if len(amounts) != 1:
        found = " and ".join(f"--{kind} {amount:g}" for kind, amount in amounts.items()) or "none"
        raise ValueError(f"the budget is one of --flops, --tokens or --days (with --gpu); found {found}")
    ((kind, amount),) = amounts.items()
    if kind == "days":
        return Budget("seconds", amount * SECONDS_PER_DAY)
    return Budget("flops" if kind == "flops" else "tokens", amount)


def _machine(
    gpu: str | None, count: int | None, mfu: float | None, peak_flops: float | None, price_per_hour: float | None
) -> Machine | None:
    if gpu is not None:
        count, mfu = 1 if count is None else count, DEFAULT_MFU if mfu is None else mfu
        return machine(gpu, count, mfu, peak_flops=peak_flops, price_per_hour=price_per_hour)
    options = {"--count": count, "--mfu": mfu, "--peak-flops": peak_flops, "--price-per-hour": price_per_hour}
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: say of which accelerator, with --gpu")
    return None


def _adjusted(
    book: LawBook, sequence_length: int | None, vocab_size: int | None, bytes_per_token: float | None
) -> LawBook:
    """The book with what the command line says instead of it."""
    for name, value in {"--sequence-length": sequence_length, "--vocab-size": vocab_size}.items():
        if value is not None and value < 2:
            raise ValueError(f"{name} {value}: give at least 2")
    factor = book.bits_per_byte_per_nat
    if bytes_per_token is not None:
        factor = bits_per_byte_from_nats_per_token(1.0, bytes_per_token)
    return replace(
        book,
        sequence_length=sequence_length or book.sequence_length,
        vocab_size=vocab_size or book.vocab_size,
        bits_per_byte_per_nat=factor,
    )


def _show(plans: list[TrainingPlan], book: LawBook, *, as_json: bool) -> None:
    for note in book.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        record = {"source": book.source, "notes": list(book.notes), "plans": [plan.record() for plan in plans]}
        print(json_format.dumps(record, indent=1, allow_nan=False))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(plan_table(plans))
    for flag in dict.fromkeys(flag for plan in plans for flag in plan.flags):
        groups = [plan.group for plan in plans if flag in plan.flags]
        console.print(f"{', '.join(groups)}: {flag}", markup=False)
