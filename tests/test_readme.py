"""Every fenced command and program of README and docs is executed, on small inputs in place of the large ones.

`noiselaw` commands run in this process, in a folder where the names that the page uses stand for something small: the
source `python` is a folder of short texts, `runs.csv` a made-up table, `studies/...` made-up finished studies. Runs are
cut to three steps. Three things are not carried out, only checked for being possible: `noiselaw study run` stops where
the study would start, with its recipe read and its runs planned, `make` is asked what it would do, and `noiselaw demo`,
which would serve until it is stopped, is asked for its help (it has tests of its own). Without lm-evaluation-harness
its tasks must name the extra.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from synthetic_study import write_study

from noiselaw.cli import study as study_command
from noiselaw.cli.main import main
from noiselaw.files import write_json
from noiselaw.specs import RunSpec, parse_spec, read_mapping
from noiselaw.study.design import check_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = ["--schedule", "{num_steps: 3}", "--validation", "{num_sequences: 2}", "--runtime.num-threads", "1"]


def blocks(*languages: str) -> list[str]:
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [match for page in PAGES for match in pattern.finditer(page.read_text(encoding="utf-8"))]
    assert {match[1] for match in found} <= {"sh", "python", "yaml", "text"}, "a block in a language nobody executes"
    return [match[2] for match in found if match[1] in languages]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip() and line[0] != "#"]


@pytest.fixture(scope="module")
def desk(tiny_data, tmp_path_factory) -> Path:
    """A folder with everything the commands name."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("recipes", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(tiny_data, folder / "data" / "python")
    recipe = read_mapping(ROOT / "recipes" / "laptop.yaml")
    recipe["budgets_flops"] = [budget * 1e-4 for budget in recipe["budgets_flops"]]
    recipe["run"]["schedule"]["warmup_steps"] = 0
    write_study(folder / "studies" / "laptop")
    study = write_study(folder / "studies" / "seed1")
    write_json(study / "recipe.json", recipe)
    shutil.copytree(tiny_data, study / "data")
    rows = [
        f"{n},{d},{1.7 + 400 * n**-0.33 + 1800 * d**-0.36},{group}"
        for group in ("masked", "uniform")
        for n in (1e6, 4e6, 1.6e7, 6.4e7)
        for d in (1e8, 4e8, 1.6e9, 6.4e9)
    ]
    (folder / "runs.csv").write_text("\n".join(["n,d,loss,noise", *rows]).replace("loss", "l"), encoding="utf-8")
    return folder


def make(words: list[str]) -> None:
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"study": "noiselaw study run recipes/laptop.yaml", "test": "-m pytest"}[words[0]] in done.stdout


def activate(words: list[str]) -> None:
    """`. .venv/bin/activate`: what `make` leaves, and nothing more to execute."""
    assert words == [".venv/bin/activate"]


PROGRAMS: dict[str, Callable[[list[str]], None]] = {"make": make, ".": activate}


def test_commands_and_programs(desk, tiny_data, monkeypatch, capsys):
    """All in one test, in their order: later ones use what earlier ones left."""
    monkeypatch.chdir(desk)
    started = []
    monkeypatch.setattr(study_command, "write_report", lambda folder: folder)
    monkeypatch.setattr(study_command, "run_study", lambda study, folder, _: started.append((study, folder)))
    for line in COMMANDS:
        program, *words = shlex.split(line, comments=True)
        if program in PROGRAMS:
            PROGRAMS[program](words)
            continue
        assert program == "noiselaw"
        monkeypatch.setattr(sys, "argv", ["noiselaw", *shortened(words, tiny_data)])
        try:
            main()
        except SystemExit as stop:
            if stop.code == 0:  # help
                continue
            if "--tasks" in words and find_spec("lm_eval") is None:
                assert "pip install 'noiselaw[evaluate]'" in capsys.readouterr().err
                continue
            pytest.fail(f"{line}\nexit {stop.code}: {capsys.readouterr().err}")
        assert capsys.readouterr().out, line
    for index, block in enumerate(blocks("python")):
        script = desk / f"program{index}.py"
        script.write_text(block, encoding="utf-8")
        runpy.run_path(str(script))
        assert capsys.readouterr().out.strip(), block
    ((study, folder),) = started
    check_recipe(study)
    assert (study.seed, folder) == (1, Path("studies/seed1"))


def shortened(words: list[str], tiny_data: Path) -> list[str]:
    """The command on small inputs."""
    if words[0] == "demo":
        return ["demo", "--help"]
    if words[:2] == ["data", "prepare"]:
        words[words.index("python")] = str(tiny_data.parent / "texts")
        words[words.index("--tokenizer") + 1] = "bpe:259"
        words[words.index("--out") + 1] += "-again"
    return words + SHORT if words[0] == "train" and "--settings" not in words else words


@pytest.mark.parametrize("block", blocks("yaml"))
def test_settings(block):
    values = read_mapping(ROOT / "recipes" / "tiny.yaml") | yaml.safe_load(block)
    assert parse_spec(RunSpec, values, "README").objective.name == "shift1.5-scale0.5-unigram"


def test_the_pages_have_commands_of_every_kind():
    """Nothing above is skipped silently because a pattern no longer matches."""
    typed = {tuple(shlex.split(line, comments=True)[:2]) for line in COMMANDS}
    assert {("make", "study"), ("noiselaw", "train"), ("noiselaw", "study"), ("noiselaw", "plan")} <= typed
    assert blocks("python")
    assert blocks("yaml")
