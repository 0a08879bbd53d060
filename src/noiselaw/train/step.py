"""One optimiser step: forward, loss, backward over micro-batches, clip, update. No host synchronisation inside."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiselaw.head.chunked import default_chunk_tokens, vocabulary_loss
from noiselaw.head.targets import HeadLoss, TokenTargets
from noiselaw.model.transformer import Transformer
from noiselaw.specs import HeadKernel, RuntimeSpec
from noiselaw.train.objective import NoisyBatch, Objective


@dataclass(frozen=True, slots=True)
class Precision:
    """Precision of matrix products; weights, statistics and optimiser state stay float32."""

    name: Literal["float32", "bfloat16"]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.name == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.name == "bfloat16" else torch.float32


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """How the vocabulary head computes; none of it changes what it computes."""

    chunk_tokens: int
    """Tokens whose logits are alive at one time."""
    kernel: HeadKernel

    @staticmethod
    def of(runtime: RuntimeSpec, vocab_size: int, precision: Precision, device: torch.device) -> "HeadSettings":
        chunk_tokens = runtime.head_chunk_tokens or default_chunk_tokens(vocab_size, precision.dtype, device)
        return HeadSettings(chunk_tokens, runtime.head_kernel)


def head_targets(objective: Objective, batch: NoisyBatch) -> TokenTargets:
    """The flattened targets of a batch for the vocabulary head."""
    return TokenTargets(
        clean=batch.clean.flatten(),
        noisy=batch.inputs.flatten(),
        log_snr=batch.log_snr.flatten(),
        weight=batch.weight.flatten(),
        mixing=objective.mixing,
        mask_id=objective.mask_id,
    )


def batch_loss(
    model: Transformer, objective: Objective, batch: NoisyBatch, precision: Precision, head: HeadSettings
) -> HeadLoss:
    """Model and head on one batch, on the model's device: the weighted loss sum and each token's terms, nats."""
    batch = batch.to(model.lm_head.weight.device)
    with precision.autocast(batch.inputs.device):
        hidden = model(batch.inputs, batch.attention())
    # The last norm runs in float32; the head's products run in the dtype of what they are given.
    hidden = hidden.flatten(0, 1).to(precision.dtype)
    targets = head_targets(objective, batch)
    weight, multiplier = model.lm_head.weight, model.head_multiplier
    return vocabulary_loss(hidden, weight, multiplier, targets, head.chunk_tokens, kernel=head.kernel)


def accumulate_gradients(
    model: Transformer,
    objective: Objective,
    batch: NoisyBatch,
    precision: Precision,
    *,
    micro_batch_sequences: int,
    head: HeadSettings,
) -> Tensor:
    """Add the gradient of the batch's loss to the model's; return the loss, a scalar on the model's device.

    The loss is the weighted sum over tokens divided by B*T, the number of tokens of the whole batch: the paper's
    "sum", in units that make the clipping norm mean the same at every batch size. Unlike a mean over the noised tokens
    it does not depend on how the batch is cut.
    """
    total = torch.zeros((), device=model.lm_head.weight.device)
    for start in range(0, len(batch.inputs), micro_batch_sequences):
        part = batch.rows(start, start + micro_batch_sequences)
        loss = batch_loss(model, objective, part, precision, head).loss / batch.inputs.numel()
        loss.backward()
        total += loss.detach()
    return total
