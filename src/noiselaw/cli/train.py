"""`noiselaw train SPEC.yaml [--out DIR] [--key value ...]`: train one model, or continue where it stopped."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from noiselaw.cli.overrides import read_with_overrides
from noiselaw.cli.progress import ProgressBar
from noiselaw.cli.settings import describe_settings
from noiselaw.hub.start import starting_point
from noiselaw.specs import RunSpec
from noiselaw.train.loop import Observer
from noiselaw.train.loop import train as train_run
from noiselaw.train.throughput import measure_throughput

DRY_RUN = "--dry-run"


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """Train one model from a spec, or continue where it stopped.

    Any setting of the spec can be given as --key value, for example
    --optimizer.learning-rate 0.3 --objective.noise uniform --schedule.num-steps 2000.
    `noiselaw train --settings` lists them all.
    --init DIR starts from the model in DIR: a run folder, an export or a GIDD checkpoint.
    Many processes share one run under torchrun (--runtime.parallel.* says how):
    torchrun --nproc-per-node 8 -m noiselaw.cli train SPEC
    --dry-run trains nothing: it says what the run takes on devices that need not be there
    (`noiselaw train --dry-run --help`).
    """

    spec: Annotated[Path, tyro.conf.Positional]
    """YAML or JSON file with the settings of the run, or the folder of a run to continue."""
    out: Path | None = None
    """Run folder; by default runs/NAME, or where SPEC is that of a run, its folder."""
    quiet: bool = False
    """No progress bar."""
    measure: float | None = None
    """Only measure: train for so many seconds, write nothing, print the throughput as JSON."""


def train(arguments: list[str]) -> None:
    """Read the command line, train, print the result."""
    if arguments == ["--settings"]:
        print(describe_settings(RunSpec))
        return
    if DRY_RUN in arguments:
        from noiselaw.cli.dryrun import dry_run_spec  # noqa: PLC0415 (loads torch's distributed tensors: seconds)

        dry_run_spec([word for word in arguments if word != DRY_RUN])
        return
    parsed, overrides = tyro.cli(TrainArguments, prog="noiselaw train", args=arguments, return_unknown_args=True)
    path = parsed.spec / "spec.json" if parsed.spec.is_dir() else parsed.spec
    options = tuple(field.name for field in fields(TrainArguments))
    spec = read_with_overrides(RunSpec, path, overrides, options)
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, if it did
    if parsed.measure is not None:
        throughput = measure_throughput(spec, parsed.measure)
        if is_first:
            print(json.dumps(throughput.record()))
        return
    folder = parsed.out or (path.parent if path.name == "spec.json" else Path("runs") / spec.name)
    observers: list[Observer] = [] if parsed.quiet or not is_first else [ProgressBar()]
    if spec.runtime.tensorboard and is_first:
        from noiselaw.cli.tensorboard import TensorBoardObserver  # noqa: PLC0415 (an optional package)

        observers.append(TensorBoardObserver(folder))
    try:
        result = train_run(spec, folder, observers, starting_point(spec))
    finally:
        for observer in observers:
            observer.close()
    last = result["validation"]
    if not is_first:
        return
    print(
        f"{folder}: step {last['step']}, {last['tokens']:,} tokens, held-out loss {last['loss']:.4f} "
        f"± {last['standard_error']:.4f} nats per token, {last['bits_per_byte']:.4f} bits per byte"
    )
