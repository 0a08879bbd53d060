"""Tokens without a text, for benchmarks of training steps."""

from dataclasses import dataclass

import numpy as np
import torch

from noiselaw.data.interleaving import OneSource
from noiselaw.specs import RunSpec, parse_spec
from noiselaw.train.step import Training


@dataclass(frozen=True)
class RandomData(OneSource):
    """Stands in for prepared tokens (`TokenData` and its `Split`): all tokens alike."""

    vocab_size: int
    end_of_text_id: int = 0
    mask_id: int = 1
    empty_id: int = 2

    def split(self, name: str) -> "RandomData":
        del name
        return self

    def num_sequences(self, sequence_length: int) -> int:
        del sequence_length
        return 10**9

    def sequences(self, indices: np.ndarray, sequence_length: int) -> np.ndarray:
        shape = (len(indices), sequence_length)
        return np.random.default_rng(int(indices[0])).integers(self.empty_id + 1, self.vocab_size, shape)


def make_training(
    *,
    layers: int,
    width: int,
    heads: int,
    length: int,
    batch: int,
    vocab_size: int,
    objective: str,
    precision: str,
    device: str = "cpu",
    **runtime: object,
) -> Training:
    """A training as `noiselaw train` would build it, on random tokens; `objective` is a noise or `autoregressive`."""
    is_causal = objective == "autoregressive"
    values = {
        "data": {"path": "none", "sequence_length": length},
        "model": {"num_layers": layers, "width": width, "num_heads": heads},
        "objective": {"kind": "autoregressive"} if is_causal else {"kind": "diffusion", "noise": objective},
        "batch_sequences": batch,
        "optimizer": {"kind": "adamw"},
        "schedule": {"num_steps": 10**6},
        "precision": precision,
        "runtime": {"device": device, **runtime},
    }
    spec = parse_spec(RunSpec, values, "benchmark")
    return Training.build(spec, RandomData(vocab_size), torch.device(device))
