"""`noiselaw.noise` and `noiselaw.head` inside somebody else's training loop: python examples/own_loop.py FILE

Their model (PyTorch's own encoder), their optimiser (AdamW), their data (the bytes of a file), their loop. Two things
are ours: what the model is shown, `process.corrupt`, and what it is scored by, `vocabulary_loss`.

Shapes: B sequences, T tokens each, V vocabulary, d width.
"""

from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from noiselaw.head import TokenTargets, vocabulary_loss
from noiselaw.noise import HybridMixing, NoiseProcess, sample_log_snr

MASK, VOCABULARY = 256, 257


class TheirModel(nn.Module):
    """Ids [B, T] -> hidden [B, T, d], and a head [V, d]."""

    def __init__(self, width: int = 64, length: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.encoder(self.embedding(ids) + self.positions)


def main(
    file: tyro.conf.Positional[Path], steps: int = 500, shift: float = 0.0, batch: int = 32, length: int = 64
) -> list[float]:
    """Train on the bytes of `file` with hybrid noise of this `shift`; the losses, nats per token."""
    torch.manual_seed(0)
    text = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8).long()
    process = NoiseProcess(HybridMixing(VOCABULARY, MASK, shift))
    model, generator = TheirModel(length=length), torch.Generator().manual_seed(0)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for step in range(steps):
        starts = torch.randint(len(text) - length, (batch, 1))
        clean = text[starts + torch.arange(length)]
        levels = sample_log_snr(batch, -9.0, 9.0, generator=generator, stratified=True)
        log_snr = levels[:, None].expand(clean.shape)
        noisy = process.corrupt(clean, log_snr, generator)

        hidden = model(noisy).flatten(0, 1)
        parts = (clean.flatten(), noisy.flatten(), log_snr.flatten(), torch.ones(clean.numel()))
        targets = TokenTargets(*parts, mixing=process.mixing, mask_id=MASK)
        loss = vocabulary_loss(hidden, model.head.weight, 1.0, targets, chunk_tokens=4096).loss / clean.numel()

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step {step + 1:5d}   loss {loss.item():.3f} nats per token")
    return losses


if __name__ == "__main__":
    tyro.cli(main)
