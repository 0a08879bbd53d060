"""`noiselaw evaluate RUN --data FOLDER | --text TEXT | --tasks NAMES | --generate`: how good a trained model is."""

import json as json_format
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from noiselaw.data.shards import open_tokens
from noiselaw.evaluation.generative import build_judge, quality
from noiselaw.evaluation.likelihood import DEFAULT_DRAWS, completion_bounds, data_bound
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.report.prints import write_prints
from noiselaw.report.qualityfigure import quality_curve
from noiselaw.train.machine import resolve_device
from noiselaw.units import bits_per_byte_from_nats_per_token

Record = dict[str, Any]

DEFAULT_STEPS = (8, 32, 128)
ANY_WAY = frozenset({"model", "tokenizer", "device", "json"})
"""Options that mean something whatever is evaluated."""
HEEDS = {
    "--data": {"split", "num_sequences", "draws"},
    "--text": {"prompt", "draws"},
    "--tasks": {"include_path", "limit", "num_fewshot", "cache", "draws"},
    "--generate": {"scorer", "steps", "num_samples", "length", "figure", "seed"},
}
"""Options by what they mean something to."""


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Score data, texts or benchmark tasks with a trained model, or what it writes with another one.

    MODEL is a run folder of `noiselaw train` or a published GIDD checkpoint. Give one of --data, --text, --tasks and
    --generate. Numbers of diffusion models are upper bounds with a standard error, those of autoregressive ones exact.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """Run folder or GIDD checkpoint."""
    data: Path | None = None
    """Folder of `noiselaw data prepare`, of the model's tokenizer."""
    split: Literal["train", "validation"] = "validation"
    """Of --data."""
    num_sequences: int | None = None
    """Sequences of --data, evenly spread; by default all, at most 1024."""
    text: str | None = None
    """Text to score."""
    prompt: str = ""
    """Text that stands before --text and is given."""
    draws: int | None = None
    """Noise levels for each sequence (by default 1) or text (by default 128)."""
    tasks: str | None = None
    """Tasks of lm-evaluation-harness, separated by commas (extra evaluate)."""
    include_path: Path | None = None
    """Folder of own task YAML files."""
    limit: int | None = None
    """Only the first so many examples of each task."""
    num_fewshot: int | None = None
    """Solved examples before each question."""
    cache: Path | None = None
    """Beginning of the name of a file that keeps the tasks' answers for the next time."""
    generate: bool = False
    """Write texts and score them with --scorer."""
    scorer: Path | None = None
    """Judge of --generate: a model of ours or a Hugging Face causal model's folder (extra scorer)."""
    steps: tuple[int, ...] | None = None
    """Numbers of sampling steps to compare with --generate, by default 8, 32 and 128; none where autoregressive."""
    num_samples: int = 16
    """Texts of --generate for each number of steps."""
    length: int | None = None
    """Their tokens; by default as many as the model was trained on."""
    figure: Path | None = None
    """Folder for the curve of quality against steps, as PNG and SVG."""
    seed: int = 0
    """Of --generate."""
    tokenizer: Path | None = None
    """A tokenizer.json in place of the model's own."""
    device: str = "auto"
    """auto: cuda where there is one, else cpu."""
    json: bool = False
    """Print JSON."""


def evaluate(arguments: list[str]) -> None:
    """Read the command line, load, score, show."""
    options = tyro.cli(EvaluateArguments, prog="noiselaw evaluate", args=arguments)
    ways: dict[str, tuple[bool, Callable[[EvaluateArguments, LoadedModel], Record]]] = {
        "--data": (options.data is not None, _data),
        "--text": (options.text is not None, _text),
        "--tasks": (options.tasks is not None, _tasks),
        "--generate": (options.generate, _generate),
    }
    asked = [name for name, (given, _) in ways.items() if given]
    if len(asked) != 1:
        raise ValueError(f"give one of {', '.join(ways)}; got {' and '.join(asked) or 'none'}")
    _refuse_without_effect(options, asked[0])
    if options.draws is not None and options.draws < 1:
        raise ValueError(f"--draws {options.draws}: give at least 1")
    loaded = load_model(options.model, tokenizer=options.tokenizer)
    for warning in loaded.warnings:
        print(f"noiselaw: warning: {warning}", file=sys.stderr)
    if loaded.process is None and (options.draws or options.steps):
        name = "--draws" if options.draws else "--steps"
        raise ValueError(f"{name}: without effect on an autoregressive model, which has no noise; leave it out")
    loaded.model.to(resolve_device(options.device))
    found = ways[asked[0]][1](options, loaded)
    record = {"model": str(options.model), "noise": loaded.noise_name, **found}
    if options.json:
        print(json_format.dumps(record, indent=1, default=str))
    else:
        _print(record)


def _refuse_without_effect(options: EvaluateArguments, way: str) -> None:
    """Raise ValueError for options that mean nothing to this way of evaluating."""
    heeded = ANY_WAY | {way.removeprefix("--")} | HEEDS[way]
    ignored = [
        f"--{field.name.replace('_', '-')}"
        for field in fields(options)
        if field.name not in heeded and getattr(options, field.name) != field.default
    ]
    if ignored:
        raise ValueError(f"{', '.join(ignored)}: without effect with {way}; leave it out")


def _data(options: EvaluateArguments, loaded: LoadedModel) -> Record:
    assert options.data is not None
    data = open_tokens(options.data)
    found = data_bound(loaded, data, options.split, num_sequences=options.num_sequences, draws=options.draws or 1)
    estimate = asdict(found.estimate)
    return {
        "data": str(options.data),
        "split": options.split,
        "is_bound": loaded.process is not None,
        "nats_per_token": estimate.pop("loss"),
        **estimate,
        "bits_per_byte": found.bits_per_byte,
        "bits_per_byte_standard_error": found.bits_per_byte_error,
        "num_sequences": found.num_sequences,
        "num_available": found.num_available,
        "sequence_length": found.sequence_length,
        "model_calls": found.model_calls,
    }


def _text(options: EvaluateArguments, loaded: LoadedModel) -> Record:
    assert options.text is not None
    prompt = loaded.encode(options.prompt, "--prompt") if options.prompt else []
    ids = loaded.encode(options.text, "--text") if options.text else []
    (found,) = completion_bounds(loaded, [(prompt, ids)], draws=options.draws or DEFAULT_DRAWS)
    num_bytes = len(options.text.encode())
    return {
        "text": options.text,
        "prompt": options.prompt,
        "is_bound": loaded.process is not None,
        "nats": found.nats,
        "standard_error": found.standard_error,
        "nats_per_token": found.nats_per_token,
        "bits_per_byte": bits_per_byte_from_nats_per_token(found.nats_per_token, num_bytes / found.num_tokens),
        "num_tokens": found.num_tokens,
        "num_prompt_tokens": len(prompt),
    }


def _tasks(options: EvaluateArguments, loaded: LoadedModel) -> Record:
    from noiselaw.evaluation.harness import run_tasks  # noqa: PLC0415  (needs an extra)

    assert options.tasks is not None
    return run_tasks(
        loaded,
        [name.strip() for name in options.tasks.split(",") if name.strip()],
        include_path=options.include_path,
        limit=options.limit,
        num_fewshot=options.num_fewshot,
        use_cache=options.cache,
        draws=options.draws or DEFAULT_DRAWS,
    )


def _generate(options: EvaluateArguments, loaded: LoadedModel) -> Record:
    if options.scorer is None:
        raise ValueError("--generate: needs a judge; name a model with --scorer")
    length = loaded.sequence_length if options.length is None else options.length
    all_steps = (length,) if loaded.process is None else options.steps or DEFAULT_STEPS
    if options.num_samples < 1 or min(all_steps) < 1:
        raise ValueError("--num-samples and --steps must be at least 1")
    judge = build_judge(options.scorer)
    curve = [
        quality(loaded, judge, steps, num_texts=options.num_samples, length=length, seed=options.seed)
        for steps in all_steps
    ]
    if options.figure is not None:
        drawing = quality_curve(
            loaded.noise_name,
            [point.steps for point in curve],
            [point.perplexity for point in curve],
            [point.entropy for point in curve],
            options.scorer.name,
        )
        for path in write_prints(drawing, options.figure):
            print(path, file=sys.stderr)
    return {"scorer": str(options.scorer), "curve": [asdict(point) for point in curve]}


def _print(record: Record) -> None:
    """One line per number; a table for tasks and for steps."""
    console = Console()
    rows = record.get("results") or record.get("curve")
    if rows is None:
        for name, value in record.items():
            shown = f"{value:.5g}" if isinstance(value, float) and math.isfinite(value) else str(value)
            print(f"{name.replace('_', ' ')}: {shown}")
        return
    table = Table("", "", "value", "± standard error")
    for task, metrics in rows.items() if isinstance(rows, dict) else ((f"{row['steps']} steps", row) for row in rows):
        for name, value in metrics.items():
            if isinstance(value, int | float) and "_stderr" not in name:
                metric, _, kind = name.partition(",")
                error = metrics.get(f"{metric}_stderr,{kind}", "")
                table.add_row(task, metric, f"{value:.5g}", f"{error:.2g}" if isinstance(error, float) else "")
    console.print(table)
