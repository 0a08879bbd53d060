"""The three terms of the bound for given texts, by random draws: what validation and evaluation are made of.

Whatever part of a text is scored, with or without a prompt, alone or in a ragged batch, goes through here. Shapes: B
texts, T positions of the longest, K draws. Losses in nats, summed over the scored tokens of a text, float64 [B].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.model.attention import Attention
from noiselaw.model.transformer import Transformer
from noiselaw.noise.elbo import prior_divergence, reconstruction_loss
from noiselaw.noise.levels import Levels
from noiselaw.train.distributed import ALONE, Ranks
from noiselaw.train.objective import DiffusionObjective, NoisyBatch, Objective
from noiselaw.train.step import HeadSettings, Precision, batch_loss


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """A model and how to run it."""

    model: Transformer
    precision: Precision
    head: HeadSettings
    rows: int
    """Sequences of one forward pass."""
    ranks: Ranks = ALONE
    """Processes that share the model; each scores its share of the texts, and all get every text's loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Clean texts, each with a prompt that is given and not scored."""

    tokens: Tensor
    """Ids [B, T]; behind the end of a text anything."""
    prompt_lengths: Tensor | None = None
    """[B], None where no text has a prompt."""
    ends: Tensor | None = None
    """Length of each text, prompt included, [B]; None where all have T tokens."""

    @property
    def scored(self) -> Tensor:
        """Tokens that count, bool [B, T]."""
        position = torch.arange(self.tokens.shape[1])
        scored = torch.ones_like(self.tokens, dtype=torch.bool)
        if self.prompt_lengths is not None:
            scored &= position >= self.prompt_lengths[:, None]
        if self.ends is not None:
            scored &= position < self.ends[:, None]
        return scored

    def rows(self, index: Tensor | slice) -> "Texts":
        """The texts at `index`."""
        lengths, ends = (None if part is None else part[index] for part in (self.prompt_lengths, self.ends))
        return Texts(self.tokens[index], lengths, ends)

    def attention(self) -> Attention:
        structure = Attention.full() if self.prompt_lengths is None else Attention.prompt(self.prompt_lengths)
        return structure if self.ends is None else structure.until(self.ends)


def noised(
    objective: DiffusionObjective,
    texts: Texts,
    levels: Levels,
    generator: torch.Generator,
    uniform: Tensor | None = None,
) -> NoisyBatch:
    """Each text corrupted at its level of `levels` [B], weighted so that its loss is a draw of its diffusion term.

    `uniform` [B, T] decides which tokens are noised, as in `NoiseProcess.corrupt`.
    """
    tokens, scored = texts.tokens, texts.scored
    log_snr = levels.log_snr.float()[:, None].expand_as(tokens)
    noisy = torch.where(scored, objective.process.corrupt(tokens, log_snr, generator, uniform), tokens)
    weight = objective.loss_weight(noisy, levels.weight.float()[:, None].expand_as(tokens)).masked_fill(~scored, 0.0)
    return NoisyBatch(noisy, tokens, log_snr, weight, texts.prompt_lengths, causal=False, ends=texts.ends)


@torch.no_grad()
def batch_losses(forward: Forward, objective: Objective, batch: NoisyBatch) -> Tensor:
    """Weighted loss of each sequence."""
    sums, ranks = [], forward.ranks
    share = batch.rows(ranks.share(len(batch.inputs)))
    for start in range(0, len(share.inputs), forward.rows):
        part = share.rows(slice(start, start + forward.rows))
        integrand = batch_loss(forward.model, objective, part, forward.precision, forward.head, ranks=ranks).integrand
        weighted = ranks.sum_over_tensor_ranks(integrand).double().cpu() * part.weight.flatten()
        sums.append(weighted.view_as(part.inputs).sum(1))
    return ranks.joined(torch.cat(sums), len(batch.inputs))


def prior_losses(objective: DiffusionObjective, texts: Texts) -> Tensor:
    """The prior term of each text, exactly."""
    return prior_divergence(objective.process, texts.tokens).double().masked_fill(~texts.scored, 0.0).sum(1)


@torch.no_grad()
def reconstruction_losses(
    forward: Forward, objective: DiffusionObjective, texts: Texts, generator: torch.Generator
) -> Tensor:
    """A draw of each text's -log p(x | z) at the highest log-SNR.

    Hardly any token is noised there (1e-4), so plain draws would be nearly all alike. A token's expectation is
    E[loss, kept] + P(noised) E[loss | noised]: the first from the kept tokens of one draw, the second from one position
    of the text that is noised for certain.
    """
    process, tokens, scored = objective.process, texts.tokens, texts.scored
    log_snr = torch.full(tokens.shape, process.max_log_snr)
    noised_share = torch.sigmoid(torch.tensor(-process.max_log_snr, dtype=torch.float64))
    uniform = torch.rand(tokens.shape, generator=generator, dtype=torch.float64)
    noisy = torch.where(scored, process.corrupt(tokens, log_snr, generator, uniform), tokens)
    key = torch.rand(tokens.shape, generator=generator).masked_fill(~scored, -1.0)
    position = key.argmax(1, keepdim=True)
    replacement = process.sample_noise(log_snr.gather(1, position), generator)
    one_noised = noisy.scatter(1, position, replacement)
    is_kept = scored & (uniform >= noised_share)
    kept = _token_losses(forward, objective, texts, noisy).masked_fill(~is_kept, 0.0).sum(1)
    changed = _token_losses(forward, objective, texts, one_noised).gather(1, position).squeeze(1)
    return kept + noised_share * scored.sum(1) * changed


def _token_losses(forward: Forward, objective: DiffusionObjective, texts: Texts, noisy: Tensor) -> Tensor:
    """-log p(x | z) of every token, [B, T], with at most one chunk of tokens times V logits at a time."""
    model, precision, chunk_tokens = forward.model, forward.precision, forward.head.chunk_tokens
    num_texts, share = len(noisy), forward.ranks.share(len(noisy))
    texts, noisy = texts.rows(share), noisy[share]
    losses, device = [], model.lm_head.weight.device
    for start in range(0, len(noisy), forward.rows):
        batch = texts.rows(slice(start, start + forward.rows))
        seen, clean = noisy[start : start + forward.rows].to(device), batch.tokens.to(device)
        with precision.autocast(device):
            hidden = model(seen, batch.attention().to(device)).flatten(0, 1)
        chunks = (part.split(chunk_tokens) for part in (hidden, seen.flatten(), clean.flatten()))
        for states, values, truth in zip(*chunks, strict=True):
            with precision.autocast(device):
                logits = model.logits(states)
            losses.append(reconstruction_loss(objective.process, logits.double(), values, truth).cpu())
    return forward.ranks.joined(torch.cat(losses).view_as(noisy), num_texts)


def stratified_standard_error(ordered: Tensor) -> Tensor:
    """Standard error of the mean of one value per stratum, from differences of neighbours: [K, ...] -> [...].

    Neighbours share their trend in the noise level, so the plain standard deviation would overstate the error
    (successive-difference estimator, Wolter 2007, section 8.2). NaN for a single stratum.
    """
    num = len(ordered)
    if num < 2:
        return torch.full(ordered.shape[1:], torch.nan, dtype=ordered.dtype)
    return (ordered.diff(dim=0).square().sum(0) / (2 * num * (num - 1))).sqrt()
