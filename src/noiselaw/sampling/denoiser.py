"""What a sampler asks of a model, and how models of three kinds answer: ours, any function to logits, the exact oracle.

A denoiser predicts the clean token at every position from the tokens at the others (docs/theory.md eq. 14). It does so
in two halves, because a sampler hardly ever needs all of the second: `hidden` runs over whole sequences, `logits` over
just the positions that may change now.

Shapes: B sequences, T positions, V vocabulary, d width, n positions, P prefix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from noiselaw.model.attention import Attention
from noiselaw.model.cache import KeyValueCache
from noiselaw.model.transformer import Transformer
from noiselaw.noise.oracle import Oracle

CLEAN_LOG_SNR = 64.0
"""Where float64 knows no noise any more (1 - α = 1.6e-28)."""


class Denoiser(Protocol):
    """Predicts clean tokens: the seam for other backbones. Samplers ask for nothing beyond these five.

    Whoever has a function from ids and an attention structure to logits wraps it in `LogitsDenoiser` and is done
    (examples/hf_masked_lm.py: BERT). Writing the five is worth it for a backbone that sees the noise level, that keeps
    keys and values of a prompt (`after`), or whose head is large (`logits` for few positions).

    What a prediction must be: the token at a position given the tokens at the *others* (docs/theory.md eq. 14). At a
    mask that is any masked language model's output. At other tokens it is so only for models trained on swapped
    tokens, so that a model that copies its input there does for masked noise, which never asks. Positions at or behind
    `attention.ends` must not be seen; a backbone without prompts may let everything else see everything. Ids are
    whole texts with noise in them, the mask as the noise's `mask_id`.
    """

    @property
    def sees_noise_level(self) -> bool:
        """Whether predictions depend on the log-SNR. Where not, a sequence that did not change keeps its prediction."""
        ...

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        """What `logits` needs, one vector per position: ids [B, T] -> [B, T, d]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the clean token, a new tensor: [n, d] -> [n, V]. The mask's own logit is ignored."""
        ...

    def after(self, prefix: Tensor, lengths: Tensor) -> "Denoiser":
        """The denoiser of what follows the first `lengths[b]` tokens of `prefix` [B, P]: prompts, which stay.

        Its ids [B, T] are the text behind the prefix, its attention is full (with ends) and among them; position 0 is
        the first after each prefix.
        """
        ...

    def select(self, rows: Tensor) -> "Denoiser":
        """The denoiser of the sequences `rows` [n] of the batch; itself where it knows of no batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TransformerDenoiser:
    """Our own model, with keys and values of a prefix computed once."""

    model: Transformer
    sees_noise_level: bool = False

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        del log_snr
        return self.model(ids, attention)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        return CachedContinuation(self.model, prefix, lengths)

    def select(self, rows: Tensor) -> Denoiser:
        del rows
        return self


@dataclass(frozen=True, slots=True, eq=False)
class LogitsDenoiser:
    """Any model that turns ids [B, T] and an attention structure into logits [B, T, V], for example a masked LM."""

    predict: Callable[[Tensor, Attention], Tensor]
    sees_noise_level: bool = False

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        del log_snr
        return self.predict(ids, attention)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        return RecomputedContinuation(self, prefix, lengths)

    def select(self, rows: Tensor) -> Denoiser:
        del rows
        return self


@dataclass(frozen=True, slots=True, eq=False)
class OracleDenoiser:
    """The exact leave-one-out prediction for a tiny vocabulary: the referee of the samplers."""

    oracle: Oracle
    given: tuple[int, ...] = ()
    """Positions it is told are clean, beside those of prompts: what no network can be told."""
    sees_noise_level: bool = True

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        """Log-probabilities, float64 [B, T, V]. Texts shorter than the oracle's are its first positions."""
        num_positions, vocab_size = ids.shape[1], self.oracle.process.mixing.vocab_size
        position = torch.arange(num_positions)
        prompt_lengths = attention.values if attention.kind == "prompt" else None
        lengths = torch.zeros(len(ids), dtype=torch.long) if prompt_lengths is None else prompt_lengths
        # Hardly any of a large batch's texts differ: each is computed once.
        key = (ids * vocab_size**position).sum(1) * (num_positions + 1) + lengths
        distinct, index = key.unique(return_inverse=True)
        example = torch.empty_like(distinct).scatter(0, index, torch.arange(len(ids)))
        is_clean = position < lengths[example][:, None]
        is_clean[:, list(self.given)] = True
        levels = torch.full(is_clean.shape, min(log_snr, CLEAN_LOG_SNR), dtype=torch.float64)
        levels = levels.masked_fill(is_clean, CLEAN_LOG_SNR)
        later = tuple(range(num_positions, self.oracle.data.ndim))
        marginal = Oracle(self.oracle.process, self.oracle.data.sum(later)) if later else self.oracle
        probs = marginal.leave_one_out(ids[example], levels)
        return probs.log()[index]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        return RecomputedContinuation(self, prefix, lengths)

    def select(self, rows: Tensor) -> Denoiser:
        del rows
        return self


class CachedContinuation:
    """Text behind a prefix whose keys and values are kept: a call costs what the text costs, not the prefix."""

    sees_noise_level = False

    def __init__(self, model: Transformer, prefix: Tensor, lengths: Tensor, cache: KeyValueCache | None = None) -> None:
        self._model, self._prefix, self._lengths, self._cache = model, prefix, lengths, cache

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        del log_snr
        structure, positions = _behind(self._lengths, ids, attention)
        return self._model(ids, structure, positions, self._cache_for(ids.shape[1]))

    def logits(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden)

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        whole = _joined(self._prefix, self._lengths, prefix)
        return CachedContinuation(self._model, whole, self._lengths + lengths)

    def select(self, rows: Tensor) -> Denoiser:
        return CachedContinuation(self._model, self._prefix[rows], self._lengths[rows], self._cache_for(0).rows(rows))

    def _cache_for(self, num_new: int) -> KeyValueCache:
        """The cache with the prefix in it, computed when first asked, and room for the text behind."""
        num_prefix = self._prefix.shape[1]
        if self._cache is None:
            self._cache = self._model.new_cache(len(self._prefix), num_prefix + num_new)
            positions = torch.arange(num_prefix, device=self._prefix.device)
            self._model(self._prefix, Attention.prompt(self._lengths), positions, self._cache.first(num_prefix))
        if self._cache.num_positions < num_prefix + num_new:
            self._cache = self._cache.grown(num_prefix + num_new)
        return self._cache


@dataclass(frozen=True, slots=True, eq=False)
class RecomputedContinuation:
    """Text behind a prefix, for a denoiser without a cache: every call runs over prefix and text."""

    base: Denoiser
    prefix: Tensor
    lengths: Tensor

    @property
    def sees_noise_level(self) -> bool:
        return self.base.sees_noise_level

    def hidden(self, ids: Tensor, attention: Attention, log_snr: float) -> Tensor:
        structure, positions = _behind(self.lengths, ids, attention)
        hidden = self.base.hidden(_joined(self.prefix, self.lengths, ids), structure, log_snr)
        return hidden[torch.arange(len(ids), device=ids.device)[:, None], positions]

    def logits(self, hidden: Tensor) -> Tensor:
        return self.base.logits(hidden)

    def after(self, prefix: Tensor, lengths: Tensor) -> Denoiser:
        return self.base.after(_joined(self.prefix, self.lengths, prefix), self.lengths + lengths)

    def select(self, rows: Tensor) -> Denoiser:
        return RecomputedContinuation(self.base.select(rows), self.prefix[rows], self.lengths[rows])


def _behind(lengths: Tensor, ids: Tensor, attention: Attention) -> tuple[Attention, Tensor]:
    """Structure of the whole texts, and positions [B, T] in them, of `ids` [B, T] behind prefixes of `lengths` [B]."""
    assert attention.kind == "full", "text behind a prefix sees all of it"
    num_new = ids.shape[1]
    ends = lengths + (num_new if attention.ends is None else attention.ends)
    return Attention.prompt(lengths).until(ends), lengths[:, None] + torch.arange(num_new, device=ids.device)


def _joined(prefix: Tensor, lengths: Tensor, ids: Tensor) -> Tensor:
    """The first `lengths[b]` tokens of `prefix` [B, P], then `ids` [B, T], in [B, P + T]."""
    positions = lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
    return torch.cat([prefix, torch.zeros_like(ids)], dim=1).scatter(1, positions, ids)
