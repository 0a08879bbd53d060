"""How fast the report page of a large study is made and drawn, and how large it is.

A made-up study of so many runs; the page is opened from its file in a fresh context of Chromium, and the time from
there until the first figure has been painted is what the page itself measures (`performance.mark`). Without Chromium
the page is made and weighed, and the rest is left out.

    python benchmarks/report.py --runs 1000
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from harness import Claim, parser, write_claims
from playwright.sync_api import sync_playwright

from noiselaw.files import write_json
from noiselaw.laws.curves import LossCurve
from noiselaw.laws.isoflop import fit_isoflop
from noiselaw.laws.record import to_json
from noiselaw.report.page import write_page

GROUPS = ("masked", "balanced", "uniform", "autoregressive")
VALIDATIONS = 14
BUDGETS = tuple(np.geomspace(1e17, 1e19, 5))
CHROMIUM = os.environ.get("NOISELAW_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"


def main() -> None:
    options = parser(__doc__ or "", threads=False)
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--visits", type=int, default=5)
    options.add_argument("--page", type=Path, help="keep the page here")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_study(Path(scratch), arguments.runs)
        page = arguments.page or Path(scratch) / "report.html"
        started = time.process_time()
        write_page((Path(scratch),), page)
        seconds = time.process_time() - started
        what = f"report page of {arguments.runs} runs"
        claims = [
            Claim(f"{what}: MB", page.stat().st_size / 1e6, 6.0),
            Claim(f"{what}: made in, s of CPU", seconds),
        ]
        if os.access(CHROMIUM, os.X_OK):
            first, every = visit(page, arguments.visits)
            print(f"first figure, every visit: {', '.join(f'{value:.2f}' for value in first)} s")
            claims += [
                Claim(f"{what}: first figure seen after, s (median)", float(np.median(first)), 1.0),
                Claim(f"{what}: all figures after, s (median)", float(np.median(every))),
            ]
        else:
            print(f"no browser at {CHROMIUM}: install Chromium or set NOISELAW_CHROMIUM to it, to time the figures")
    for claim in claims:
        print(f"{claim.what:58} {claim.value:8.2f}")
    write_claims(claims, arguments.claims)


def write_study(folder: Path, num_runs: int) -> None:
    """Loss curves of runs on a known surface, and the laws fitted to them."""
    random = np.random.default_rng(0)
    sizes = np.geomspace(1e6, 1e9, num_runs // len(GROUPS))
    curves, rows = [], []
    for at, group in enumerate(GROUPS):
        for index, params in enumerate(sizes):
            name = f"{group}-L{index % 20 + 4}-d{64 * (index // 10 + 4)}-{index:08x}"
            tokens = np.geomspace(BUDGETS[0] / 6 / params / 3, BUDGETS[-1] / 6 / params * 1.1, VALIDATIONS)
            loss = (1.7 + 0.02 * at + 400 * params**-0.34 + 410 * tokens**-0.28) * (1 + 0.002 * random.normal())
            curves.append(LossCurve(name, group, params, 6 * params, tokens, loss))
            rows += [
                {
                    "run": name, "group": group, "role": "grid", "layers": index % 20 + 4, "width": 64, "seed": 0,
                    "heads": 1, "params": params, "flops_per_token": 6 * params, "batch_tokens": 4096.0,
                    "learning_rate": 0.3, "step": step, "tokens": seen, "flops": 6 * params * seen, "loss": value,
                    "standard_error": 0.001, "bits_per_byte": value,
                }
                for step, (seen, value) in enumerate(zip(tokens, loss, strict=True))
            ]  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "curves.csv")
    write_json(folder / "laws.json", to_json(fit_isoflop(curves, BUDGETS, num_draws=200), "6P"))
    write_json(folder / "study.json", {"name": f"{num_runs} runs", "groups": GROUPS, "budgets": BUDGETS})


def visit(page: Path, visits: int) -> tuple[list[float], list[float]]:
    """Seconds from the start of loading to the first figure and to the last, in a fresh context each."""
    first, every = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for _ in range(visits):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            context.set_default_timeout(180_000)
            tab = context.new_page()
            tab.goto(page.as_uri())
            tab.locator("html[data-drawn]").wait_for(state="attached")
            first.append(tab.evaluate("performance.getEntriesByName('first-figure')[0].startTime") / 1000)
            every.append(tab.evaluate("performance.getEntriesByName('all-figures')[0].startTime") / 1000)
            context.close()
        browser.close()
    return first, every


if __name__ == "__main__":
    main()
