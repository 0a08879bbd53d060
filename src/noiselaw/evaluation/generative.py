"""How good the texts are that a model writes: a judge's perplexity, and beside it entropy and diversity.

A judge alone likes a text that repeats itself; low entropy or few distinct n-grams give such texts away.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch

from noiselaw.evaluation.likelihood import completion_bounds
from noiselaw.hub.loading import LoadedModel, holds_model, load_model
from noiselaw.hub.write import Settings, write, written_ids
from noiselaw.sampling import Canvas
from noiselaw.units import bits_per_byte_from_nats_per_token


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge finds of one text."""

    nats: float
    """-log p of what was scored."""
    num_tokens: int
    """The judge's tokens that were scored."""
    num_bytes: int
    """The text's bytes that were scored."""


class Judge(Protocol):
    """Says how probable it finds texts."""

    def verdicts(self, texts: Sequence[str]) -> list[Verdict]:
        """One for each text."""
        ...


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """A model of ours; a diffusion model judges by its bound. Of longer texts the beginning counts."""

    loaded: LoadedModel

    def verdicts(self, texts: Sequence[str]) -> list[Verdict]:
        ids = [self.loaded.encode(text)[: self.loaded.sequence_length] for text in texts]
        bounds = completion_bounds(self.loaded, [([], row) for row in ids])
        return [
            Verdict(bound.nats, bound.num_tokens, len(self.loaded.decode(row).encode()))
            for bound, row in zip(bounds, ids, strict=True)
        ]


class HuggingFaceJudge:
    """A causal language model in a local folder, by transformers, on the CPU.

    The first token of a text is given, not scored; of texts longer than the model's context the beginning counts.
    """

    def __init__(self, path: Path) -> None:
        """Raises ImportError without transformers, ValueError for a folder it cannot use."""
        try:
            from transformers import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra)
                AutoModelForCausalLM,
                AutoTokenizer,
            )
        except ImportError as error:
            raise ImportError(
                f"a Hugging Face scorer needs transformers ({error}); pip install 'noiselaw[scorer]'"
            ) from error
        self._path = path
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).float().eval()
        except (OSError, ValueError, KeyError, TypeError) as error:  # the last for missing vocabularies in 4.x
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"--scorer {path}: transformers finds no causal language model with its tokenizer there ({reason})"
            ) from error
        if not self._tokenizer.is_fast:
            raise ValueError(f"--scorer {path}: its tokenizer has no tokenizer.json; convert it to a fast one")

    def verdicts(self, texts: Sequence[str]) -> list[Verdict]:
        """Raises ValueError for a text of one token."""
        return [self._verdict(text) for text in texts]

    @torch.no_grad()
    def _verdict(self, text: str) -> Verdict:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = torch.tensor(encoded["input_ids"][:limit]), encoded["offset_mapping"][:limit]
        if len(ids) < 2:
            raise ValueError(f"the scorer {self._path} makes fewer than two tokens of {text!r}; write longer texts")
        logits = self._model(ids[None]).logits[0, :-1].double()
        nats = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
        scored = text[places[1][0] : places[-1][1]]
        return Verdict(float(nats), len(ids) - 1, len(scored.encode()))


@dataclass(frozen=True, slots=True)
class Quality:
    """Texts written with one number of steps."""

    steps: int
    num_texts: int
    perplexity: float
    """e^(the judge's nats per token of the judge's)."""
    bits_per_byte: float
    """The judge's nats over the bytes it scored, in bits: comparable between judges."""
    entropy: float
    """Of the distribution of tokens within a text, nats, averaged over texts."""
    distinct_2: float
    """Share of pairs of neighbouring tokens, over all texts, that occur once only or for the first time."""
    repeated_texts: float
    """Share of texts that were written before."""


def build_judge(path: Path) -> Judge:
    """The judge in `path`: a model of ours (run, export, GIDD checkpoint) where it is one, else a Hugging Face folder.

    Raises ValueError for a folder that is neither.
    """
    if holds_model(path):
        loaded = load_model(path)
        loaded.text_tokenizer()
        return OwnJudge(loaded)
    if not (path / "config.json").is_file():
        raise ValueError(f"--scorer {path}: neither a run folder (spec.json) nor a Hugging Face model (config.json)")
    return HuggingFaceJudge(path)


def quality(
    loaded: LoadedModel, judge: Judge, steps: int, *, num_texts: int, length: int | None = None, seed: int = 0
) -> Quality:
    """Write `num_texts` texts in `steps` steps (an autoregressive model: one a token) and have them judged.

    Raises ValueError for a text that is empty or longer than the model's context.
    """
    size = loaded.sequence_length if length is None else length
    canvas = Canvas.from_prompts([[]] * num_texts, size, loaded.device)
    generator = torch.Generator(loaded.device).manual_seed(seed)
    settings = Settings() if loaded.process is None else Settings(sampler="ancestral", num_steps=steps)
    written = write(loaded, canvas, settings, generator=generator).tolist()
    rows = [row for row in (written_ids(loaded, ids, 0) for ids in written) if len(row) > 1]
    if not rows:
        raise ValueError("every text that the model wrote ends at once; nothing to judge")
    texts = [loaded.decode(row) for row in rows]
    verdicts = judge.verdicts(texts)
    nats = sum(verdict.nats for verdict in verdicts)
    pairs = [pair for row in rows for pair in pairwise(row)]
    return Quality(
        steps=steps,
        num_texts=len(rows),
        perplexity=math.exp(nats / sum(verdict.num_tokens for verdict in verdicts)),
        bits_per_byte=bits_per_byte_from_nats_per_token(nats, sum(verdict.num_bytes for verdict in verdicts)),
        entropy=sum(map(token_entropy, rows)) / len(rows),
        distinct_2=len(set(pairs)) / len(pairs),
        repeated_texts=1 - len(set(texts)) / len(texts),
    )


def token_entropy(ids: Sequence[int]) -> float:
    """Entropy of the tokens of one text, nats: 0 for one token repeated, log n for n different ones."""
    return -sum(count / len(ids) * math.log(count / len(ids)) for count in Counter(ids).values())
