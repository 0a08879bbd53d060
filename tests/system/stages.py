"""The stages of the work that are killed: the command of each, what it needs, and what must come out bit by bit."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from noiselaw.files import read_json
from noiselaw.hub.loading import load_model
from noiselaw.metrics import read_rows

WORDS = ("alpha", "beta", "gamma", "delta", "noise", "signal", "mask", "token")
CLOCKED = ("speed",)
"""Kinds of rows that carry what depends on the clock."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the stages start from, made once."""

    folder: Path

    @property
    def texts(self) -> Path:
        return self.folder / "texts"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        """A finished run."""
        return self.folder / "run"

    @property
    def study(self) -> Path:
        """A finished study."""
        return self.folder / "study"

    def write_texts(self) -> None:
        """Short, regular texts."""
        draw = random.Random(0)  # the same every time
        self.texts.mkdir()
        for index in range(200):
            (self.texts / f"{index:03d}.txt").write_text(" ".join(draw.choices(WORDS, k=120)), encoding="utf-8")

    def first_words(self) -> tuple[Sequence[object], ...]:
        """The commands that prepare the data and train the run."""
        return (
            ["data", "prepare", self.texts, "--tokenizer", "bpe:259", "--out", self.data, "--quiet"],
            ["train", self.write_spec("finished"), "--out", self.run, "--quiet"],
        )

    def write_spec(self, name: str, **runtime: object) -> Path:
        """The settings of a run of two seconds."""
        values = {
            "name": name,
            "data": {"path": str(self.data), "sequence_length": 16},
            "model": {"num_layers": 1, "width": 16, "num_heads": 2},
            "objective": {"kind": "diffusion", "noise": "balanced"},
            "batch_sequences": 4,
            "schedule": {"num_steps": 120, "warmup_steps": 5},
            "validation": {"num_sequences": 8, "num_points": 6},
            "runtime": {"num_threads": 1, "device": "cpu", **runtime},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def write_recipe(self) -> Path:
        """A study of four tiny models and one that confirms."""
        shapes = [{"num_layers": 1, "width": width, "num_heads": 2} for width in (8, 12, 16, 24, 32)]
        values = {
            "name": "mini",
            "data": {"source": str(self.texts), "tokenizer": "bpe:259", "sequence_length": 16},
            "groups": ["autoregressive"],
            "shapes": shapes[:4],
            "budgets_flops": [2e7, 4e7, 8e7, 1.6e8],
            "batch_tokens": {"coefficient": 64, "exponent": 0.0},
            "learning_rate": {"coefficient": 0.3, "exponent": 0.0},
            "confirmation": {"groups": ["autoregressive"], "budget_factor": 2, "candidates": shapes[2:]},
            "num_workers": 2,
            "run": {
                "validation": {"num_sequences": 32, "num_points": 12, "decades": 1.2},
                "runtime": {"checkpoint_every_seconds": 0.2},
            },
        }
        path = self.folder / "mini.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path


Outcome = dict[str, Any]
"""What must not depend on kills: by name."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A command to kill."""

    name: str
    begin: Callable[[Desk, Path], Sequence[object]]
    """Makes what the command needs in a new folder, and gives its words."""
    outcome: Callable[[Path], Outcome]
    """What came out, from that folder."""
    under: str = ""
    """Where in the folder the calls are counted at which it is killed."""


def _prepare(desk: Desk, folder: Path) -> Sequence[object]:
    return ["data", "prepare", desk.texts, "--tokenizer", "bpe:280", "--out", folder / "data", "--quiet"]


def _train(desk: Desk, folder: Path) -> Sequence[object]:
    spec = desk.write_spec("train", checkpoint_every_seconds=0.1)
    return ["train", spec, "--out", folder / "run", "--quiet"]


def _checkpoint(desk: Desk, folder: Path) -> Sequence[object]:
    spec = desk.write_spec("checkpoint", checkpoint_every_seconds=0)
    return ["train", spec, "--out", folder / "run", "--quiet"]


def _study(desk: Desk, folder: Path) -> Sequence[object]:
    return ["study", "run", desk.write_recipe(), "--out", folder / "study"]


def _collect(desk: Desk, folder: Path) -> Sequence[object]:
    """A study whose runs are done and whose tables, laws and page are still to be made."""
    shutil.copytree(desk.study, folder / "study", dirs_exist_ok=True)
    for name in ("curves.csv", "throughput.csv", "laws.json", "confirmation.json", "study.json", "report.html"):
        (folder / "study" / name).unlink(missing_ok=True)
    return ["study", "run", desk.write_recipe(), "--out", folder / "study"]


def _export(desk: Desk, folder: Path) -> Sequence[object]:
    return ["export", desk.run, "--out", folder / "export"]


def files_of(folder: Path) -> Outcome:
    """Digests of all files."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _run_outcome(folder: Path) -> Outcome:
    """Every row but those of the clock, the result, the weights."""
    return _outcome_of_run(folder / "run")


def _outcome_of_run(run: Path) -> Outcome:
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] not in CLOCKED]
    weights = load_model(run).model.state_dict()
    digests = {name: hashlib.sha256(weights[name].numpy().tobytes()).hexdigest() for name in weights}
    return {"rows": rows, "result": read_json(run / "result.json")["validation"], **digests}


def _study_outcome(folder: Path) -> Outcome:
    """Laws, curves, what was predicted and measured, and every run; dates and speeds are the clock's."""
    study = folder / "study"
    groups = {name: read_json(study / name)["groups"] for name in ("prediction.json", "confirmation.json")}
    runs = {run.name: _outcome_of_run(run) for run in sorted((study / "runs").iterdir())}
    names = ("laws.json", "curves.csv")
    return groups | runs | {name: (study / name).read_text(encoding="utf-8") for name in names}


def _collect_outcome(folder: Path) -> Outcome:
    """No run is trained again, so every byte of the tables stands fast, the date of the prediction included."""
    names = ("curves.csv", "throughput.csv", "laws.json", "prediction.json", "confirmation.json", "recipe.json")
    return {name: (folder / "study" / name).read_text(encoding="utf-8") for name in names}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("prepare", _prepare, lambda folder: files_of(folder / "data")),
        Stage("train", _train, _run_outcome),
        Stage("checkpoint", _checkpoint, _run_outcome, under="run/checkpoints"),
        Stage("study", _study, _study_outcome),
        Stage("collect", _collect, _collect_outcome),
        Stage("export", _export, lambda folder: files_of(folder / "export")),
    )
}


SECRETS = {
    name: f"never-to-be-written-{name}"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
                 "GITHUB_TOKEN", "OPENAI_API_KEY", "SLURM_JWT", "RAY_AUTH_TOKEN")
}  # fmt: skip
"""Environment variables that every command of the suites gets; what stands in them must not reach any file."""


def holding_secrets(folder: Path) -> list[Path]:
    """Files, hidden ones too, in which one of SECRETS stands, as a name or as a value."""
    marks = [text.encode() for pair in SECRETS.items() for text in pair]
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(mark in path.read_bytes() for mark in marks)]


def half_written(folder: Path) -> list[str]:
    """Files that a reader would take for finished although they are not; hidden ones are still being written."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not _is_whole(path)
    ]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":  # appended to: its last line may be cut short
            read_rows(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as stream:
                list(stream.keys())
        elif path.suffix in (".csv", ".html"):
            return path.read_bytes().endswith(b"\n")
    except (ValueError, SafetensorError):
        return False
    return True
