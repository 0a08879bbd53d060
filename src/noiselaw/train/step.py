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
from noiselaw.model.sharded import fill
from noiselaw.model.transformer import Transformer
from noiselaw.optim.groups import build_optimizer, set_learning_rate
from noiselaw.optim.schedule import learning_rate_factor
from noiselaw.specs import HeadKernel, RunSpec, RuntimeSpec
from noiselaw.train.distributed import ALONE, Ranks
from noiselaw.train.objective import NoisyBatch, Objective, build_objective, moved
from noiselaw.train.parallel import parallelise, sum_over_replicas

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
    model: Transformer,
    objective: Objective,
    batch: NoisyBatch,
    precision: Precision,
    head: HeadSettings,
    *,
    ranks: Ranks = ALONE,
) -> HeadLoss:
    """Model and head on one batch, on the model's device: the weighted loss sum and each token's terms, nats.

    Ranks with the same batch each take some of its tokens through the head; what they return adds up.
    """
    device = model.lm_head.weight.device
    # Counted before the batch moves: a GPU would have to be waited for.
    live = head_targets(objective, batch).live_tokens()
    live = moved(live[ranks.tensor_rank :: ranks.tensor_size], device)
    batch = batch.to(device)
    with precision.autocast(batch.inputs.device):
        hidden = model(batch.inputs, batch.attention())
    # The last norm runs in float32; the head's products run in the dtype of what they are given.
    hidden = hidden.flatten(0, 1).to(precision.dtype)
    targets = replace(head_targets(objective, batch), live=live)

    def loss(hidden: Tensor, weight: Tensor) -> HeadLoss:
        multiplier = model.head_multiplier
        return vocabulary_loss(hidden, weight, multiplier, targets, head.chunk_tokens, kernel=head.kernel)

    return model.lm_head(hidden, loss)


def accumulate_gradients(
    model: Transformer,
    objective: Objective,
    batch: NoisyBatch,
    precision: Precision,
    *,
    micro_batch_sequences: int,
    head: HeadSettings,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Add the gradient of the batch's loss to the model's; return the loss, a scalar on the model's device.

    The batch is that of all ranks: each computes its share, and the gradient and the loss are sums over all of them.
    The loss is the weighted sum over tokens divided by B*T, the number of tokens of the whole batch: the paper's
    "sum", in units that make the clipping norm mean the same at every batch size. Unlike a mean over the noised tokens
    it does not depend on how the batch is cut.
    """
    total = torch.zeros((), device=model.lm_head.weight.device)
    share = batch.rows(ranks.share(len(batch.inputs)))
    for start in range(0, len(share.inputs), micro_batch_sequences):
        stop = start + micro_batch_sequences
        sum_over_replicas(model, now=stop >= len(share.inputs))
        part = share.rows(slice(start, stop))
        loss = batch_loss(model, objective, part, precision, head, ranks=ranks).loss / batch.inputs.numel()
        loss.backward()
        total += loss.detach()
    return ranks.sum_(total)


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
    ranks: Ranks = ALONE

    @staticmethod
    def build(
        spec: RunSpec,
        data: Data,
        device: torch.device,
        start: StartingPoint | None = None,
        ranks: Ranks = ALONE,
    ) -> "Training":
        """Everything as it stands before the first step: fresh draws, or the weights of `start`."""
        precision = Precision(spec.precision)
        # A shared model is never whole in any memory, a parameter at a time apart.
        with torch.device("cpu" if ranks.mesh is None else "meta"):
            model = Transformer(spec.model, data.vocab_size)
        parallelise(model, ranks.mesh, spec.runtime, precision.dtype)
        model = model.to(device) if ranks.mesh is None else model.to_empty(device=device)
        if start is None:
            initialise(model, spec.init, step_generator(spec.seed, 0, "init"))
        else:
            for name, parameter in model.named_parameters():
                fill(parameter, start.weights[name])
        optimizer = build_optimizer(model, spec.optimizer, spec.model)
        loader = TokenLoader(
            data.split("train"), spec.data.sequence_length, spec.batch_sequences, spec.seed, spec.data.unique_tokens
        )
        ahead = spec.runtime.prefetch_batches
        if ahead is None:
            ahead = GPU_PREFETCH_BATCHES if device.type == "cuda" else 0
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
            ranks=ranks,
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


def clip_gradients(model: Transformer, limit: float | None, ranks: Ranks) -> Tensor:
    """Scale the gradient down to the norm `limit`, None never; return its norm before."""
    parameters = list(model.parameters())
    norm = ranks.norm([part.grad for part in parameters if part.grad is not None])
    torch.nn.utils.clip_grads_with_norm_(parameters, math.inf if limit is None else limit, norm)
    return norm


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
        ranks=training.ranks,
    )
    norm = clip_gradients(training.model, spec.optimizer.clip_norm, training.ranks)
    training.optimizer.step()
    training.optimizer.zero_grad()
    num_live_tokens = int(batch.weight.count_nonzero())  # a host tensor: no synchronisation
    return StepRecord(step + 1, loss, norm, factor, num_live_tokens)
