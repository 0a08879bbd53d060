"""Every fenced command and program of README and docs is executed, on small inputs in place of the large ones.

Page by page and block by block, in order, `noiselaw` in this process and in a folder where the names that pages use
stand for something small: the source `python` is a folder of short texts, `runs.csv` a made-up table, `studies/...`
made-up finished studies, `runs/...` runs of three steps. What is not carried out says so, with its reason, in the
block's info string (`pages.py`); its commands are still looked up, and every setting read.
"""

import functools
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch.distributed.run as torchrun_command
import tyro
import yaml
from pages import PAGES, ROOT, Block, blocks, name_of
from synthetic_study import write_study

from noiselaw.cli import dryrun as dry_run_command
from noiselaw.cli import study as study_command
from noiselaw.cli import train as train_command
from noiselaw.cli.main import VERBS, main
from noiselaw.files import write_json
from noiselaw.specs import RunSpec, parse_spec, read_mapping
from noiselaw.study.design import StudySpec, check_recipe

SHORT = ["--schedule", "{num_steps: 3}", "--validation", "{num_sequences: 2}", "--runtime.num-threads", "1"]
TRAIN_FIRST = ["train", "recipes/tiny.yaml", "--data.path", "data/python", *SHORT]
STAND_INS = {
    "first": [],
    "uniform": ["--objective.noise", "uniform"],
    "causal": ["--objective", "{kind: autoregressive}"],
}
"""Runs that pages may take as done, and what makes them."""
PAGES_WITH_BLOCKS = [page for page in PAGES if blocks(page)]


def call(words: list[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["noiselaw", *words])
    main()


@pytest.fixture(scope="module")
def pantry(tiny_data, tmp_path_factory) -> Path:
    """A folder with everything that pages name."""
    folder = tmp_path_factory.mktemp("pantry")
    for name in ("recipes", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(tiny_data, folder / "data" / "python")
    shutil.copytree(tiny_data.parent / "texts", folder / "texts")
    recipe = read_mapping(ROOT / "recipes" / "laptop.yaml")
    recipe["budgets_flops"] = [budget * 1e-4 for budget in recipe["budgets_flops"]]
    recipe["run"]["schedule"]["warmup_steps"] = 0
    study = write_study(folder / "studies" / "laptop")
    study = shutil.copytree(study, folder / "studies" / "seed1")
    write_json(study / "recipe.json", recipe)
    shutil.copytree(tiny_data, study / "data")
    rows = [
        f"{n},{d},{1.7 + 400 * n**-0.33 + 1800 * d**-0.36},{group}"
        for group in ("masked", "uniform")
        for n in (1e6, 4e6, 1.6e7, 6.4e7)
        for d in (1e8, 4e8, 1.6e9, 6.4e9)
    ]
    (folder / "runs.csv").write_text("\n".join(["n,d,l,noise", *rows]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, options in STAND_INS.items():
            call([*TRAIN_FIRST, *options, "--out", f"runs/{name}", "--quiet"], patch)
        call(["export", "runs/first", "--out", "models/first"], patch)
    return folder


@pytest.fixture
def desk(page, pantry, tmp_path, monkeypatch) -> Path:
    """A copy of the pantry to work in, without what the page makes itself."""
    folder = tmp_path / "desk"
    shutil.copytree(pantry, folder)
    for made in re.findall(r"--out ((?:runs|models|data)/\S+)", page.read_text(encoding="utf-8")):
        if (folder / made).is_dir():
            shutil.rmtree(folder / made)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


class Carrier:
    """Carries out one page."""

    def __init__(self, tiny_data: Path, monkeypatch, capsys) -> None:
        self._texts, self._patch, self._capsys = tiny_data.parent / "texts", monkeypatch, capsys
        self._started: list[tuple[StudySpec, Path]] = []
        monkeypatch.setattr(study_command, "write_report", lambda folder: folder)
        monkeypatch.setattr(study_command, "run_study", lambda study, folder, _: self._started.append((study, folder)))

    def carry_out(self, block: Block) -> None:
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "yaml":
            check_settings(yaml.safe_load(block.text), block.place)
        elif block.language == "python":
            Path("program.py").write_text(block.text, encoding="utf-8")
            runpy.run_path("program.py")
            assert self._capsys.readouterr().out.strip() or block.file, f"{block.place}: prints nothing"
        else:
            programs = CHECKED if block.reason else EXECUTED
            for line in block.commands:
                program, *words = shlex.split(line, comments=True)
                assert program in programs, f"{block.place}: nobody knows how to take {program}"
                programs[program](self, words, f"{block.place}: {line}")

    def noiselaw(self, words: list[str], line: str) -> None:
        """Executes the command on small inputs."""
        assert words[:2] != ["study", "run"], f"{line}: takes a study's time; say why it is only parsed"
        try:
            call(self._shortened(words), self._patch)
        except SystemExit as stop:
            said = self._capsys.readouterr().err
            if "--tasks" in words and find_spec("lm_eval") is None:
                assert "pip install 'noiselaw[evaluate]'" in said
                return
            pytest.fail(f"{line}\nexit {stop.code}: {said}")
        assert self._capsys.readouterr().out, f"{line}: prints nothing"

    def check_noiselaw(self, words: list[str], line: str) -> None:
        """Reads the command's options and settings, and stops where its work would start."""
        if words[:2] == ["study", "run"]:
            self.check_study(words, line)
        elif words[0] == "train" and "--dry-run" in words:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dry_run_command, "show_dry_run", stop_here)
                with pytest.raises(InterruptedError):
                    train_command.train(words[1:])
        elif words[0] == "train":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(train_command, "starting_point", lambda _: None)
                patch.setattr(train_command, "train_run", stop_here)
                with pytest.raises(InterruptedError):
                    train_command.train([*words[1:], "--quiet"])
        else:
            name = next(name for name in VERBS if tuple(words[: len(name)]) == name)
            verb = VERBS[name]
            assert not verb.takes_overrides, f"{line}: reads its own options; nobody knows how to check them"
            module, function = verb.target.split(":")
            command = getattr(import_module(module), function)
            tyro.cli(functools.wraps(command)(lambda *_, **__: None), args=words[len(name) :])

    def check_study(self, words: list[str], line: str) -> None:
        """Its recipe is read, its runs planned."""
        before = len(self._started)
        call(words, self._patch)
        assert len(self._started) == before + 1, line
        study, folder = self._started[-1]
        check_recipe(study)
        if "--out" in words:
            assert folder == Path(words[words.index("--out") + 1])

    def make(self, words: list[str], line: str) -> None:
        done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout.strip()

    def activate(self, words: list[str], line: str) -> None:
        """`. .venv/bin/activate`: what `make` leaves, and nothing more to execute."""
        assert words == [".venv/bin/activate"], line

    def python(self, words: list[str], line: str) -> None:
        """A script of the page or of the examples, for three steps on the short texts."""
        script, *rest = words
        if script.startswith("examples/"):
            rest += ["--steps", "3"] + (["--source", str(self._texts)] if "own_loop" not in script else [])
        self._patch.setattr(sys, "argv", [script, *rest])
        runpy.run_path(script, run_name="__main__")
        assert self._capsys.readouterr().out, f"{line}: prints nothing"

    def torchrun(self, words: list[str], line: str) -> None:
        """Its own options by its own parser, then those of the module it starts."""
        parsed = torchrun_command.parse_args(words)
        assert parsed.module, line
        assert parsed.training_script == "noiselaw.cli", line
        self.check_noiselaw(parsed.training_script_args, line)

    def _shortened(self, words: list[str]) -> list[str]:
        if words[:2] == ["data", "prepare"]:
            words = [str(self._texts) if word == "python" else word for word in words]
            tokenizer = words.index("--tokenizer") + 1
            words[tokenizer] = re.sub(r"^bpe:\d+$", "bpe:259", words[tokenizer])
        return words + SHORT if words[0] == "train" and "--settings" not in words else words


def stop_here(*_: object, **__: object) -> None:
    raise InterruptedError


Taker = Callable[[Carrier, list[str], str], None]
EXECUTED: dict[str, Taker] = {"noiselaw": Carrier.noiselaw, ".": Carrier.activate, "python": Carrier.python}
CHECKED: dict[str, Taker] = {
    "noiselaw": Carrier.check_noiselaw,
    "make": Carrier.make,
    "torchrun": Carrier.torchrun,
}


def check_settings(values: dict, place: str) -> None:
    """A recipe, a run's spec, or some settings of either."""
    is_run = values.keys() <= RunSpec.model_fields.keys() and "source" not in values.get("data", {})
    whole = read_mapping(ROOT / "recipes" / ("tiny.yaml" if is_run else "laptop.yaml"))
    parse_spec(RunSpec if is_run else StudySpec, whole | values, place)


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS, ids=map(name_of, PAGES_WITH_BLOCKS))
def test_page(page, desk, tiny_data, monkeypatch, capsys):
    """All blocks in one test, in their order: later ones use what earlier ones left."""
    carrier = Carrier(tiny_data, monkeypatch, capsys)
    for block in blocks(page):
        try:
            carrier.carry_out(block)
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from error


def test_nothing_is_skipped_silently():
    """Every block that a reader may copy is executed or says why it is only parsed; most are executed."""
    found = [block for page in PAGES for block in blocks(page)]
    written = sum(
        len(re.findall(r"^```(?:sh|python|yaml)\b", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES
    )
    assert len(found) == written
    parsed = [block for block in found if block.reason]
    assert len(parsed) < len(found) / 3
    lines = [line for block in found if block.language == "sh" for line in block.commands]
    by_program = Counter(shlex.split(line, comments=True)[0] for line in lines)
    assert by_program["noiselaw"] > 40
    assert set(by_program) <= EXECUTED.keys() | CHECKED.keys()


def test_commands_stand_in_fences():
    """But on docs/scale.md, whose indented commands tests/train/test_scale_page.py takes as far as the work."""
    indented = re.compile(r"^ {4}(?:noiselaw|torchrun|make|python|pip) ", re.MULTILINE)
    found = [name_of(page) for page in PAGES if indented.search(page.read_text(encoding="utf-8"))]
    assert found == ["docs/scale.md"]


def test_readme_shows_every_command():
    lines = [line for block in blocks(ROOT / "README.md") if block.language == "sh" for line in block.commands]
    shown = {tuple(shlex.split(line, comments=True)[1:3]) for line in lines}
    verbs = {words[0] for words in shown if words}
    assert {words[0] for words in VERBS} <= verbs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\nls\n```\n", "a block in bash, which nobody executes"),
        ("```\nls\n```\n", "a block in no language"),
        ("```sh parsed:\nls\n```\n", "only sh can be parsed, and for a reason"),
        ("```python parsed: needs a GPU\n1\n```\n", "only sh can be parsed"),
        ("```sh later\nls\n```\n", "'later' is neither a reason nor a file"),
    ],
)
def test_blocks_that_nobody_would_check_are_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr("pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        blocks(tmp_path / "page.md")
