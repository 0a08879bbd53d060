"""The model behind lm-evaluation-harness: real tasks over local files, solved for the right reason."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="needs the extra evaluate (46 packages, 300 MB): make test-extras")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness and its packages warn of themselves

ANIMALS = {"dog": "woof", "cat": "meow", "cow": "mooo", "pig": "oink"}
CHOICE = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {file}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{animal}}}}="
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
"""
GENERATION = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {file}}}
validation_split: validation
output_type: generate_until
doc_to_text: "{{{{animal}}}}="
doc_to_target: "{{{{choices[gold]}}}}"
target_delimiter: ""
generation_kwargs:
  until: [" "]
  max_gen_toks: 5
  do_sample: false
metric_list:
  - metric: exact_match
"""
ROLLING = """\
task: animals_rolling
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {file}}}
validation_split: validation
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{animal}}}}={{{{choices[gold]}}}} {{{{animal}}}}={{{{choices[gold]}}}} {{{{animal}}}}="
metric_list:
  - metric: bits_per_byte
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """A folder of tasks: choosing what an animal says, and writing it, with right and wrong answers; the whole text."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, turn in (("right", 0), ("wrong", 1)):
        rows = [
            {"animal": animal, "choices": list(ANIMALS.values()), "gold": (index + turn) % len(ANIMALS)}
            for index, animal in enumerate(ANIMALS)
        ]
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / f"animals_{name}.yaml").write_text(CHOICE.format(name=f"animals_{name}", file=file))
        (folder / f"animals_write_{name}.yaml").write_text(GENERATION.format(name=f"animals_write_{name}", file=file))
    (folder / "animals_rolling.yaml").write_text(ROLLING.format(file=folder / "right.jsonl"))
    return folder


@pytest.fixture(scope="module")
def animal_runs(tmp_path_factory) -> dict[str, Path]:
    """Models that have read what animals say, by noise."""
    import random

    from noiselaw.data.prepare import prepare
    from noiselaw.specs import RunSpec, parse_spec
    from noiselaw.train.loop import train

    folder, draw = tmp_path_factory.mktemp("animals"), random.Random(0)
    (folder / "texts").mkdir()
    for index in range(100):
        words = (f"{animal}={ANIMALS[animal]} " for animal in draw.choices(list(ANIMALS), k=40))
        (folder / "texts" / f"{index}.txt").write_text("".join(words), encoding="utf-8")
    prepare([str(folder / "texts")], folder / "data", tokenizer="bpe:259", validation_fraction=0.2)
    runs = {}
    for name in ("masked", "balanced", "autoregressive"):
        is_diffusion = name != "autoregressive"
        objective = {"kind": "diffusion", "noise": name, "prompt_probability": 0.5} if is_diffusion else {"kind": name}
        values = {
            "name": name,
            "data": {"path": folder / "data", "sequence_length": 18},
            "model": {"num_layers": 2, "width": 32, "num_heads": 2},
            "objective": objective,
            "batch_sequences": 32,
            "schedule": {"num_steps": 1500 if is_diffusion else 400, "warmup_steps": 20},
            "optimizer": {"beta2": 0.95, "auxiliary_factor": 0.05},
            "validation": {"num_sequences": 16, "num_points": 1},
            "runtime": {"num_threads": 1, "device": "cpu"},
        }
        runs[name] = folder / name
        train(parse_spec(RunSpec, values, "test"), runs[name], [])
    return runs


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "hf"))


def results(run, tasks, names, **options):
    from noiselaw.evaluation.harness import run_tasks
    from noiselaw.hub.loading import load_model

    return run_tasks(load_model(run), names, include_path=tasks, **options)["results"]


@pytest.mark.parametrize("noise", ["masked", "balanced", "autoregressive"])
def test_a_trained_model_solves_the_tasks_and_not_their_opposites(animal_runs, tasks, noise):
    names = ["animals_right", "animals_wrong", "animals_write_right", "animals_write_wrong", "animals_rolling"]
    found = results(animal_runs[noise], tasks, names, draws=64)
    for answers, value in (("right", 1.0), ("wrong", 0.0)):
        assert found[f"animals_{answers}"]["acc,none"] == value
        assert found[f"animals_write_{answers}"]["exact_match,none"] == value
    # Two bits name the animal; 8 bits a byte would be a model that knows nothing.
    assert 0.1 < found["animals_rolling"]["bits_per_byte,none"] < 1.5


def test_answers_are_cached(animal_runs, tasks, tmp_path, monkeypatch):
    from noiselaw.evaluation import harness

    first = results(animal_runs["masked"], tasks, ["animals_right"], use_cache=tmp_path / "cache", draws=16)
    monkeypatch.setattr(harness, "completion_bounds", None)  # would be called
    again = results(animal_runs["masked"], tasks, ["animals_right"], use_cache=tmp_path / "cache", draws=16)
    assert again["animals_right"]["acc,none"] == first["animals_right"]["acc,none"]


@pytest.mark.parametrize(
    ("noise", "sampler", "behind"),
    [
        ("masked", None, "masks"),
        ("balanced", None, "blanks"),
        ("masked", "blockwise", ""),
        ("autoregressive", None, ""),
    ],
)
def test_what_is_written_stands_in_a_text_of_the_trained_length(animal_runs, monkeypatch, noise, sampler, behind):
    """A text that ends early is none the model knows. Masks stand for what follows; other noise must be written."""
    from noiselaw.evaluation import harness

    seen, write = [], harness.write
    monkeypatch.setattr(
        harness,
        "write",
        lambda loaded, canvas, *rest, **options: seen.append(canvas) or write(loaded, canvas, *rest, **options),
    )
    model = harness.HarnessModel(animal_runs[noise], sampler=sampler)
    (ids,) = model._written([model.tok_encode("dog=")], [5], harness.GREEDY)
    assert len(ids) == 5
    (canvas,) = seen
    assert canvas.num_positions == (18 if behind else 9)
    assert bool(canvas.given[0, 9:].any()) == (behind == "masks")
    if behind == "masks":
        assert canvas.tokens[0, 9:].tolist() == [model._loaded.mask_id] * 9


@pytest.mark.parametrize("noise", ["masked", "autoregressive"])
def test_greedy_matches_what_is_written(animal_runs, noise):
    from noiselaw.evaluation.harness import HarnessModel

    model = HarnessModel(animal_runs[noise], draws=8)
    encode = model.tok_encode
    requests = [(("dog=", word), encode("dog="), encode(word)) for word in ("woof", "meow")]
    assert [match for _, match in model._loglikelihood_tokens(requests)] == [True, False]


def test_long_contexts_lose_their_beginning(animal_runs):
    from noiselaw.evaluation.harness import HarnessModel

    model = HarnessModel(animal_runs["autoregressive"])
    long = "cow=mooo " * 9 + "dog="
    (answer,) = model._loglikelihood_tokens([((long, "woof"), model.tok_encode(long), model.tok_encode("woof"))])
    kept = long[-14:]
    (same,) = model._loglikelihood_tokens([((kept, "woof"), model.tok_encode(kept), model.tok_encode("woof"))])
    assert answer == same


@pytest.mark.parametrize("num", [0, 1, 8, 9, 12, 13, 30])
def test_rolling_windows_score_every_token_once(num):
    from noiselaw.evaluation.harness import rolling_windows

    pairs = rolling_windows(list(range(num)), 8)
    assert [token for _, scored in pairs for token in scored] == list(range(num))
    for context, scored in pairs:
        assert len(context) + len(scored) <= 8
        assert list(context) == list(range(scored[0] - len(context), scored[0]))
    assert all(len(context) >= 4 for context, _ in pairs[1:])


def test_unknown_tasks_are_named(animal_runs, tasks):
    with pytest.raises(ValueError, match="animals_never: no task of the harness or"):
        results(animal_runs["masked"], tasks, ["animals_never"])


def test_the_entry_point_is_what_the_harness_registers():
    """Releases after 0.4.13 put entry points of this group into their registry; 0.4.13 accepts one by hand."""
    from lm_eval.api.registry import Registry

    from noiselaw.evaluation.harness import HarnessModel

    (entry,) = entry_points(group="lm_eval.models", name="noiselaw")
    registry = Registry("model")
    registry.register("noiselaw", target=entry)
    assert registry.get("noiselaw") is HarnessModel


def test_the_harness_command_line(animal_runs, tasks, tmp_path):
    command = [
        sys.executable, "-m", "noiselaw.evaluation.harness", "--model", "noiselaw",
        "--model_args", f"path={animal_runs['masked']},draws=32,check_greedy=False", "--tasks", "animals_right",
        "--include_path", str(tasks), "--output_path", str(tmp_path), "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("results_*.json")
    assert json.loads(file.read_text())["results"]["animals_right"]["acc,none"] == 1.0
