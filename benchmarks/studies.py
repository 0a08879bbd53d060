"""A study of thousands of runs: how long it takes to plan, list, collect and fit it, from made-up run folders.

Five groups, a thousand sizes each; losses drawn from L = E + A P^-alpha + B D^-beta with 0.2 % of scatter between runs.
Nothing is trained. Folders hold what a run's would: a row per step, validations, speeds. Times are wall-clock, best of
some rounds, with the files in the page cache.

    python benchmarks/studies.py
    python benchmarks/studies.py --runs 5000 --steps 2000      (1.4 GB in the temporary folder)
"""

import io
import json
import math
import operator
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Claim, best_seconds, machine, parser, write_claims
from rich.console import Console

from noiselaw.cli.studytable import study_table
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import open_tokens
from noiselaw.files import write_text
from noiselaw.laws import fit_isoflop
from noiselaw.specs import NOISE_SHIFTS, parse_spec
from noiselaw.study.collect import curve_rows, loss_curves, throughput_rows, write_csv
from noiselaw.study.design import PlannedRun, Site, StudySpec, grid_runs
from noiselaw.study.ledger import RunState, Status, read_state
from noiselaw.study.run import check_recipe, planned_runs
from noiselaw.study.timing import seconds_left

VALIDATIONS = 14
BUDGETS = [1e9 / 2**power for power in range(6)]


def made_up_study(folder: Path, num_runs: int, num_steps: int) -> StudySpec:
    """A study of `num_runs` runs in `folder`, all done, each with `num_steps` rows of training."""
    texts = folder / "texts"
    texts.mkdir()
    for index in range(100):
        (texts / f"{index}.txt").write_text(f"noise {index} signal " * 300, encoding="utf-8")
    data = prepare([str(texts)], folder / "data", tokenizer="bpe:259", validation_fraction=0.5)
    groups = list(NOISE_SHIFTS)
    shapes = [
        {"num_layers": layers, "width": width, "num_heads": 2}
        for width in range(8, 4 * num_runs, 4)
        for layers in range(1, 11)
    ]
    values = {
        "name": "large",
        "data": {"source": str(texts), "tokenizer": "bpe:259", "sequence_length": 16},
        "groups": groups,
        "shapes": shapes[: num_runs // len(groups)],
        "budgets_flops": BUDGETS,
        "batch_tokens": {"coefficient": 16, "exponent": 0.0},
        "learning_rate": {"coefficient": 0.3, "exponent": 0.0},
        "confirmation": {"groups": groups[:1], "candidates": shapes[:2]},
        "run": {},
    }
    study = parse_spec(StudySpec, values, "benchmark")
    write_text(folder / "recipe.json", study.model_dump_json())
    generator = np.random.default_rng(0)
    for run in grid_runs(Site(study, folder, data)):
        make_up_run(run, num_steps, float(generator.normal(0.0, 0.002)))
    return study


def make_up_run(run: PlannedRun, num_steps: int, luck: float) -> None:
    """The folder of a run that is done."""
    last = max(BUDGETS) / run.flops_per_token
    rows = [
        {
            "kind": "train",
            "step": step,
            "tokens": last * step / num_steps,
            "flops": 1e9,
            "loss": 3.0,
            "gradient_norm": 1.0,
        }
        for step in range(1, num_steps + 1)
    ]
    for share in np.geomspace(0.05, 1.0, VALIDATIONS):
        step, tokens = int(share * num_steps), share * last
        loss = 1.0 + 20.0 * run.non_embedding_parameters**-0.35 + 30.0 * tokens**-0.3
        flops = tokens * run.flops_per_token
        rows.append(
            {"kind": "validation", "step": step, "tokens": tokens, "flops": flops, "loss": loss * math.exp(luck)}
        )
        rows[-1] |= {"standard_error": 0.01, "bits_per_byte": 1.0}
    speed = {"kind": "speed", "step": num_steps, "seconds": 60.0, "tokens_per_second": 1e5}
    speed |= {"model_flops_per_second": 1e10, "share_of_matmul_peak": 0.5}
    rows = sorted([*rows, speed], key=operator.itemgetter("step"))
    run.folder.mkdir(parents=True)
    files = {
        "spec.json": run.spec.model_dump_json(),
        "run.json": json.dumps({"machine": {}}),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "result.json": json.dumps({"fingerprint": "", "validation": rows[-2], "speed": speed}),
        "attempts.json": json.dumps([{"executor": "local", "job": "", "host": "", "started_at": "", "first_step": 0}]),
    }
    for name, text in files.items():
        (run.folder / name).write_text(text, encoding="utf-8")


def jobs(study: StudySpec, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by what people wait for."""
    states = planned_runs(study, folder)
    runs = [state.run for state in states]
    curves = loss_curves(runs)
    waiting = [*states[: len(states) // 2], *(waiting_again(state) for state in states[len(states) // 2 :])]

    def plan() -> None:
        check_recipe(study)
        grid_runs(Site(study, folder, open_tokens(folder / "data", verify=False)))

    return {
        "plan the grid": plan,
        "states of all runs": lambda: [read_state(run) for run in runs],
        "time left": lambda: seconds_left(waiting, 100),
        "draw the table": lambda: Console(file=io.StringIO(), width=80).print(study_table(states)),
        "collect (curves.csv, throughput.csv)": lambda: [
            write_csv(curve_rows(runs), folder / "curves.csv"),
            write_csv(throughput_rows(runs), folder / "throughput.csv"),
        ],
        "read curves and fit": lambda: fit_isoflop(loss_curves(runs), study.budgets_flops),
        "of that, the fit": lambda: fit_isoflop(curves, study.budgets_flops),
    }


def waiting_again(state: RunState) -> RunState:
    """The same run, not started yet."""
    return replace(state, status=Status.WAITING, step=0, speed=None)


def main() -> None:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--runs", type=int, default=5000)
    options.add_argument("--steps", type=int, default=500, help="rows of training in every run's record")
    options.add_argument("--rounds", type=int, default=2)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = made_up_study(folder, arguments.runs, arguments.steps)
        print(f"{machine()}: {arguments.runs} runs of {arguments.steps} rows")
        best = best_seconds(jobs(study, folder), arguments.rounds)
    for what, seconds in best.items():
        print(f"{what:40s}{seconds:8.2f} s")
    whole = sum(best.values()) - best["of that, the fit"]
    print(f"{'all':40s}{whole:8.2f} s")
    write_claims([Claim(f"study of {arguments.runs} runs: seconds in all", whole, 10.0)], arguments.claims)


if __name__ == "__main__":
    main()
