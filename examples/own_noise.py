"""A noise of your own: python examples/own_noise.py

The paper's balanced noise is all masks at the noisiest level and all swaps at the cleanest. This one keeps some of both
at every level: the logit of the share of swaps, ℓ(λ), never leaves (-limit, limit). ℓ and its slope are all there is to
write; the bound, corruption, posteriors, the fused loss and every sampler follow from them (docs/theory.md eq. 2 to 7).
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from minimal import train_and_write
from torch import Tensor

from noiselaw.data.prepare import prepare
from noiselaw.noise import Mixing, NoiseProcess


@dataclass(frozen=True, slots=True, eq=False)
class BoundedMixing(Mixing):
    """Swaps and masks at every noise level: u(λ) = sigmoid(c tanh(λ / c))."""

    vocab_size: int
    mask_id: int
    limit: float = 2.0
    """c: the share of swaps stays between sigmoid(-c) and sigmoid(c), 12 and 88 % for 2."""
    reference: Tensor | None = None

    def share_logit(self, log_snr: Tensor) -> Tensor:
        return self.limit * (log_snr / self.limit).tanh()

    def share_logit_slope(self, log_snr: Tensor) -> Tensor:
        return 1.0 / (log_snr / self.limit).cosh().square()


def main(source: str = "python", data: Path = Path("data/minimal"), limit: float = 2.0, steps: int = 1500) -> None:
    """Train with the bounded noise on `source` (a file, a folder, or python) and write."""
    tokens = prepare([source], data, tokenizer="bpe:259")
    process = NoiseProcess(BoundedMixing(tokens.vocab_size, tokens.mask_id, limit))
    train_and_write(process, tokens, steps)


if __name__ == "__main__":
    tyro.cli(main)
