"""Fixtures every room shares."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: hypothesis fails examples of 200 ms otherwise.
settings.register_profile("noiselaw", deadline=None)
settings.load_profile("noiselaw")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of golden numbers: NOISELAW_REFERENCE, by default ../shared/reference beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "reference"
    folder = Path(os.environ.get("NOISELAW_REFERENCE", default))
    if folder.is_dir():
        return folder
    message = f"golden reference files not found at {folder}; set NOISELAW_REFERENCE to their folder"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system of its own of 1 MB, and a function that gives it another size in KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if (
        os.geteuid()
        or subprocess.run([*mount, "size=1m", "none", str(folder)], capture_output=True, check=False).returncode
    ):
        pytest.skip("mount refused: a small file system needs root (and a container that may mount)")
    yield folder, lambda size: subprocess.run([*mount, f"remount,size={size}k", "none", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of small, regular text: byte tokens, enough for a few hundred steps of a tiny model."""
    from noiselaw.data.prepare import prepare

    folder = tmp_path_factory.mktemp("tiny")
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "noise", "signal", "mask", "token"]
    texts = folder / "texts"
    texts.mkdir()
    for index in range(200):
        (texts / f"{index:03d}.txt").write_text(" ".join(draw.choices(words, k=120)), encoding="utf-8")
    prepare([str(texts)], folder / "data", tokenizer="bpe:259", validation_fraction=0.2)
    return folder / "data"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path):
    """A function: the folder of a run of a few steps with the objective of that name; each is trained once."""
    from noiselaw.specs import RunSpec, parse_spec
    from noiselaw.train.loop import train

    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run_of(name: str, data: Path = tiny_data) -> Path:
        objective = {"kind": "autoregressive"} if name == "autoregressive" else {"kind": "diffusion", "noise": name}
        if name == "unigram":
            objective["noise"] = {"shift": 2.0, "reference": "unigram"}
        key = (name, data)
        if key not in done:
            values = {
                "name": name,
                "data": {"path": data, "sequence_length": 32},
                "model": {"num_layers": 1, "width": 16, "num_heads": 2},
                "objective": objective,
                "batch_sequences": 8,
                "optimizer": {"learning_rate": 0.5},
                "schedule": {"num_steps": 60, "warmup_steps": 5},
                "validation": {"num_sequences": 8, "num_points": 2},
                "runtime": {"num_threads": 1, "device": "cpu"},
            }
            done[key] = folder / f"{name}-{len(done)}"
            train(parse_spec(RunSpec, values, "test"), done[key], [])
        return done[key]

    return run_of
