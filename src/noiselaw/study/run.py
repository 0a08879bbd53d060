"""The order of things in a study: data, grid (with the runs that repeat their data), laws, prediction, confirmation.

Every stage reads what the one before left on disk and can be repeated: runs that are done are not run again, and a
prediction that stands is not written anew. The prediction is on disk before the run that tests it starts.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from noiselaw.accounting import DEFAULT_CONVENTION
from noiselaw.data.manifest import MANIFEST_NAME
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData, open_tokens
from noiselaw.files import read_json, remove_leftovers, write_json, write_text
from noiselaw.laws import IsoflopFit, datalaws, fit_isoflop, plan_run, read_table, to_json
from noiselaw.laws.record import law_object
from noiselaw.lease import lease
from noiselaw.metrics import read_rows
from noiselaw.specs import parse_spec
from noiselaw.study.collect import curve_rows, loss_curves, machine_facts, throughput_rows, write_csv
from noiselaw.study.design import (
    PlannedRun,
    Shape,
    Site,
    StudySpec,
    check_recipe,
    grid_runs,
    model_spec,
    planned_run,
    repeated_runs,
)
from noiselaw.study.dispatch import Stage, carry_out
from noiselaw.study.executors.protocol import open_executor
from noiselaw.study.layout import Layout, choose_layout
from noiselaw.study.ledger import RunState, Status, read_state
from noiselaw.study.timing import Stopwatch, read_elapsed, timed


class Display(Protocol):
    """Where a study's progress is shown."""

    def say(self, text: str) -> None: ...
    def update(self, title: str, states: list[RunState], num_workers: int) -> None: ...


class RunsFailedError(ValueError):
    """Runs of a study did not finish: names them, with the end of their output."""


def run_study(study: StudySpec, folder: Path, display: Display) -> list[RunState]:
    """Run or continue the study in `folder`, up to the measured error of its prediction.

    Returns the runs that it went on without, because they failed as often as the recipe allows; study.json names them.

    Raises:
        ValueError: the folder holds something else, or the recipe cannot be carried out with this data.
        FolderInUseError: another process, on this machine or another, runs a study in the folder.
        RunsFailedError: so many runs failed that no prediction can be made.
        ImportError: the package of the recipe's executor is not installed.
    """
    check_recipe(study)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lease(folder):
        remove_leftovers(folder)
        check_same_recipe(study, folder)
        write_text(folder / "recipe.json", study.model_dump_json(indent=1) + "\n")
        return _run_stages(study, folder, display)


def _run_stages(study: StudySpec, folder: Path, display: Display) -> list[RunState]:
    with timed(folder, "data"):
        data = prepare_data(study, folder, display)
    site = Site(study, folder, data)
    grid = grid_runs(site)
    runs = [*grid, *repeated_runs(site, grid)]
    with timed(folder, "grid") as watch:
        layout = choose_layout(study, folder, grid, display.say)
        missing = run_all(site, runs, layout, "grid", display=display, watch=watch)
    write_tables(folder, without(runs, missing))
    write_study_record(site, runs, missing)
    fits = fit_isoflop(loss_curves(without(grid, missing)), study.budgets_flops)
    write_json(folder / "laws.json", to_json(fits, DEFAULT_CONVENTION))
    for group, fit in fits.items():
        display.say(f"{group}: {describe_law(fit)}")
    for group, record in write_data_laws(folder, without(runs, missing)).items():
        display.say(f"{group}: {describe_repeats(record)}")
    try:
        confirmation = plan_confirmation(site, fits, [state for state in missing if state.run.role == "grid"])
    except ValueError as error:
        raise (RunsFailedError(f"{error}\n{describe_missing(missing)}") if missing else error) from error
    with timed(folder, "confirmation") as watch:
        confirming = list(confirmation.values())
        missing += run_all(site, confirming, layout, "confirmation", display=display, watch=watch)
    runs += confirming
    write_tables(folder, without(runs, missing))
    for group, result in compare(folder, confirmation).items():
        display.say(
            f"{group}: predicted {result['predicted']:.4f}, measured {result['measured_loss']:.4f} nats per token, "
            f"error {result['error_percent']:+.2f} %"
        )
    write_study_record(site, runs, missing)
    return missing


def without(runs: Sequence[PlannedRun], missing: Sequence[RunState]) -> list[PlannedRun]:
    """The runs that are not among the missing ones."""
    names = {state.run.spec.name for state in missing}
    return [run for run in runs if run.spec.name not in names]


def describe_missing(missing: Sequence[RunState]) -> str:
    """For people: which runs did not finish and why, with the end of their output."""
    reports = [f"{state.run.folder} ({state.cause}):\n{(state.failure or {}).get('log') or ''}" for state in missing]
    opening = (
        f"{len(missing)} run(s) did not finish; the rest is kept, and the same command tries again those that crashed, "
        "as long as no confirming run has started"
    )
    return "\n".join([opening, *(report.rstrip().removesuffix(":") for report in reports)])


def planned_runs(study: StudySpec, folder: Path) -> list[RunState]:
    """The state of every run: the grid and what repeats its data, and the confirming runs once they are planned.

    Raises ValueError when no study has been started in `folder`, or its data are not prepared yet.
    """
    if not (folder / "recipe.json").exists():
        raise ValueError(f"{folder}: no study has been started here; start it with `noiselaw study run`")
    if not (folder / "data" / MANIFEST_NAME).exists():
        raise ValueError(f"{folder}: its data are still being prepared; ask again in a minute")
    site = Site(study, folder, open_tokens(folder / "data", verify=False))
    grid = grid_runs(site)
    runs = [*grid, *repeated_runs(site, grid)]
    if (folder / "prediction.json").exists():
        for group, plan in read_json(folder / "prediction.json")["groups"].items():
            shape = Shape(num_layers=plan["layers"], width=plan["width"], num_heads=plan["heads"])
            runs.append(planned_run(site, "confirmation", group, shape, study.confirmation_flops))
    return [read_state(run) for run in runs]


def describe_law(fit: IsoflopFit) -> str:
    """One line: the law of the optimal loss, or why there is none, and what to doubt."""
    flags = f" ({'; '.join(fit.flags)})" if fit.flags else ""
    if "loss" not in fit.laws:
        return f"no law{flags}"
    law = fit.laws["loss"].law
    return f"L* = {law.coefficient:.4g} C^{law.exponent:.4f}{flags}"


def write_data_laws(folder: Path, runs: Sequence[PlannedRun]) -> dict[str, dict[str, Any]]:
    """Fit and write what `noiselaw laws tokens --json` prints of the study, where any of `runs` repeat their data."""
    path = folder / datalaws.FILE_NAME
    if all(run.role != "repeated" for run in runs):
        path.unlink(missing_ok=True)
        return {}
    table = read_table(folder, repeated=True)
    record = law_object(datalaws.METHOD, table, datalaws.fit_data_laws(table).groups)
    write_json(path, record)
    return record["groups"]


def describe_repeats(record: Mapping[str, Any]) -> str:
    """One line: after how many repeats data are used up, or why that is not known."""
    law = record.get("repeated", record)
    flags = f" ({'; '.join(law['flags'])})" if law["flags"] else ""
    if law is record:
        return f"no law of repeated data{flags}"
    decay = law["parameters"]["R_D"]
    return f"repeats {'keep their value' if decay is None else f'lose their value over R* = {decay:.4g} epochs'}{flags}"


def check_folder(folder: Path) -> None:
    """Raises ValueError when `folder` holds something else than a study."""
    if (folder / "recipe.json").exists() or not folder.exists():
        return
    # Hidden files may be what a kill left of the first one written.
    if not folder.is_dir() or any(not item.name.startswith(".") for item in folder.iterdir()):
        raise ValueError(f"{folder}: is not empty and holds no study; choose an empty or new folder for --out")


def check_same_recipe(study: StudySpec, folder: Path) -> None:
    """Raises ValueError when a prediction stands in `folder` that another recipe made: it would be overwritten."""
    if not (folder / "prediction.json").exists():
        return
    before = _identity(parse_spec(StudySpec, read_json(folder / "recipe.json"), str(folder / "recipe.json")))
    changed = [f"{key} was {before[key]!r}" for key, value in _identity(study).items() if value != before[key]]
    if changed:
        raise ValueError(
            f"{folder}: holds the prediction of another recipe ({'; '.join(changed)}); choose another --out, or "
            "restore these settings"
        )


HOW_RUNS_EXECUTE = {
    "name",
    "num_workers",
    "executor",
    "max_attempts",
    "gpus_per_run",
    "nodes_per_run",
    "ray",
    "slurm",
}
"""Settings of a recipe that may change while its study stands."""


def _identity(study: StudySpec) -> dict[str, Any]:
    """What a recipe says of its prediction: all but its name, how runs execute and which repeat their data."""
    values = study.model_dump(mode="json", exclude=HOW_RUNS_EXECUTE)
    del values["data"]["unique_tokens"]
    values["run"] = {key: value for key, value in values["run"].items() if key != "runtime"}
    return values


def prepare_data(study: StudySpec, folder: Path, display: Display) -> TokenData:
    """The study's tokens, prepared once."""
    display.say(f"data: {study.data.source}, tokenizer {study.data.tokenizer}")
    data = prepare([study.data.source], folder / "data", tokenizer=study.data.tokenizer)
    display.say(f"data: {data.split('train').num_tokens:,} training tokens, vocabulary {data.vocab_size}")
    return data


def run_all(
    site: Site, runs: list[PlannedRun], layout: Layout, stage: str, *, display: Display, watch: Stopwatch
) -> list[RunState]:
    """Execute the runs that are not done; the states of those that failed for good."""
    states = {run.spec.name: read_state(run) for run in runs}
    given_up = read_given_up(site.folder) | {
        name for name, state in states.items() if (state.run.folder / "failure.json").exists()
    }
    left = [run for run in runs if states[run.spec.name].status is not Status.DONE and run.spec.name not in given_up]
    if left:
        display.say(f"{stage}: {len(left)} of {len(runs)} runs to do")
        # By all runs, not by those left: one that is continued must get as many threads as before. Runs that repeat
        # their data do not count, because they may be added to a study that stands.
        num_runs = sum(run.role != "repeated" for run in runs)
        executor = open_executor(site.study, site.folder, layout, num_runs)

        def on_poll(changed: Sequence[PlannedRun]) -> None:
            states.update({run.spec.name: read_state(run) for run in changed})
            display.update(stage, list(states.values()), max(1, len(changed)))
            watch.save_now_and_then()

        threads = layout.threads(num_runs)
        carry_out(left, Stage(site.folder, executor, threads, site.study.max_attempts, display.say, on_poll))
    return [state for run in runs if (state := read_state(run)).status is not Status.DONE]


def read_given_up(folder: Path) -> set[str]:
    """Names of the runs that a standing prediction was made without: they are not tried again once it is tested."""
    path = folder / "prediction.json"
    if not path.exists():
        return set()
    prediction = read_json(path)
    started = any((folder / "runs" / plan["run"] / "run.json").exists() for plan in prediction["groups"].values())
    return set(prediction.get("missing", ())) if started else set()


def plan_confirmation(
    site: Site, fits: Mapping[str, IsoflopFit], missing: Sequence[RunState] = ()
) -> dict[str, PlannedRun]:
    """Plan the confirming runs from the laws and put the prediction on disk, before any of them starts.

    A prediction that stands is kept with its date. Raises ValueError where a group has no laws, or when the laws have
    changed since and a run has already been measured against it: a prediction is never made after the fact.
    """
    study, data = site.study, site.data
    flops, length = study.confirmation_flops, study.data.sequence_length
    shapes = {model_spec(study, shape).shape(data.vocab_size): shape for shape in study.confirmation.candidates}
    runs, predictions = {}, {}
    for group in study.confirmation.groups:
        if group not in fits:
            raise ValueError(f"group {group}: no run of it finished, so that nothing can be predicted")
        plan = plan_run(fits[group], flops, list(shapes), length)
        runs[group] = planned_run(site, "confirmation", group, shapes[plan.shape], flops)
        predictions[group] = plan.record() | {"run": runs[group].spec.name}
    _write_prediction(site.folder / "prediction.json", predictions, runs, missing)
    return runs


def _write_prediction(
    path: Path, predictions: dict[str, Any], runs: Mapping[str, PlannedRun], missing: Sequence[RunState]
) -> None:
    if path.exists() and read_json(path)["groups"] == predictions:
        return
    started = [run.spec.name for run in runs.values() if read_state(run).status is not Status.WAITING]
    if started:
        raise ValueError(
            f"{path}: the laws changed after {', '.join(started)} had started, so this would be no prediction; "
            "move that run's folder away, or run the study in a new folder"
        )
    made_without = {"missing": [state.run.spec.name for state in missing]} if missing else {}
    written_at = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {"written_at": written_at, **made_without, "groups": predictions})


def compare(folder: Path, confirmation: Mapping[str, PlannedRun]) -> dict[str, dict[str, Any]]:
    """Measured against predicted loss, per group whose run is done; written to confirmation.json."""
    prediction = read_json(folder / "prediction.json")
    results = {}
    for group, run in confirmation.items():
        if read_state(run).status is not Status.DONE:
            continue
        last = read_rows(run.folder / "metrics.jsonl", "validation")[-1]
        predicted = prediction["groups"][group]["loss"]
        results[group] = {
            "run": run.spec.name,
            "seed": run.spec.seed,
            "measured_loss": last["loss"],
            "standard_error": last["standard_error"],
            "predicted": predicted["value"],
            "interval": predicted["interval"],
            "error_percent": 100 * (predicted["value"] / last["loss"] - 1),
        }
    groups = {group: [result] for group, result in results.items()}
    write_json(folder / "confirmation.json", {"predicted_at": prediction["written_at"], "groups": groups})
    return results


def write_tables(folder: Path, runs: Sequence[PlannedRun]) -> None:
    write_csv(curve_rows(runs), folder / "curves.csv")
    write_csv(throughput_rows(runs), folder / "throughput.csv")


def write_study_record(site: Site, runs: Sequence[PlannedRun], missing: Sequence[RunState]) -> None:
    """study.json: what was studied, on what machine, how long it took, which runs are missing and why."""
    study, folder, data = site.study, site.folder, site.data
    elapsed = read_elapsed(folder)
    train = data.split("train")
    record = {
        "name": study.name,
        "seed": study.seed,
        "groups": study.groups,
        "budgets": sorted(study.budgets_flops),
        "flops_convention": DEFAULT_CONVENTION,
        "sequence_length": study.data.sequence_length,
        "machine": machine_facts(runs),
        "num_runs": len(runs),
        "executor": study.executor,
        "missing": [state.missing_record() for state in missing],
        "elapsed_seconds": elapsed | {"total": sum(elapsed.values())},
        "data": {
            "source": study.data.source,
            "vocab_size": data.vocab_size,
            "train_tokens": train.num_tokens,
            "bytes_per_token": train.bytes_per_token,
        },
    }
    write_json(folder / "study.json", record)
