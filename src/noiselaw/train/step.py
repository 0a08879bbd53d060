"""One optimiser step: forward, loss, backward over micro-batches, clip, update. No host synchronisation inside."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noiselaw.data.loader import TokenLoader
from noiselaw.data.mixture import Data
from noiselaw.data.order import step_generator
from noiselaw.data.prefetch import Prefetch
from noiselaw.head.chunked import default_chunk_tokens, vocabulary_loss
from noiselaw.head.targets import HeadLoss, TokenTargets
from noiselaw.model.init import initialise
from noiselaw.model.transformer import Transformer
from noiselaw.optim.groups import build_optimizer, set_learning_rate
from noiselaw.optim.schedule import learning_rate_factor
from noiselaw.specs import HeadKernel, RunSpec, RuntimeSpec
from noiselaw.train.objective import NoisyBatch, Objective, build_objective, moved

GPU_PREFETCH_BATCHES = 2


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


@dataclass(frozen=True, slots=True, eq=False)
class StartingPoint:
    """A trained model that a run starts from."""

    weights: dict[str, Tensor]
    """The model's state, float32."""
    fingerprint: str
    """Of the weights' content."""


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
    device = model.lm_head.weight.device
    # Counted before the batch moves: a GPU would have to be waited for.
    live = moved(head_targets(objective, batch).live_tokens(), device)
    batch = batch.to(device)
    with precision.autocast(batch.inputs.device):
        hidden = model(batch.inputs, batch.attention())
    # The last norm runs in float32; the head's products run in the dtype of what they are given.
    hidden = hidden.flatten(0, 1).to(precision.dtype)
    targets = replace(head_targets(objective, batch), live=live)
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


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a step works on. Only the states of `model` and `optimizer` change."""

    spec: RunSpec
    device: torch.device
    precision: Precision
    model: Transformer
    optimizer: torch.optim.Optimizer
    objective: Objective
    head: HeadSettings
    loader: TokenLoader
    batches: Prefetch
    """The loader's, read ahead; to be closed when training ends."""

    @staticmethod
    def build(spec: RunSpec, data: Data, device: torch.device, start: StartingPoint | None = None) -> "Training":
        """Everything as it stands before the first step: fresh draws, or the weights of `start`."""
        precision = Precision(spec.precision)
        model = Transformer(spec.model, data.vocab_size)
        if start is None:
            initialise(model, spec.init, step_generator(spec.seed, 0, "init"))
        else:
            model.load_state_dict(start.weights)
        model.to(device)
        model.recompute_blocks = spec.runtime.recompute_blocks
        optimizer = build_optimizer(model, spec.optimizer, spec.model)
        loader = TokenLoader(
            data.split("train"), spec.data.sequence_length, spec.batch_sequences, spec.seed, spec.data.unique_tokens
        )
        ahead = spec.runtime.prefetch_batches
        if ahead is None:
            ahead = GPU_PREFETCH_BATCHES if device.type == "cuda" else 0
        if spec.runtime.compile:
            for layer in model.model.layers:
                layer.compile()
        return Training(
            spec=spec,
            device=device,
            precision=precision,
            model=model,
            optimizer=optimizer,
            objective=build_objective(spec.objective, data),
            head=HeadSettings.of(spec.runtime, data.vocab_size, precision, device),
            loader=loader,
            batches=Prefetch(loader.batch, ahead),
        )


@dataclass(frozen=True, slots=True, eq=False)
class StepRecord:
    """What one step leaves behind; the tensors are scalars on the device, not yet read."""

    step: int
    """Steps done, this one included."""
    loss: Tensor
    gradient_norm: Tensor
    """Before clipping."""
    learning_rate_factor: float
    num_live_tokens: int
    """Tokens that went through the head."""


def train_step(training: Training, step: int) -> StepRecord:
    """Do step number `step` = 0, 1, ...: a pure function of it and the states of model and optimiser."""
    spec = training.spec
    factor = learning_rate_factor(step, spec.schedule)
    set_learning_rate(training.optimizer, factor)
    batch = training.objective.training_batch(training.batches.batch(step), step_generator(spec.seed, step, "noise"))
    loss = accumulate_gradients(
        training.model,
        training.objective,
        batch,
        training.precision,
        micro_batch_sequences=spec.runtime.micro_batch_sequences or spec.batch_sequences,
        head=training.head,
    )
    limit = spec.optimizer.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(training.model.parameters(), math.inf if limit is None else limit)
    training.optimizer.step()
    training.optimizer.zero_grad()
    num_live_tokens = int(batch.weight.count_nonzero())  # a host tensor: no synchronisation
    return StepRecord(step + 1, loss, norm, factor, num_live_tokens)
