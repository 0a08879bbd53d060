"""Every CPU benchmark in turn, then one table: what was measured, what was asked, met or not.

Each is a process of its own with its own table, printed as it comes. Ratios come from interleaved runs; on a busy
machine they still move, so a number near its target says little. Ends with an error only where a benchmark fails.

    python benchmarks/run_all.py --markdown table.md      (make bench)
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Claim

HERE = Path(__file__).parent
COMMANDS = (
    ("head.py", "--full", "balanced", "--rounds", "2"),
    ("head.py", "--dtype", "bfloat16"),
    ("step.py", "--rounds", "3"),
    ("data.py",),
    ("preparation.py",),
    ("evaluation.py", "--repeats", "20"),
    ("sampling.py", "--rounds", "1", "--steps", "64"),
    ("bootstrap.py",),
    ("report.py",),
    ("studies.py",),
)


def run(command: Sequence[str], claims: Path) -> list[Claim]:
    """The numbers of one benchmark; its own table goes to the terminal. Raises CalledProcessError."""
    words = [sys.executable, str(HERE / command[0]), *command[1:], "--claims", str(claims)]
    subprocess.run(words, check=True)  # noqa: S603  the commands above
    return [Claim(**claim) for claim in json.loads(claims.read_text(encoding="utf-8"))]


def table(claims: Sequence[Claim]) -> str:
    """Markdown."""
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    for claim in claims:
        sign = "≤" if claim.at_most else "≥"
        target = "" if claim.target is None else f"{sign} {claim.target:g}"
        met = {None: "", True: "yes", False: "no"}[claim.is_met]
        lines.append(f"| {claim.what} | {claim.value:.3g} | {target} | {met} |")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--markdown", type=Path, help="also write the table to this file")
    arguments = options.parse_args()
    started, claims, failed = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as scratch:
        for command in COMMANDS:
            print(f"\n== benchmarks/{' '.join(command)}", flush=True)
            try:
                claims += run(command, Path(scratch) / "claims.json")
            except subprocess.CalledProcessError as error:
                failed.append(f"{command[0]} (exit code {error.returncode})")
    text = table(claims)
    print(f"\n{text}\n\n{time.monotonic() - started:.0f} s in all")
    if arguments.markdown is not None:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
