"""`noiselaw sample RUN [--prompt TEXT ...]`: write, infill or revise text with a trained model."""

import json as json_format
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noiselaw.cli.tracing import TraceRecorder, visible
from noiselaw.files import write_text
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.hub.write import Settings, revise, write, written_ids
from noiselaw.report.trace import render_trace
from noiselaw.sampling import Canvas, Filters, Observer, Step
from noiselaw.train.machine import choose_float32_products, float32_products, resolve_device

MIN_BLANK = 4
"""Underscores in a row that make a blank; fewer are text, as in __init__."""
HIDDEN_OPTIONS = ("model", "seed", "tokenizer", "device", "trace", "json", "quiet")
"""Options that do not tell the trace page's reader what was asked."""


@dataclass(frozen=True, slots=True)
class SampleArguments:
    """Write, infill or revise text with a trained model.

    MODEL is a run folder of `noiselaw train` or a published GIDD checkpoint. Without --prompt, --infill or --revise the
    text is written from nothing.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """Run folder or GIDD checkpoint."""
    prompt: tuple[str, ...] = ()
    """Texts to continue, in one batch whatever their lengths."""
    infill: str | None = None
    """Text with blanks: every underscore in a row of at least four is one token to be written."""
    revise: str | None = None
    """Finished text, or a file of it, to be improved by a model that knows swapped tokens."""
    num_samples: int = 1
    """Texts for each prompt."""
    length: int | None = None
    """Tokens of the whole text, prompt included; by default as many as the model was trained on.

    A diffusion model has seen texts of that length only and writes shorter ones worse.
    """
    sampler: str | None = None
    """ancestral (default), adaptive or blockwise."""
    steps: int | None = None
    """Steps, of each block where blockwise: by default 128, or one a token (adaptive, blockwise)."""
    grid: str | None = None
    """cosine (default) or linear: how the noise levels are spaced."""
    positions_per_step: int | None = None
    """Tokens that each adaptive step rewrites."""
    block_length: int | None = None
    """Tokens of a block; by default 32."""
    temperature: float | None = None
    """Sharpens (below 1) or flattens; 0 takes the most probable token. By default 1, when revising 0."""
    top_k: int | None = None
    """Only the k most probable tokens."""
    top_p: float | None = None
    """Only the most probable tokens that together have this probability."""
    seed: int = 0
    """The same seed, the same text."""
    tokenizer: Path | None = None
    """A tokenizer.json in place of the model's own."""
    device: str = "auto"
    """auto: cuda where there is one, else cpu."""
    trace: Path | None = None
    """Page to write that plays the denoising, step by step."""
    json: bool = False
    """Print JSON."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be written: the canvas, and what each text was asked with."""

    canvas: Canvas
    asked: list[str]
    revises: bool
    continues: bool
    """Whether the texts may end before their last token."""


def sample(arguments: list[str]) -> None:
    """Read the command line, load, write, show."""
    options = tyro.cli(SampleArguments, prog="noiselaw sample", args=arguments)
    settings = _settings(options)
    loaded = load_model(options.model, tokenizer=options.tokenizer)
    for warning in loaded.warnings:
        print(f"noiselaw: warning: {warning}", file=sys.stderr)
    device = resolve_device(options.device)
    loaded.model.to(device)
    request = _request(options, loaded, device)
    recorder = TraceRecorder(loaded, request.canvas, revises=request.revises) if options.trace else None
    started = time.perf_counter()
    bar = _progress(disable=options.quiet or not sys.stderr.isatty())
    with bar as shown, float32_products(choose_float32_products("auto", device)):
        ids = (revise if request.revises else write)(
            loaded,
            request.canvas,
            settings,
            generator=torch.Generator(device).manual_seed(options.seed),
            observe=_together([watch for watch in (shown, recorder and recorder.observe) if watch]),
        )
    seconds = time.perf_counter() - started
    samples = [_described(loaded, request, row, text) for row, text in enumerate(ids.tolist())]
    if recorder and options.trace:
        trace = recorder.trace(_title(options), _facts(options, loaded), [found["text"] for found in samples])
        write_text(options.trace, render_trace(trace))
        print(f"{options.trace}: open it in a browser", file=sys.stderr)
    record = {
        "model": str(options.model),
        "noise": loaded.noise_name,
        "seed": options.seed,
        "seconds": seconds,
        "tokens_per_second": int(request.canvas.blank.sum()) / seconds,
        "samples": samples,
    }
    if options.json:
        print(json_format.dumps(record, indent=1, allow_nan=False))
    else:
        _print_texts(samples)


def _settings(options: SampleArguments) -> Settings:
    """How to write, from the command line."""
    default = 0.0 if options.revise is not None else 1.0
    temperature = default if options.temperature is None else options.temperature
    return Settings(
        sampler=options.sampler,
        num_steps=options.steps,
        grid=options.grid,
        positions_per_step=options.positions_per_step,
        block_length=options.block_length,
        filters=Filters(temperature, options.top_k, options.top_p),
    )


def _request(options: SampleArguments, loaded: LoadedModel, device: torch.device) -> _Request:
    """What to write. Raises ValueError where the command line asks for two things or for none that can be."""
    sources = {"--prompt": bool(options.prompt), "--infill": options.infill is not None}
    sources["--revise"] = options.revise is not None
    asked = [name for name, given in sources.items() if given]
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)}: give one of them")
    if options.num_samples < 1:
        raise ValueError(f"--num-samples {options.num_samples}: give at least 1")
    if options.length is not None and asked not in ([], ["--prompt"]):
        raise ValueError(f"--length: without effect with {asked[0]}, whose text has a length; leave it out")
    if options.infill is not None:
        rows = [_blanks(loaded, options.infill)] * options.num_samples
        canvas = Canvas.from_rows(rows, device)
        return _Request(canvas, [options.infill] * options.num_samples, revises=False, continues=False)
    if options.revise is not None:
        text = _text_or_file(options.revise)
        ids = loaded.encode(text, "--revise")
        if not ids:
            raise ValueError("--revise: the text is empty; give something to improve")
        canvas = Canvas.from_texts([ids] * options.num_samples, device)
        return _Request(canvas, [text] * options.num_samples, revises=True, continues=False)
    prompts = [prompt for prompt in options.prompt or ("",) for _ in range(options.num_samples)]
    length = loaded.sequence_length if options.length is None else options.length
    encoded = [loaded.encode(prompt, "--prompt") if prompt else [] for prompt in prompts]
    return _Request(Canvas.from_prompts(encoded, length, device), prompts, revises=False, continues=True)


def _blanks(loaded: LoadedModel, text: str) -> list[int | None]:
    """The ids of a text with None for every underscore of its blanks."""
    row: list[int | None] = []
    for part in re.split(rf"(_{{{MIN_BLANK},}})", text):
        is_blank = len(part) >= MIN_BLANK and set(part) == {"_"}
        row += [None] * len(part) if is_blank else loaded.encode(part, "--infill") if part else []
    if None not in row:
        raise ValueError(f"--infill {text!r}: has no blank; write {'_' * MIN_BLANK} or more, one for each token")
    return row


def _text_or_file(value: str) -> str:
    """The content of the file that `value` names, or `value` itself where there is none."""
    try:
        is_file = Path(value).is_file()
    except OSError:  # longer than any file's name
        is_file = False
    if not is_file:
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--revise {value}: not a text file ({error})") from None


def _described(loaded: LoadedModel, request: _Request, row: int, ids: list[int]) -> dict[str, Any]:
    """One sample for JSON: what was asked, the whole text, the part that was written, its ids."""
    ids = ids[: int(request.canvas.ends[row])]
    num_given = int(request.canvas.prompt_lengths[row])
    kept = written_ids(loaded, ids, num_given) if request.continues else ids
    return {
        "asked": request.asked[row],
        "text": loaded.decode(kept),
        "written": loaded.decode(kept[num_given:]),
        "ended": len(kept) < len(ids),
        "num_tokens": len(kept),
        "tokens": ids,
    }


def _print_texts(samples: list[dict[str, Any]]) -> None:
    """The texts alone where there is one, headed by their number where there are more."""
    for number, found in enumerate(samples, start=1):
        if len(samples) > 1:
            print(f"--- {number} of {len(samples)}")
        print(visible(found["text"]))


def _title(options: SampleArguments) -> str:
    what = "revises" if options.revise is not None else "fills in" if options.infill is not None else "writes"
    return f"{options.model.resolve().name} {what}"


def _facts(options: SampleArguments, loaded: LoadedModel) -> list[tuple[str, str]]:
    """What the page says it shows: the options that were given, and the noise."""
    names = [field.name for field in fields(options) if field.name not in HIDDEN_OPTIONS]
    given = [(name.replace("_", " "), getattr(options, name)) for name in names]
    shown = [
        (name, ", ".join(f"“{part}”" for part in value) if isinstance(value, tuple) else str(value))
        for name, value in given
        if value not in (None, ())
    ]
    return [("noise", loaded.noise_name), *shown, ("seed", str(options.seed))]


def _together(watchers: Sequence[Observer]) -> Observer | None:
    """One observer for several; None for none, so that nobody pays for a look."""

    def observe(step: Step) -> None:
        for watch in watchers:
            watch(step)

    return observe if watchers else None


@contextmanager
def _progress(*, disable: bool) -> Iterator[Observer | None]:
    """A progress bar over the steps, for as long as the context is open: its observer, None where it is disabled."""
    columns = (TextColumn("writing"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("steps, left"))
    if disable:
        yield None
        return
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing", total=None)
        yield lambda step: progress.update(task, total=step.num_steps, completed=step.index)
