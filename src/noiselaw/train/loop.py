"""The spine: one run from spec to result, resumable at any moment.

A batch is a pure function of (seed, step), so a run's state is its checkpoint and nothing else. What is on disk at any
time: `spec.json` (what the run is), `run.json` (facts derived from it), `tokenizer.json` (so that the model can be used
without the data), `metrics.jsonl`, `checkpoints/`, and at the end `result.json`, or `failure.json` when the loss or a
weight stopped being a number.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from noiselaw.accounting import DEFAULT_CONVENTION, flops_per_token, head_flops_per_token, parameter_counts
from noiselaw.data.mixture import Data, open_data
from noiselaw.data.vocabulary import keep_vocabulary
from noiselaw.files import make_folder, only_writer, read_record, remove_leftovers, write_json, write_text
from noiselaw.metrics import MetricsLog, Row, read_rows
from noiselaw.model.sharded import local
from noiselaw.specs import DiffusionSpec, RunSpec
from noiselaw.train.distributed import Ranks, joined_ranks
from noiselaw.train.interrupt import Interrupted, stop_on_signal
from noiselaw.train.machine import Machine, float32_products, slow_bfloat16
from noiselaw.train.saving import Checkpoints
from noiselaw.train.step import StartingPoint, StepRecord, Training, train_step
from noiselaw.train.validation import BoundEstimate, Validator
from noiselaw.units import bits_per_byte_from_nats_per_token

FLUSH_STEPS = 10
FLUSH_SECONDS = 1.0
"""Losses are read from the device, checked and written after so many steps or so long, whichever comes first."""

STOPPING_SECONDS = 10.0
"""How long a run waits for a process that still works in its folder: one that was told to stop saves first."""

MIN_VALIDATION_TOKENS = 8192
"""Tokens per forward pass of a validation, at least: small training batches would make it many small steps."""


class RunFolderError(ValueError):
    """A run folder that cannot be used: names the folder, what is in it and the remedy."""


class NonFiniteLossError(ArithmeticError):
    """Training produced a loss or weights that are not finite numbers: names the fault, the step and the remedy."""


class Observer(Protocol):
    """Watches a run: a progress bar, TensorBoard, nothing."""

    def started(self, spec: RunSpec, facts: dict[str, Any], step: int) -> None: ...
    def rows(self, rows: list[Row]) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class Run:
    """Everything a run in progress holds."""

    spec: RunSpec
    folder: Path
    facts: dict[str, Any]
    fingerprint: str
    training: Training
    validator: Validator
    log: MetricsLog | None
    """None on every rank but the first, which alone writes."""
    checkpoints: Checkpoints
    step: int
    pending: list[StepRecord] = field(default_factory=list)
    """Steps not yet written."""
    num_live_tokens: int = 0
    """Tokens sent through the head since the process started."""


def train(spec: RunSpec, folder: Path, observers: list[Observer], start: StartingPoint | None = None) -> dict[str, Any]:
    """Train the run `spec` in `folder`, from where it stands, and return its result.

    Calling it again continues after the newest valid checkpoint; a finished run returns its result at once. `start` is
    the model that `spec.init.weights` names (`noiselaw.hub.starting_point` reads it). Where torchrun started several
    processes, all call this with the same arguments on the same folder, and share the run.

    Raises:
        RanksError: the processes that were started cannot share the run.
        RunFolderError: the folder holds something else.
        FolderInUseError: another process trains in the folder.
        CheckpointError: its checkpoints belong to another spec.
        NonFiniteLossError: the loss or a weight became NaN or infinite; the last checkpoint before it is intact.
        OSError: the disk is full; the last checkpoint is intact.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last step is on disk.
    """
    data = open_data(spec.data)
    if (start is None) != (spec.init.weights is None):
        raise ValueError(f"init.weights is {spec.init.weights}, but the model to start from was not read with it")
    fingerprint = spec.fingerprint(data.fingerprint, None if start is None else start.fingerprint)
    if spec.runtime.num_threads is not None:
        torch.set_num_threads(spec.runtime.num_threads)
    with joined_ranks(spec) as ranks, ExitStack() as held:
        result = ranks.on_first(lambda: _enter(spec, folder, fingerprint, held))
        if result is not None:
            return result
        machine = Machine.of(spec.runtime)
        observers = observers if ranks.is_first else []
        with float32_products(machine.float32_products):
            run = _prepare(
                spec,
                folder,
                data=data,
                fingerprint=fingerprint,
                machine=machine,
                start=start,
                ranks=ranks,
                observers=observers,
            )
            _train_to_the_end(run, observers)
            return ranks.on_first(lambda: _finish(run))


def _enter(spec: RunSpec, folder: Path, fingerprint: str, held: ExitStack) -> dict[str, Any] | None:
    """Lock the folder for as long as `held` lasts and make it ready, or return the result that it holds already."""
    check_folder(folder, fingerprint)
    if (folder / "result.json").exists():
        return read_record(folder / "result.json", "validation")
    make_folder(folder)
    held.enter_context(only_writer(folder, STOPPING_SECONDS))
    remove_leftovers(folder)
    write_text(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
    return None


def _train_to_the_end(run: Run, observers: list[Observer]) -> None:
    spec, validate_at = run.spec, set(validation_steps(run.spec))
    started = saved = flushed = time.monotonic()
    first_step, flush_due = run.step, False
    log = nullcontext() if run.log is None else closing(run.log)
    with stop_on_signal() as requested, log, run.checkpoints, run.training.batches:
        while run.step < spec.schedule.num_steps:
            record = train_step(run.training, run.step)
            run.step = record.step
            run.num_live_tokens += record.num_live_tokens
            run.pending.append(record)
            if flush_due or run.step % FLUSH_STEPS == 0 or run.step in validate_at:
                _flush(run, observers, _speed_row(run, first_step, started))
                flushed = time.monotonic()
            if run.step in validate_at:
                _validate(run, observers)
            # What depends on a clock or a signal is done by all ranks or by none.
            now = time.monotonic()
            stop, save_due, flush_due, save_failed = run.training.ranks.any(
                bool(requested),
                now - saved >= spec.runtime.checkpoint_every_seconds,
                now - flushed >= FLUSH_SECONDS,
                run.checkpoints.failed,
            )
            if save_failed:
                run.checkpoints.finish()
            if stop or save_due:
                _checkpoint(run, observers, wait=stop)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"{run.folder}: stopped after step {run.step}; the same command continues from there")
        _checkpoint(run, observers, wait=True)


def check_folder(folder: Path, fingerprint: str) -> None:
    """Raises RunFolderError when `folder` holds something else than this run."""
    facts_path = folder / "run.json"
    if facts_path.exists():
        found = read_record(facts_path, "fingerprint")["fingerprint"]
        if found != fingerprint:
            raise RunFolderError(
                f"{folder}: holds another run (fingerprint {found}, this spec's is {fingerprint}); "
                "choose another --out or restore the settings it was made with"
            )
        return
    if folder.exists() and any(
        not item.name.startswith(("spec.json", "log.txt", "attempts.json", ".")) for item in folder.iterdir()
    ):
        raise RunFolderError(f"{folder}: is not empty and holds no run; choose an empty or new folder for --out")


def validation_steps(spec: RunSpec) -> list[int]:
    """Steps at which the run validates: evenly spaced in log(step) over the last `decades`, the last step included."""
    last, points = spec.schedule.num_steps, spec.validation.num_points
    exponents = [-spec.validation.decades * (1 - index / max(1, points - 1)) for index in range(points)]
    return sorted({max(1, round(last * 10**exponent)) for exponent in exponents} | {last})


def run_facts(spec: RunSpec, data: Data, fingerprint: str) -> dict[str, Any]:
    """What follows from the spec and the data: sizes, FLOPs by named convention, units."""
    shape = spec.model.shape(data.vocab_size)
    counts = parameter_counts(shape)
    return {
        "fingerprint": fingerprint,
        "data_fingerprint": data.fingerprint,
        "group": spec.objective.name,
        "vocab_size": data.vocab_size,
        "non_embedding_parameters": counts.non_embedding,
        "total_parameters": counts.total,
        "flops_convention": DEFAULT_CONVENTION,
        "flops_per_token": flops_per_token(shape, spec.data.sequence_length),
        "head_flops_per_token": head_flops_per_token(shape),
        "bytes_per_token": data.split("validation").bytes_per_token,
        "tokens_per_step": spec.tokens_per_step,
    }


def _prepare(
    spec: RunSpec,
    folder: Path,
    *,
    data: Data,
    fingerprint: str,
    machine: Machine,
    start: StartingPoint | None,
    ranks: Ranks,
    observers: list[Observer],
) -> Run:
    training = Training.build(spec, data, machine.device, start, ranks)
    facts = run_facts(spec, data, fingerprint) | {"machine": machine.facts(training.precision.dtype, ranks.size)}
    # First of all: a folder with checkpoints and without facts would be taken for something else.
    ranks.on_first(lambda: _write_facts(spec, folder, data, facts))
    checkpoints = Checkpoints(folder / "checkpoints", fingerprint, keep=spec.runtime.keep_checkpoints)
    step, faults = checkpoints.restore_newest(training.model, training.optimizer)
    doubt = slow_bfloat16(machine.device) if observers and spec.precision == "bfloat16" else None
    length = spec.data.sequence_length
    run = Run(
        spec=spec,
        folder=folder,
        facts=facts,
        fingerprint=fingerprint,
        training=training,
        validator=Validator(
            training.objective, data.split("validation"), length, spec.validation, validation_rows(spec), ranks=ranks
        ),
        log=MetricsLog(folder / "metrics.jsonl", step) if ranks.is_first else None,
        checkpoints=checkpoints,
        step=step,
    )
    for observer in observers:
        observer.started(spec, facts, step)
        for message in filter(None, (*faults, doubt)):
            observer.message(message)
    return run


def _write_facts(spec: RunSpec, folder: Path, data: Data, facts: dict[str, Any]) -> None:
    write_json(folder / "run.json", facts)
    reference = spec.objective.noise.reference if isinstance(spec.objective, DiffusionSpec) else None
    keep_vocabulary(data, folder, frequencies=reference == "unigram")
    (folder / "failure.json").unlink(missing_ok=True)


def validation_rows(spec: RunSpec) -> int:
    """Sequences per forward pass of a validation."""
    enough = -(-MIN_VALIDATION_TOKENS // spec.data.sequence_length)
    return spec.runtime.micro_batch_sequences or max(spec.batch_sequences, enough)


def _flush(run: Run, observers: list[Observer], speed: Row | None = None) -> None:
    """Read the losses of the steps since the last flush, refuse any that is not finite, write the rest."""
    if not run.pending:
        return
    losses = torch.stack([record.loss for record in run.pending]).tolist()
    norms = torch.stack([record.gradient_norm for record in run.pending]).tolist()
    rows = [] if speed is None else [speed]
    for record, loss, norm in zip(run.pending, losses, norms, strict=True):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _failure(run, record.step, f"loss {loss} with gradient norm {norm}")
        rate = run.spec.optimizer.learning_rate * record.learning_rate_factor
        rows.append(_row(run, "train", record.step, loss=loss, gradient_norm=norm, learning_rate=rate))
    run.pending.clear()
    _write(run, observers, rows)


def _failure(run: Run, step: int, fault: str) -> NonFiniteLossError:
    if run.training.ranks.is_first:
        write_json(run.folder / "failure.json", {"step": step, "fault": fault})
    return NonFiniteLossError(
        f"{run.folder}: {fault} at step {step}; the checkpoints before it are intact. "
        f"Lower optimizer.learning_rate (now {run.spec.optimizer.learning_rate}) or lengthen schedule.warmup_steps "
        "and train in a new folder"
    )


def _validate(run: Run, observers: list[Observer]) -> None:
    training = run.training
    estimate: BoundEstimate = run.validator.estimate(training.model, training.precision, training.head)
    if not math.isfinite(estimate.loss):
        raise _failure(run, run.step, f"held-out loss {estimate.loss}")
    bits = bits_per_byte_from_nats_per_token(estimate.loss, run.facts["bytes_per_token"])
    _write(run, observers, [_row(run, "validation", run.step, **estimate.as_row(), bits_per_byte=bits)])


def _row(run: Run, kind: str, step: int, **values: float) -> Row:
    tokens = step * run.facts["tokens_per_step"]
    seen = asdict(run.training.loader.exposure(step))
    flops = tokens * run.facts["flops_per_token"]
    return {"kind": kind, "step": step, "tokens": tokens, "flops": flops, **values, **seen}


def _speed_row(run: Run, first_step: int, started: float) -> Row:
    """Throughput since the process started. Utilisation counts the head for the tokens that carry loss only."""
    seconds = time.monotonic() - started
    num_tokens = (run.step - first_step) * run.facts["tokens_per_step"]
    flops = num_tokens * run.facts["flops_per_token"] + run.num_live_tokens * run.facts["head_flops_per_token"]
    return {
        "kind": "speed",
        "step": run.step,
        "seconds": seconds,
        "tokens_per_second": num_tokens / seconds,
        "model_flops_per_second": flops / seconds,
        "data_wait_seconds": run.training.batches.waited_seconds,
        "share_of_matmul_peak": flops / seconds / run.facts["machine"]["matmul_flops_per_second"],
    }


def _write(run: Run, observers: list[Observer], rows: list[Row]) -> None:
    if run.log is not None:
        run.log.append(rows)
    for observer in observers:
        observer.rows(rows)


def _checkpoint(run: Run, observers: list[Observer], *, wait: bool) -> None:
    _flush(run, observers)
    # The last update may have overflowed although its loss and gradient were finite.
    is_finite = all(bool(local(parameter).isfinite().all()) for parameter in run.training.model.parameters())
    if any(run.training.ranks.any(not is_finite)):
        raise _failure(run, run.step, "weights that are not finite")
    if run.log is not None:
        run.log.sync()
    run.checkpoints.save(run.training.model, run.training.optimizer, step=run.step, wait=wait)


def _finish(run: Run) -> dict[str, Any]:
    path = run.folder / "metrics.jsonl"
    last = read_rows(path, "validation")[-1]
    speeds: Iterator[Row] = iter(reversed(read_rows(path, "speed")))
    result = {"fingerprint": run.fingerprint, "validation": last, "speed": next(speeds, None)}
    write_json(run.folder / "result.json", result)
    return result
