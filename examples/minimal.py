"""Train a discrete diffusion language model and let it write, in one page of Python: python examples/minimal.py

About two minutes on two cores of a CPU. `noiselaw train` does the same with validation, checkpoints and records.

Shapes: B sequences, T tokens each.
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro

from noiselaw.data.loader import TokenLoader
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData
from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.head import TokenTargets, vocabulary_loss
from noiselaw.model import Transformer, initialise
from noiselaw.noise import HybridMixing, NoiseProcess, sample_log_snr
from noiselaw.optim import build_optimizer, learning_rate_factor, set_learning_rate
from noiselaw.sampling import Canvas, TransformerDenoiser, ancestral, cosine_grid
from noiselaw.specs import InitSpec, ModelSpec, OptimizerSpec, ScheduleSpec

MODEL = ModelSpec(num_layers=2, width=96, num_heads=3)
LENGTH = 64


def train(process: NoiseProcess, data: TokenData, *, steps: int, batch: int = 32) -> Transformer:
    """A model trained to undo the noise of `process`: corrupt, predict, weigh, step."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(MODEL, data.vocab_size)
    initialise(model, InitSpec(), generator)
    optimizer = build_optimizer(model, OptimizerSpec(learning_rate=0.4, beta2=0.95, auxiliary_factor=0.05), MODEL)
    schedule = ScheduleSpec(num_steps=steps, warmup_steps=steps // 20, cooldown_steps=steps // 5)
    loader = TokenLoader(data.split("train"), LENGTH, batch, seed=0)
    for step in range(steps):
        clean = loader.batch(step)  # [B, T]
        levels = sample_log_snr(
            batch, process.min_log_snr, process.max_log_snr, generator=generator, stratified=True
        )  # one noise level per sequence
        log_snr = levels[:, None].expand(clean.shape)
        noisy = process.corrupt(clean, log_snr, generator)
        parts = (clean.flatten(), noisy.flatten(), log_snr.flatten(), torch.ones(clean.numel()))
        targets = TokenTargets(*parts, mixing=process.mixing, mask_id=data.mask_id)
        hidden = model(noisy).flatten(0, 1)
        loss = vocabulary_loss(hidden, model.lm_head.weight, model.head_multiplier, targets, chunk_tokens=4096).loss
        (loss / clean.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rate(optimizer, learning_rate_factor(step, schedule))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step {step + 1:5d}   loss {loss.item() / clean.numel():.3f} nats per token")
    return model


def write(model: Transformer, process: NoiseProcess, prompt: np.ndarray, length: int = LENGTH) -> np.ndarray:
    """`length` tokens that begin with `prompt`, in one step per token."""
    canvas, grid = Canvas.from_prompts([prompt.tolist()], length), cosine_grid(process, length)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return ancestral(TransformerDenoiser(model), process, canvas, grid, generator=generator)[0].numpy()


def main(
    source: str = "python", data: Path = Path("data/minimal"), shift: float = -math.inf, steps: int = 1500
) -> None:
    """Train on `source` and write.

    Args:
        source: a file, a folder, or python for the standard library's texts.
        data: folder for its tokens.
        shift: -inf is masked noise, inf uniform noise, anything between a mixture.
        steps: how long to train.
    """
    tokens = prepare([source], data, tokenizer="bpe:259")  # bytes and three special tokens
    process = NoiseProcess(HybridMixing(tokens.vocab_size, tokens.mask_id, shift))
    train_and_write(process, tokens, steps)


def train_and_write(process: NoiseProcess, data: TokenData, steps: int) -> None:
    """The whole example for any noise."""
    model = train(process, data, steps=steps)
    tokenizer = load_tokenizer(data.tokenizer_path)
    print(tokenizer.decode(write(model, process, tokenizer.encode(["def "])[0])))


if __name__ == "__main__":
    tyro.cli(main)
