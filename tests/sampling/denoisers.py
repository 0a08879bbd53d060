"""Denoisers of the tests: exact ones, ones that say the same whatever stands there, and one that counts."""

import torch

from noiselaw.noise.oracle import Oracle
from noiselaw.noise.process import NoiseProcess


def make_oracle(process: NoiseProcess, num_positions: int, seed: int = 1) -> Oracle:
    """A joint distribution with strong dependence between positions."""
    draw = torch.Generator().manual_seed(seed)
    shape = [process.mixing.vocab_size] * num_positions
    data = torch.rand(shape, generator=draw, dtype=torch.float64) ** 4 + 0.01
    for axis in range(num_positions):
        data.select(axis, process.mixing.mask_id).zero_()
    return Oracle(process, data / data.sum())


class Says:
    """Says the same of every text's positions, whatever stands there: logits [B, T, V]."""

    sees_noise_level = False

    def __init__(self, values):
        self.values = values

    def hidden(self, _ids, _attention, _log_snr):
        return self.values

    def logits(self, hidden):
        return hidden.clone()

    def select(self, rows):
        return Says(self.values[rows])


class Counting:
    """Passes everything on to `base`, and notes the ids of each call and how many positions went through the head."""

    def __init__(self, base, calls=None):
        self.base = base
        self.sees_noise_level = base.sees_noise_level
        self.calls = [] if calls is None else calls
        self.num_head_rows = 0

    def hidden(self, ids, attention, log_snr):
        self.calls.append((ids.clone(), log_snr))
        return self.base.hidden(ids, attention, log_snr)

    def logits(self, hidden):
        self.num_head_rows += len(hidden)
        return self.base.logits(hidden)

    def after(self, prefix, lengths):
        return Counting(self.base.after(prefix, lengths), self.calls)

    def select(self, rows):
        return Counting(self.base.select(rows), self.calls)
