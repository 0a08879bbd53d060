"""The examples run, on small settings, and what they train learns."""

from pathlib import Path

import minimal
import own_loop
import own_noise
import pytest
import torch

from noiselaw.data.shards import open_tokens
from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.noise import HybridMixing, NoiseProcess

STEPS = 60
EXAMPLES = Path(own_noise.__file__).parent


def losses_in(output: str) -> list[float]:
    return [float(line.split()[3]) for line in output.splitlines() if line.startswith("step ")]


@pytest.fixture
def tokens(tiny_data):
    return open_tokens(tiny_data)


def test_minimal_trains_and_writes(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minimal, "LENGTH", 16)
    minimal.main(str(tiny_data.parent / "texts"), steps=STEPS)
    output = capsys.readouterr().out
    losses = losses_in(output)
    assert len(losses) == 10
    assert losses[-1] < 0.75 * losses[0]
    assert "def " in output.splitlines()[-1]


def test_minimal_writes_what_follows_the_prompt(tokens):
    process = NoiseProcess(HybridMixing(tokens.vocab_size, tokens.mask_id, 0.0))
    torch.manual_seed(0)
    model = minimal.train(process, tokens, steps=2, batch=2)
    prompt = load_tokenizer(tokens.tokenizer_path).encode(["alpha"])[0]
    text = minimal.write(model, process, prompt, 24)
    assert text.shape == (24,)
    assert text[: len(prompt)].tolist() == prompt.tolist()
    assert tokens.mask_id not in text


def test_a_noise_of_ones_own_trains(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(minimal, "LENGTH", 16)
    own_noise.main(str(tiny_data.parent / "texts"), tmp_path / "data", steps=STEPS)
    losses = losses_in(capsys.readouterr().out)
    assert losses[-1] < 0.75 * losses[0]


def test_a_noise_of_ones_own_takes_under_thirty_lines():
    source = (EXAMPLES / "own_noise.py").read_text("utf-8")
    start = source.index("@dataclass")
    assert len(source[start : source.index("def main")].splitlines()) < 30


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_somebody_elses_loop(tiny_data, capsys):
    text = next((tiny_data.parent / "texts").iterdir())
    losses = own_loop.main(text, steps=STEPS, batch=8, length=16)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    assert losses_in(capsys.readouterr().out)[-1] == pytest.approx(losses[-1], abs=1e-3)
