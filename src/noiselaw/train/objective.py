"""What a model is trained to do: how a batch of clean tokens becomes inputs, targets and weights.

Two objectives, one record. Shapes: B batch, T positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from noiselaw.data.mixture import Data
from noiselaw.data.pack import insert_empty_tokens, prompt_lengths
from noiselaw.model.attention import Attention
from noiselaw.noise.elbo import WEIGHTINGS
from noiselaw.noise.mixing import Mixing
from noiselaw.noise.process import NoiseProcess, build_process
from noiselaw.noise.rate import sample_log_snr
from noiselaw.specs import AutoregressiveSpec, DiffusionSpec


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """Everything one training step needs, for the whole global batch."""

    inputs: Tensor
    """[B, T] ids the model sees."""
    clean: Tensor
    """[B, T] ids it must predict."""
    log_snr: Tensor
    """[B, T] noise level of each token."""
    weight: Tensor
    """[B, T] multiplier of each token's bound terms; 0 where a token carries no loss and need not reach the head."""
    prompt_lengths: Tensor | None
    """[B] noise-free tokens at the start of each sequence, or None where no sequence has any."""
    causal: bool
    ends: Tensor | None = None
    """[B] length of each sequence where they differ: what stands from there on does not exist. None where all are T."""

    def rows(self, index: Tensor | slice) -> "NoisyBatch":
        """The sequences at `index`."""
        return self._map(lambda part: part[index])

    def to(self, device: torch.device) -> "NoisyBatch":
        return self._map(lambda part: moved(part, device))

    def attention(self) -> Attention:
        if self.causal:
            return Attention.causal()  # what stands behind the end is never seen from before it
        structure = Attention.full() if self.prompt_lengths is None else Attention.prompt(self.prompt_lengths)
        return structure if self.ends is None else structure.until(self.ends)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "NoisyBatch":
        lengths, ends = (None if part is None else change(part) for part in (self.prompt_lengths, self.ends))
        parts = (self.inputs, self.clean, self.log_snr, self.weight)
        return NoisyBatch(*map(change, parts), prompt_lengths=lengths, causal=self.causal, ends=ends)


def moved(part: Tensor, device: torch.device) -> Tensor:
    """`part` on `device`. A GPU copies it from pinned memory while it computes, and nobody waits."""
    return part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part.to(device)


class Objective(Protocol):
    """How clean tokens become a training batch."""

    @property
    def mixing(self) -> Mixing | None:
        """The noise whose bound is minimised; None for plain next-token cross-entropy."""
        ...

    @property
    def mask_id(self) -> int: ...

    def training_batch(self, tokens: Tensor, generator: torch.Generator) -> NoisyBatch:
        """Corrupt `tokens` [B, T] with random numbers from `generator`; the same generator state, the same batch."""
        ...


@dataclass(frozen=True, slots=True)
class DiffusionObjective:
    """Corrupt, then predict the clean tokens (spec section 4)."""

    spec: DiffusionSpec
    process: NoiseProcess
    empty_id: int

    @property
    def mixing(self) -> Mixing:
        return self.process.mixing

    @property
    def mask_id(self) -> int:
        return self.process.mixing.mask_id

    def training_batch(self, tokens: Tensor, generator: torch.Generator) -> NoisyBatch:
        spec = self.spec
        if spec.max_empty_fraction > 0:
            tokens = insert_empty_tokens(tokens, spec.max_empty_fraction, self.empty_id, generator)
        log_snr = self._noise_levels(tokens.shape, generator)
        lengths = prompt_lengths(len(tokens), tokens.shape[1], spec.prompt_probability, generator)
        in_prompt = torch.arange(tokens.shape[1]) < lengths[:, None]
        noisy = torch.where(in_prompt, tokens, self.process.corrupt(tokens, log_snr, generator))
        weight = WEIGHTINGS[spec.weighting](log_snr).masked_fill(in_prompt, 0.0)
        return NoisyBatch(
            inputs=noisy,
            clean=tokens,
            log_snr=log_snr,
            weight=self.loss_weight(noisy, weight),
            prompt_lengths=lengths if bool(in_prompt.any()) else None,
            causal=False,
        )

    def loss_weight(self, noisy: Tensor, weight: Tensor) -> Tensor:
        """`weight` with zeros where the bound has no term: under masked noise every token that is not masked."""
        return weight.masked_fill(noisy != self.mask_id, 0.0) if self.mixing.is_masked else weight

    def _noise_levels(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Log-SNR [B, T]: one level per sequence, or one per token for a random share of the sequences."""
        spec, (num_sequences, length) = self.spec, shape
        low, high = spec.min_log_snr, spec.max_log_snr
        shared = sample_log_snr(num_sequences, low, high, generator=generator, stratified=spec.stratified)
        own = sample_log_snr(num_sequences * length, low, high, generator=generator).view(num_sequences, length)
        independent = torch.rand(num_sequences, generator=generator) < spec.independent_probability
        return torch.where(independent[:, None], own, shared[:, None])


@dataclass(frozen=True, slots=True)
class AutoregressiveObjective:
    """Predict each token from those before it; the first from an end-of-text token.

    Every one of the T tokens is predicted, so its nats per token compare with a diffusion bound on the same sequence.
    """

    mask_id: int
    end_of_text_id: int
    mixing: None = None

    def training_batch(self, tokens: Tensor, generator: torch.Generator) -> NoisyBatch:
        del generator  # nothing is random here
        start = torch.full_like(tokens[:, :1], self.end_of_text_id)
        ones = torch.ones(tokens.shape)
        inputs = torch.cat([start, tokens[:, :-1]], dim=1)
        return NoisyBatch(inputs, tokens, torch.zeros_like(ones), ones, prompt_lengths=None, causal=True)


def build_objective(spec: DiffusionSpec | AutoregressiveSpec, data: Data) -> Objective:
    """The objective `spec` describes, over the vocabulary of `data`."""
    if isinstance(spec, AutoregressiveSpec):
        return AutoregressiveObjective(data.mask_id, data.end_of_text_id)
    frequencies = data.split("train").token_frequencies() if spec.noise.reference == "unigram" else None
    process = build_process(
        spec.noise,
        data.vocab_size,
        data.mask_id,
        spec.min_log_snr,
        spec.max_log_snr,
        token_frequencies=None if frequencies is None else torch.from_numpy(frequencies),
    )
    return DiffusionObjective(spec, process, data.empty_id)
