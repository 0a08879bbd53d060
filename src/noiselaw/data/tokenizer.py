"""The tokenizer and its three special tokens: end of text, mask (the noise's own token) and empty (padding).

Text never becomes a special token, however it is spelt: "<|mask|>" in a document is encoded as its characters.
"""

import heapq
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")
MASK_NAMES = ("<|mask|>", "<mask>", "[MASK]", "<|mask_token|>")
EMPTY_NAMES = ("<|empty|>", "<|pad|>", "<pad>", "[PAD]", "<|padding|>")
"""Names under which tokenizers know each special token; the first is the name we add where there is none."""

NUM_BYTE_TOKENS = 256
NUM_SPECIAL_TOKENS = 3
MAX_PIECE_CHARS = 250_000
"""Longer texts are encoded in pieces: bounded memory, and every core has work."""


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer that knows its special tokens."""

    tokenizer: Tokenizer
    end_of_text_id: int
    mask_id: int
    empty_id: int

    @property
    def vocab_size(self) -> int:
        """All ids, special tokens and gaps included."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for text without a token of its own; None where every text has tokens (byte level)."""
        name = getattr(self.tokenizer.model, "unk_token", None)
        return None if name is None else self.tokenizer.token_to_id(name)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Token ids of each text, int64 [length]; no special tokens. Encodes on all cores."""
        pieces = [split_text(text) for text in texts]
        flat = [piece for parts in pieces for piece in parts]
        ids = iter(self.tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        return [np.concatenate([np.array(next(ids).ids, dtype=np.int64) for _ in parts]) for parts in pieces]

    def decode(self, ids: np.ndarray) -> str:
        """Text of the token ids [length], special tokens shown by name."""
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each token's text, int64 [V]; special tokens and gaps have none.

        Exact for byte-level tokenizers, whose tokens are spelt with one character per byte; for others the length of
        the token decoded by itself, which misses what a decoder adds or strips at the edges of a text.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        special = self.tokenizer.get_added_tokens_decoder()
        is_byte_level = "ByteLevel" in json.dumps(json.loads(self.to_json())["decoder"])
        for token, index in self.tokenizer.get_vocab().items():
            if index not in special:
                text = token if is_byte_level else self.tokenizer.decode([index])
                lengths[index] = len(text) if is_byte_level else len(text.encode())
        return lengths

    def to_json(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return self.tokenizer.to_str()


def split_text(text: str, max_chars: int = MAX_PIECE_CHARS) -> list[str]:
    """Pieces of at most `max_chars` characters, cut after a line where there is one. Joined they are `text`."""
    pieces, start = [], 0
    while len(text) - start > max_chars:
        line_end = text.rfind("\n", start, start + max_chars)
        end = start + max_chars if line_end < 0 else line_end + 1
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def bpe_size(tokenizer: str) -> int | None:
    """The vocabulary size asked for by `bpe:SIZE`, or None when `tokenizer` is a path."""
    match = re.fullmatch(r"bpe:(.*)", tokenizer)
    if match is None:
        return None
    smallest = NUM_BYTE_TOKENS + NUM_SPECIAL_TOKENS
    if not match[1].isdecimal() or int(match[1]) < smallest:
        raise ValueError(f"tokenizer {tokenizer!r}: SIZE must be a whole number of at least {smallest}, as in bpe:1024")
    return int(match[1])


def tokenizer_file(path: str) -> Path:
    """The `tokenizer.json` at `path`: the file itself or the folder that holds it."""
    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise ValueError(f"tokenizer {path!r}: no such file; give a tokenizer.json, its folder, or bpe:SIZE")
    return file


def load_tokenizer(file: Path) -> TextTokenizer:
    """Read a `tokenizer.json`; special tokens it lacks are added at the end of its vocabulary."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
        raise ValueError(
            f"{file}: not a tokenizer of the `tokenizers` library ({error}); give its tokenizer.json"
        ) from None
    return _with_special_tokens(tokenizer)


def train_bpe(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Train a byte-level BPE of exactly `vocab_size` tokens, special tokens included. The same texts, the same result.

    Raises:
        ValueError: the texts are too short to yield that many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END_OF_TEXT_NAMES[0], MASK_NAMES[0], EMPTY_NAMES[0]],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise ValueError(
            f"tokenizer bpe:{vocab_size}: the text yields only {tokenizer.get_vocab_size()} tokens; "
            f"ask for bpe:{tokenizer.get_vocab_size()} or give more text"
        )
    return _with_special_tokens(tokenizer)


def sample_texts(texts: Iterable[tuple[bytes, str]], max_chars: int) -> list[tuple[bytes, str]]:
    """The texts with the smallest keys, as many as fit into `max_chars`: a sample that does not depend on their order.

    With hashes for keys it is a fair one. A longer text counts with its first `max_chars` characters. A sample of
    samples is the sample of everything.
    """
    kept: list[tuple[int, str, bytes]] = []
    total, bound = 0, math.inf
    for key, text in texts:
        number = int.from_bytes(key)
        if number >= bound:
            continue
        heapq.heappush(kept, (-number, text[:max_chars], key))
        total += len(text[:max_chars])
        while total > max_chars:
            largest, dropped, _ = heapq.heappop(kept)
            total -= len(dropped)
            bound = -largest
    return [(key, text) for _, text, key in sorted(kept, reverse=True)]


def _with_special_tokens(tokenizer: Tokenizer) -> TextTokenizer:
    end_of_text, mask, empty = (_special_id(tokenizer, names) for names in (END_OF_TEXT_NAMES, MASK_NAMES, EMPTY_NAMES))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return TextTokenizer(tokenizer, end_of_text, mask, empty)


def _special_id(tokenizer: Tokenizer, names: tuple[str, ...]) -> int:
    """The id of the first of `names` the tokenizer knows; failing all, of the first, added to it."""
    name = next((name for name in names if tokenizer.token_to_id(name) is not None), names[0])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    found = tokenizer.token_to_id(name)
    assert found is not None
    return found
