"""How probable a loaded model finds text: a prepared split, or completions of prompts (docs/theory.md eq. 35, 36).

For a diffusion model the numbers are draws of the bound, an upper bound on -log p, with their standard error; for the
autoregressive one they are exact. Shapes: B texts, T positions, K draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.data.manifest import SplitName
from noiselaw.data.order import step_generator
from noiselaw.data.shards import TokenData
from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.hub.loading import LoadedModel
from noiselaw.noise.levels import square_root_levels, stratified_places
from noiselaw.noise.process import noise_spec
from noiselaw.specs import DiffusionSpec, RuntimeSpec, ValidationSpec
from noiselaw.train.bound import (
    Forward,
    Texts,
    batch_losses,
    noised,
    prior_losses,
    reconstruction_losses,
    stratified_standard_error,
)
from noiselaw.train.objective import AutoregressiveObjective, DiffusionObjective, NoisyBatch, Objective
from noiselaw.train.step import HeadSettings, Precision
from noiselaw.train.validation import BoundEstimate, Validator
from noiselaw.units import bits_per_byte_from_nats_per_token

PRECISION = Precision("float32")
TEXT_SEED = 20260
"""Seed of the draws for texts: the same for every text, so that differences between completions vary less."""
DEFAULT_DRAWS = 128
BATCH_TOKENS = 8192
"""Tokens of one forward pass, at most."""
GROUP_TOKENS = 2**20
"""Tokens of the corrupted copies that are in memory at a time, about."""


@dataclass(frozen=True, slots=True)
class DataBound:
    """The bound on held-out sequences."""

    estimate: BoundEstimate
    bits_per_byte: float
    bits_per_byte_error: float
    num_sequences: int
    num_available: int
    sequence_length: int
    model_calls: int
    """Sequences that went through the model for the diffusion term."""


@dataclass(frozen=True, slots=True)
class TextBound:
    """-log p of a completion given its prompt, at most: nats, summed over the completion's tokens."""

    nats: float
    standard_error: float
    """Of `nats`, from the draws; 0 where it is exact."""
    num_tokens: int
    """Tokens of the completion."""

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens


def build_evaluation_objective(loaded: LoadedModel) -> Objective:
    """The objective whose bound is evaluated; nothing of it is about training but its noise."""
    if loaded.process is None:
        return AutoregressiveObjective(loaded.mask_id, loaded.text_tokenizer().end_of_text_id)
    process = loaded.process
    spec = DiffusionSpec(
        noise=noise_spec(process.mixing),
        min_log_snr=process.min_log_snr,
        max_log_snr=process.max_log_snr,
    )
    return DiffusionObjective(spec, process, empty_id=0)


def data_bound(
    loaded: LoadedModel, data: TokenData, split_name: SplitName, *, num_sequences: int | None = None, draws: int = 1
) -> DataBound:
    """The bound on `num_sequences` (by default all, at most 1024) evenly spread sequences of a split.

    The estimator is that of training's validation: the same sequences and draws give the same number.

    Raises ValueError for data of another tokenizer and for more sequences than there are.
    """
    _check_vocabulary(loaded, data)
    split, length = data.split(split_name), loaded.sequence_length
    available = split.num_sequences(length)
    num = min(available, 1024) if num_sequences is None else num_sequences
    if num > available:
        raise ValueError(
            f"num_sequences {num}: the {split_name} split of {data.folder} holds only {available} sequences of "
            f"{length} tokens; ask for fewer"
        )
    spec = ValidationSpec(num_sequences=num, draws=draws)
    forward = forward_of(loaded, length)
    validator = Validator(build_evaluation_objective(loaded), split, length, spec, forward.rows)
    estimate = validator.estimate(forward.model, forward.precision, forward.head)
    loaded.model.eval()
    bits = bits_per_byte_from_nats_per_token(estimate.loss, split.bytes_per_token)
    error = bits_per_byte_from_nats_per_token(estimate.standard_error, split.bytes_per_token)
    calls = num * (1 if loaded.process is None else draws)
    return DataBound(estimate, bits, error, num, available, length, calls)


def completion_bounds(
    loaded: LoadedModel, texts: Sequence[tuple[Sequence[int], Sequence[int]]], *, draws: int = DEFAULT_DRAWS
) -> list[TextBound]:
    """-log p(completion | prompt), at most, for (prompt ids, completion ids) each.

    A text's numbers depend on itself only, not on the others. Prompts may be empty; they are free of noise and see
    themselves only, as in training. `draws` is rounded up to an even number.

    Raises ValueError for an empty completion and for texts longer than the model's context.
    """
    for prompt, completion in texts:
        _check_text(loaded, len(prompt), len(completion))
    objective = build_evaluation_objective(loaded)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    found: dict[int, TextBound] = {}
    copies = draws if isinstance(objective, DiffusionObjective) else 1
    for group in _groups([len(texts[i][0]) + len(texts[i][1]) for i in order], copies):
        indices = order[group]
        batch = _padded([texts[i] for i in indices])
        if isinstance(objective, DiffusionObjective):
            nats, errors = _diffusion_bounds(loaded, objective, batch, draws)
        else:
            nats = _exact_losses(loaded, objective, batch)
            errors = torch.zeros_like(nats)
        for index, value, error in zip(indices, nats.tolist(), errors.tolist(), strict=True):
            found[index] = TextBound(value, error, len(texts[index][1]))
    return [found[index] for index in range(len(texts))]


def forward_of(loaded: LoadedModel, num_positions: int) -> Forward:
    """How a loaded model runs over sequences of that many tokens."""
    head = HeadSettings.of(RuntimeSpec(), loaded.vocab_size, PRECISION, loaded.device)
    return Forward(loaded.model, PRECISION, head, max(1, BATCH_TOKENS // num_positions))


def _diffusion_bounds(
    loaded: LoadedModel, objective: DiffusionObjective, texts: Texts, draws: int
) -> tuple[Tensor, Tensor]:
    """Bound and standard error of each text, [B]."""
    pairs = (draws + 1) // 2
    width = texts.tokens.shape[1]
    forward = forward_of(loaded, width)
    own = [_own(texts, index) for index in range(len(texts.tokens))]
    batch = _stacked([_paired_draws(objective, text, pairs) for text in own], width)
    per_pair = batch_losses(forward, objective, batch).view(len(own), pairs, 2).mean(2).T
    ends = []
    for text in own:
        generator = step_generator(TEXT_SEED, 0, "reconstruction")
        ends.append(reconstruction_losses(forward, objective, text, generator) + prior_losses(objective, text))
    return per_pair.mean(0) + torch.cat(ends), stratified_standard_error(per_pair)


def _paired_draws(objective: DiffusionObjective, text: Texts, pairs: int) -> NoisyBatch:
    """2 `pairs` copies of one text, a level per stratum; neighbours are antithetic: what one noises the other keeps."""
    generator = step_generator(TEXT_SEED, 0, "completion")
    levels = square_root_levels(objective.process, stratified_places(2 * pairs, generator))
    half = torch.rand(pairs, 1, text.tokens.shape[1], generator=generator, dtype=torch.float64)
    uniform = torch.cat([half, 1.0 - half], 1).flatten(0, 1)
    copies = text.rows(torch.zeros(2 * pairs, dtype=torch.long))
    return noised(objective, copies, levels, generator, uniform)


def _exact_losses(loaded: LoadedModel, objective: Objective, texts: Texts) -> Tensor:
    whole = objective.training_batch(texts.tokens, torch.Generator())
    weight = whole.weight.masked_fill(~texts.scored, 0.0)
    batch = NoisyBatch(whole.inputs, whole.clean, whole.log_snr, weight, None, causal=True)
    return batch_losses(forward_of(loaded, texts.tokens.shape[1]), objective, batch)


def _own(texts: Texts, index: int) -> Texts:
    """One text without what stands behind its end, so that its draws do not depend on its neighbours."""
    text = texts.rows(slice(index, index + 1))
    assert text.ends is not None
    return Texts(text.tokens[:, : int(text.ends)], text.prompt_lengths, text.ends)


def _stacked(batches: Sequence[NoisyBatch], width: int) -> NoisyBatch:
    """Batches of different lengths as one, [B K, T]; behind an end no token has a weight."""

    def joined(name: str) -> Tensor:
        parts = [getattr(batch, name) for batch in batches]
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])

    lengths, ends = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("prompt_lengths", "ends"))
    parts = (joined(name) for name in ("inputs", "clean", "log_snr", "weight"))
    return NoisyBatch(*parts, prompt_lengths=lengths, causal=False, ends=ends)


def _padded(texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Texts:
    whole = [torch.tensor([*prompt, *completion]) for prompt, completion in texts]
    return Texts(
        torch.nn.utils.rnn.pad_sequence(whole, batch_first=True),
        torch.tensor([len(prompt) for prompt, _ in texts]),
        torch.tensor([len(row) for row in whole]),
    )


def _groups(lengths: Sequence[int], copies: int) -> list[slice]:
    """Consecutive texts that are corrupted together; `lengths` ascend."""
    groups, start = [], 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * lengths[stop] * copies <= GROUP_TOKENS:
            stop += 1
        groups.append(slice(start, stop))
        start = stop
    return groups


def _check_text(loaded: LoadedModel, num_prompt: int, num_completion: int) -> None:
    if num_completion == 0:
        raise ValueError("the text to score has no tokens; give at least one")
    if num_prompt + num_completion > loaded.sequence_length:
        raise ValueError(
            f"a prompt of {num_prompt} tokens and a text of {num_completion} are longer than the "
            f"{loaded.sequence_length} tokens that {loaded.path} was trained on; shorten them"
        )


def _check_vocabulary(loaded: LoadedModel, data: TokenData) -> None:
    same_size = data.vocab_size == loaded.vocab_size and data.mask_id == loaded.mask_id
    own = loaded.tokenizer
    if not same_size or (own is not None and load_tokenizer(data.tokenizer_path).to_json() != own.to_json()):
        raise ValueError(
            f"{data.folder}: was prepared with another tokenizer than {loaded.path} was trained with, so its ids mean "
            "other text; prepare the text again with `noiselaw data prepare ... --tokenizer` and the model's "
            "tokenizer.json"
        )
