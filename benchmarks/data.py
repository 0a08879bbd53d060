"""What data and validation cost a run, and what a sweep gains side by side.

The loader against the trainer's appetite (tokens/s of either alone), what reading ahead in a thread does to a step, and
one validation against the training between two, for the masked runs of the laptop recipe (one thread, as the study runs
them) and for `recipes/tiny.yaml`, whose validation is the default. Then one run of the recipe with all threads against
one per thread, side by side. The data are the built-in source, prepared in a temporary folder; nothing is trained to
the end.

    python benchmarks/data.py
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import Claim, best_seconds, fastest_products, machine, parser, write_claims

from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData
from noiselaw.specs import RunSpec, parse_spec, read_mapping
from noiselaw.study.design import Site, StudySpec, grid_runs
from noiselaw.study.layout import measure_layout
from noiselaw.train.loop import validation_rows, validation_steps
from noiselaw.train.step import Training, train_step
from noiselaw.train.validation import Validator

RECIPES = Path(__file__).parent.parent / "recipes"
STEPS = 20


@dataclass(frozen=True)
class Costs:
    """Seconds of a run's parts."""

    step: float
    prefetch: float
    """A step with two batches read ahead, over one without."""
    batch: float
    validation: float
    validation_share: float
    """Of the whole run's time."""


def measure(spec: RunSpec, data: TokenData, rounds: int) -> Costs:
    """Interleaved: some steps, the batches of as many steps, one validation."""
    training = Training.build(spec, data, torch.device("cpu"))
    runtime = spec.runtime.model_copy(update={"prefetch_batches": 2})
    ahead = Training.build(spec.model_copy(update={"runtime": runtime}), data, torch.device("cpu"))
    split, length = data.split("validation"), spec.data.sequence_length
    validator = Validator(training.objective, split, length, spec.validation, validation_rows(spec))
    jobs = {
        "steps": lambda: [train_step(training, step) for step in range(STEPS)],
        "steps, prefetch": lambda: [train_step(ahead, step) for step in range(STEPS)],
        "batches": lambda: [training.loader.batch(step) for step in range(100 * STEPS)],
        "validation": lambda: validator.estimate(training.model, training.precision, training.head),
    }
    with ahead.batches:
        best = best_seconds(jobs, rounds)
    step, validation = best["steps"] / STEPS, best["validation"]
    in_all = len(validation_steps(spec)) * validation
    share = in_all / (in_all + spec.schedule.num_steps * step)
    return Costs(step, best["steps, prefetch"] / best["steps"], best["batches"] / STEPS / 100, validation, share)


def main() -> None:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    claims = []
    with tempfile.TemporaryDirectory() as name, fastest_products() as library:
        folder = Path(name)
        study = parse_spec(StudySpec, read_mapping(RECIPES / "laptop.yaml"), "laptop.yaml")
        started = time.perf_counter()
        data = prepare([study.data.source], folder / "data", tokenizer=study.data.tokenizer)
        took = time.perf_counter() - started
        print(f"{machine()}, float32 products by {library}")
        print(f"prepared: {data.split('train').num_tokens:,} training tokens in {took:.1f} s")
        runs = grid_runs(Site(study, folder, data))
        specs = {f"laptop, {run.spec.name[:-9]}": run.spec for run in runs if run.group == "masked"}
        tiny = {"data": {"path": str(folder / "data"), "sequence_length": 128}}
        specs["tiny.yaml"] = parse_spec(RunSpec, read_mapping(RECIPES / "tiny.yaml") | tiny, "tiny.yaml")
        columns = ("step ms", "with prefetch", "batch ms", "loader/trainer", "validation ms", "of the run")
        print(f"{'':28s}" + "".join(f"{column:>15s}" for column in columns))
        for label, spec in specs.items():
            costs = measure(spec, data, arguments.rounds)
            appetite = costs.step / costs.batch
            print(
                f"{label:28s}{1e3 * costs.step:15.2f}{costs.prefetch:15.2f}{1e3 * costs.batch:15.3f}{appetite:15.0f}"
                f"{1e3 * costs.validation:15.1f}{costs.validation_share:15.1%}"
            )
            claims.append(Claim(f"prefetch, {label}: x a step without", costs.prefetch))
            claims.append(Claim(f"loader, {label}: x the trainer's appetite", appetite, 20, at_most=False))
            # The recipe buys a standard error of 0.03 nats with more than the default.
            target = 0.05 if label == "tiny.yaml" else None
            claims.append(Claim(f"validation, {label}: share of a run", costs.validation_share, target))
        middle = sorted(runs, key=lambda run: run.flops_per_token)[len(runs) // 2]
        layout = measure_layout(middle, folder / "measure.json")
        print(f"sweep at {middle.spec.name[:-9]}: {layout.describe()}")
        rates = layout.tokens_per_second
        claims.append(Claim("sweep: a run per core / one run with all cores", max(rates.values()) / rates[1]))
    write_claims(claims, arguments.claims)


if __name__ == "__main__":
    main()
