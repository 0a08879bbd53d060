"""Coverage of every interval of `noiselaw laws`: how often 95 % intervals hold the truth of made-up tables.

Tables, luck and laws are those of lawtrials.py. The error beside a coverage is its binomial standard error; intervals
that are meant to hold the truth more often than they say are marked "at least". Runs on one core.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py
"""

import argparse
import time

from lawtrials import TRIALS, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", help="beginnings of their names, such as surface; by default all")
    parser.add_argument("--tables", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chosen = {name: trial for name, trial in TRIALS.items() if name.startswith(tuple(arguments.trials or [""]))}
    if not chosen:
        parser.error(f"no such trial; there are: {', '.join(TRIALS)}")
    print(f"{'table':36} {'quantity':24} {'coverage, %':>14} {'intervals':>10} {'median width':>13} {'s':>6}")
    for name, trial in chosen.items():
        started = time.process_time()
        found = measure(trial, arguments.tables, arguments.seed)
        seconds = time.process_time() - started
        for quantity, each in found.items():
            share = f"{100 * each.share:.1f} ± {100 * each.error:.1f}"
            meant = " at least" if quantity in trial.at_least else ""
            told = f"{each.num_intervals}/{each.num_tables}"
            print(
                f"{name:36} {quantity:24} {share:>14} {told:>10} {each.median_width:13.4g} {seconds:6.1f}{meant}",
                flush=True,
            )
            name, seconds = "", 0.0  # noqa: PLW2901  said once


if __name__ == "__main__":
    main()
