"""What a digit of the bound costs: standard error of the diffusion term per model call, by ways to draw levels.

Every way estimates the same number, on the same texts, with the same number of calls, many times over; its spread is
its standard error, from the draws alone. The cost of ±0.01 nats per token follows. One model call is one sequence
through the model.

    python benchmarks/evaluation.py RUN --data FOLDER
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from noiselaw.data.order import step_generator
from noiselaw.data.shards import open_tokens
from noiselaw.evaluation.likelihood import build_evaluation_objective, forward_of
from noiselaw.hub.loading import load_model
from noiselaw.noise.levels import SPACINGS
from noiselaw.train.bound import Texts, batch_losses, noised
from noiselaw.train.objective import DiffusionObjective

WAYS = {
    "plain, even in log-SNR": ("log-snr", "plain"),
    "plain, even in t": ("time", "plain"),
    "plain, even in sqrt(t)": ("square-root", "plain"),
    "stratified, even in log-SNR": ("log-snr", "stratified"),
    "stratified, even in t": ("time", "stratified"),
    "stratified, even in sqrt(t)": ("square-root", "stratified"),
    "stratified sqrt(t), levels mirrored": ("square-root", "mirrored"),
    "stratified sqrt(t), antithetic tokens": ("square-root", "antithetic"),
}
"""Spacing, and how places are drawn."""


def draws(way: str, num: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Places [K] of the levels, and the uniforms [K, T] that decide what is noised where they are tied together."""
    places = torch.rand(num, generator=generator, dtype=torch.float64)
    if way == "plain":
        return places, None
    if way == "mirrored":
        half = (torch.arange(num // 2) + places[: num // 2]) / num
        return torch.cat([half, 1 - half]), None
    strata = (torch.arange(num) + places) / num
    if way == "stratified":
        return strata, None
    half = torch.rand(num // 2, 1, length, generator=generator, dtype=torch.float64)
    return strata, torch.cat([half, 1 - half], 1).flatten(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--draws", type=int, default=16, help="levels per text, even")
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    loaded = load_model(arguments.run)
    objective = build_evaluation_objective(loaded)
    assert isinstance(objective, DiffusionObjective), "an autoregressive model needs no draws"
    length = loaded.sequence_length
    forward = forward_of(loaded, length)
    split = open_tokens(arguments.data).split("validation")
    tokens = torch.from_numpy(split.sequences(torch.arange(arguments.texts).numpy(), length))
    print(f"{loaded.noise_name}, {arguments.texts} texts of {length} tokens, {arguments.draws} levels each, ", end="")
    print(f"{arguments.repeats} repeats, torch {torch.__version__}")
    print(f"{'':40} {'mean':>8} {'s.e. of 1 call':>15} {'calls for 0.01':>15} {'ratio':>7}")
    baseline = 0.0
    for name, (spacing, way) in WAYS.items():
        means = []
        for repeat in range(arguments.repeats):
            generator = step_generator(repeat, 0, name)
            losses = []
            for text in tokens:
                places, uniform = draws(way, arguments.draws, length, generator)
                levels = SPACINGS[spacing](objective.process, places.clamp(min=1e-12))
                copies = Texts(text.expand(arguments.draws, -1))
                batch = noised(objective, copies, levels, generator, uniform)
                losses.append(batch_losses(forward, objective, batch))
            means.append(torch.cat(losses).mean() / length)
        found = torch.stack(means)
        error = float(found.std()) * (arguments.texts * arguments.draws) ** 0.5
        baseline = baseline or error
        calls = (error / 0.01) ** 2
        print(f"{name:40} {float(found.mean()):8.4f} {error:15.4f} {calls:15,.0f} {(baseline / error) ** 2:7.2f}")


if __name__ == "__main__":
    main()
