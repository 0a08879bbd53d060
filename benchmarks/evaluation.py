"""What a digit of the bound costs: standard error of the diffusion term per model call, by ways to draw levels.

Every way estimates the same number, on the same texts, with the same number of calls, many times over; its spread is
its standard error, from the draws alone. The cost of ±0.01 nats per token follows. One model call is one sequence
through the model. Without a run a small masked model is trained first, for half a minute.

    python benchmarks/evaluation.py RUN --data FOLDER
"""

import tempfile
from pathlib import Path

import torch
from harness import Claim, machine, parser, write_claims
from torch import Tensor

from noiselaw.data.order import step_generator
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import open_tokens
from noiselaw.evaluation.likelihood import build_evaluation_objective, forward_of
from noiselaw.hub.loading import load_model
from noiselaw.noise.levels import SPACINGS
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train.bound import Texts, batch_losses, noised
from noiselaw.train.loop import train
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


def train_small(folder: Path) -> tuple[Path, Path]:
    """A masked model of one layer trained for half a minute, and its data."""
    data, run = folder / "data", folder / "run"
    prepare(["python"], data, tokenizer="bpe:259")
    spec = {
        "data": {"path": str(data), "sequence_length": 24},
        "model": {"num_layers": 1, "width": 36, "num_heads": 3},
        "objective": {"kind": "diffusion", "noise": "masked"},
        "batch_sequences": 64,
        "optimizer": {"learning_rate": 0.3},
        "schedule": {"num_steps": 1500, "warmup_steps": 20},
    }
    train(parse_spec(RunSpec, spec, "benchmark"), run, [])
    return run, data


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("run", type=Path, nargs="?")
    options.add_argument("--data", type=Path, help="prepared tokens; needed with a run")
    options.add_argument("--texts", type=int, default=16)
    options.add_argument("--draws", type=int, default=16, help="levels per text, even")
    options.add_argument("--repeats", type=int, default=40)
    arguments = options.parse_args()
    if (arguments.run is None) != (arguments.data is None):
        options.error("give a run with its --data, or neither")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        run, data = (arguments.run, arguments.data) if arguments.run else train_small(Path(scratch))
        errors = measure(run, data, arguments.texts, arguments.draws, arguments.repeats)
    plain, ours = (errors[name] for name in ("plain, even in log-SNR", "stratified sqrt(t), antithetic tokens"))
    validation = errors["stratified, even in sqrt(t)"]
    claims = [
        Claim("validation's draws: model calls saved, x plain", (plain / validation) ** 2),
        Claim("evaluation of texts: model calls saved, x plain", (plain / ours) ** 2),
    ]
    write_claims(claims, arguments.claims)


def measure(run: Path, data: Path, num_texts: int, num_draws: int, num_repeats: int) -> dict[str, float]:
    """Standard error of one model call by each way, nats; prints the table."""
    loaded = load_model(run)
    objective = build_evaluation_objective(loaded)
    assert isinstance(objective, DiffusionObjective), "an autoregressive model needs no draws"
    length = loaded.sequence_length
    forward = forward_of(loaded, length)
    split = open_tokens(data).split("validation")
    tokens = torch.from_numpy(split.sequences(torch.arange(num_texts).numpy(), length))
    print(machine())
    print(f"{loaded.noise_name}, {num_texts} texts of {length} tokens, {num_draws} levels each, {num_repeats} repeats")
    print(f"{'':40} {'mean':>8} {'s.e. of 1 call':>15} {'calls for 0.01':>15} {'ratio':>7}")
    errors: dict[str, float] = {}
    for name, (spacing, way) in WAYS.items():
        means = []
        for repeat in range(num_repeats):
            generator = step_generator(repeat, 0, name)
            losses = []
            for text in tokens:
                places, uniform = draws(way, num_draws, length, generator)
                levels = SPACINGS[spacing](objective.process, places.clamp(min=1e-12))
                copies = Texts(text.expand(num_draws, -1))
                batch = noised(objective, copies, levels, generator, uniform)
                losses.append(batch_losses(forward, objective, batch))
            means.append(torch.cat(losses).mean() / length)
        found = torch.stack(means)
        errors[name] = error = float(found.std()) * (num_texts * num_draws) ** 0.5
        ratio = (next(iter(errors.values())) / error) ** 2
        print(f"{name:40} {float(found.mean()):8.4f} {error:15.4f} {(error / 0.01) ** 2:15,.0f} {ratio:7.2f}")
    return errors


if __name__ == "__main__":
    main()
