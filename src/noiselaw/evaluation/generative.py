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
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.hub.write import Settings, write, written_ids
from noiselaw.sampling import Canvas
from noiselaw.units import bits_per_byte_from_nats_per_token


class Judge(Protocol):
    """Says how probable it finds texts."""

    def nats(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """-log p of each text in nats, and the judge's tokens that were scored."""
        ...


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """A model of ours; a diffusion model judges by its bound. Longer texts count with their beginning."""

    loaded: LoadedModel

    def nats(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        ids = [self.loaded.encode(text)[: self.loaded.sequence_length] for text in texts]
        return [(bound.nats, bound.num_tokens) for bound in completion_bounds(self.loaded, [([], row) for row in ids])]


@dataclass(frozen=True, slots=True)
class HuggingFaceJudge:
    """A causal language model in a local folder, by transformers. The first token of a text is given, not scored."""

    path: Path

    def nats(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        try:
            from transformers import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra)
                AutoModelForCausalLM,
                AutoTokenizer,
            )
        except ImportError as error:
            raise ImportError(
                f"a Hugging Face scorer needs transformers ({error}); pip install 'noiselaw[scorer]'"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(self.path, local_files_only=True).eval()
        limit = getattr(model.config, "max_position_embeddings", None)
        found = []
        for text in texts:
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:limit]])
            if ids.shape[1] < 2:
                raise ValueError(f"the scorer {self.path} makes fewer than two tokens of {text!r}; write longer texts")
            with torch.no_grad():
                logits = model(ids).logits[0, :-1].double()
            nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
            found.append((float(nats), ids.shape[1] - 1))
        return found


@dataclass(frozen=True, slots=True)
class Quality:
    """Texts written with one number of steps."""

    steps: int
    num_texts: int
    perplexity: float
    """e^(the judge's nats per token of the judge's)."""
    bits_per_byte: float
    """The judge's nats over the bytes of the texts, in bits: comparable between judges."""
    entropy: float
    """Of the distribution of tokens within a text, nats, averaged over texts."""
    distinct_2: float
    """Share of pairs of neighbouring tokens, over all texts, that occur once only or for the first time."""
    repeated_texts: float
    """Share of texts that were written before."""


def build_judge(path: Path) -> Judge:
    """The judge in `path`: a model of ours where it is one, else a Hugging Face folder."""
    if (path / "spec.json").is_file():
        return OwnJudge(load_model(path))
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
    judged = judge.nats(texts)
    nats, tokens = sum(value for value, _ in judged), sum(count for _, count in judged)
    pairs = [pair for row in rows for pair in pairwise(row)]
    return Quality(
        steps=steps,
        num_texts=len(rows),
        perplexity=math.exp(nats / tokens),
        bits_per_byte=bits_per_byte_from_nats_per_token(nats, sum(len(text.encode()) for text in texts)),
        entropy=sum(map(token_entropy, rows)) / len(rows),
        distinct_2=len(set(pairs)) / len(pairs),
        repeated_texts=1 - len(set(texts)) / len(texts),
    )


def token_entropy(ids: Sequence[int]) -> float:
    """Entropy of the tokens of one text, nats: 0 for one token repeated, log n for n different ones."""
    return -sum(count / len(ids) * math.log(count / len(ids)) for count in Counter(ids).values())
