"""What is given and what is to be written: prompts, texts with blanks, texts to revise.

Shapes: B texts, T positions of the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.model.attention import Attention


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """A batch of texts in the making. Build one with `from_rows`, `from_prompts` or `from_texts`."""

    tokens: Tensor
    """Ids, int64 [B, T]: what is given stands there; at blanks, what a text under revision says now."""
    given: Tensor
    """Positions that never change, bool [B, T]."""
    prompt_lengths: Tensor
    """Given tokens at the start, int64 [B]: they see each other only, as in training (spec section 4)."""
    ends: Tensor
    """Length of each text, int64 [B]; positions from there on do not exist."""

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int | None]], device: torch.device | None = None) -> "Canvas":
        """Texts of ids with None where a token is to be written. What is given at the start is the prompt."""
        lengths = [next((i for i, token in enumerate(row) if token is None), len(row)) for row in rows]
        padded = _padded([[-1 if token is None else token for token in row] for row in rows], device)
        given = padded >= 0
        ends = torch.tensor([len(row) for row in rows], device=device)
        return cls(padded.clamp(min=0), given, torch.tensor(lengths, device=device), ends)

    @classmethod
    def from_prompts(
        cls, prompts: Sequence[Sequence[int]], length: int | Sequence[int], device: torch.device | None = None
    ) -> "Canvas":
        """Prompts to be continued until each text has `length` tokens, one number for all or one each.

        Raises ValueError where a prompt leaves no room.
        """
        lengths = [length] * len(prompts) if isinstance(length, int) else list(length)
        rows: list[list[int | None]] = []
        for prompt, total in zip(prompts, lengths, strict=True):
            if len(prompt) >= total:
                raise ValueError(
                    f"a prompt of {len(prompt)} tokens leaves nothing to write in a text of {total}; "
                    "shorten the prompt or lengthen the text"
                )
            rows.append([*prompt, *[None] * (total - len(prompt))])
        return cls.from_rows(rows, device)

    @classmethod
    def from_texts(cls, texts: Sequence[Sequence[int]], device: torch.device | None = None) -> "Canvas":
        """Whole texts of which every token may be rewritten."""
        tokens = _padded(texts, device)
        ends = torch.tensor([len(text) for text in texts], device=device)
        return cls(tokens.clamp(min=0), torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(ends), ends)

    @property
    def num_positions(self) -> int:
        return self.tokens.shape[1]

    @property
    def blank(self) -> Tensor:
        """Positions to be written, bool [B, T]."""
        exists = torch.arange(self.num_positions, device=self.ends.device) < self.ends[:, None]
        return exists & ~self.given

    @property
    def is_continuation(self) -> bool:
        """Whether nothing is given but prompts."""
        return bool((self.given.sum(1) == self.prompt_lengths).all())

    def attention(self) -> Attention:
        """Who sees whom: prompts see themselves, the rest sees everything that exists."""
        structure = Attention.prompt(self.prompt_lengths) if bool(self.prompt_lengths.any()) else Attention.full()
        is_ragged = bool((self.ends < self.num_positions).any())
        return structure.until(self.ends) if is_ragged else structure


def _padded(rows: Sequence[Sequence[int]], device: torch.device | None) -> Tensor:
    """Rows of different lengths as one tensor, -1 behind the shorter ones."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], dtype=torch.long, device=device)
