"""Several prepared folders as one: sequences of the sources in exact proportion to their weights.

Shapes: B sequences, T tokens per sequence, V vocabulary.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from noiselaw.data.interleaving import Interleaving
from noiselaw.data.manifest import SplitName
from noiselaw.data.shards import Split, TokenData, open_tokens
from noiselaw.dataspec import DataSpec, SourceSpec

MOST_SHARES = 2**20
"""Sum of the shares at most: the pattern of one round is held in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class MixedSplit:
    """The same split of every source."""

    name: SplitName
    sources: tuple[Split, ...]
    interleaving: Interleaving
    keys: tuple[str, ...]
    """Names of the sources' content."""

    @property
    def _weights(self) -> np.ndarray:
        return self.interleaving.shares / self.interleaving.shares.sum()

    @property
    def bytes_per_token(self) -> float:
        """Of the mixture: the sources' weighted by their share of the tokens."""
        return float(sum(w * split.bytes_per_token for w, split in zip(self._weights, self.sources, strict=True)))

    def num_sequences(self, sequence_length: int) -> int:
        """How many sequences can be taken in proportion before a source runs out.

        Raises ValueError where a source has none or not even one can be taken.
        """
        available = [split.num_sequences(sequence_length) for split in self.sources]
        low, high = 0, sum(available)
        while low < high:
            middle = (low + high + 1) // 2
            fits = all(used <= most for used, most in zip(self.interleaving.counts(middle), available, strict=True))
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def sequences(self, indices: np.ndarray, sequence_length: int) -> np.ndarray:
        """Tokens int64 [B, T] of the sequences with these indices [B] of the mixture; each source in its own order."""
        sources, places = self.interleaving.places(np.asarray(indices, dtype=np.int64))
        return gather(self.sources, sources, places, sequence_length)

    def token_frequencies(self) -> np.ndarray:
        """Share of each token in the mixture, float64 [V]; 0 for the mask."""
        pairs = zip(self._weights, self.sources, strict=True)
        return np.sum([weight * split.token_frequencies() for weight, split in pairs], axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Folders written by `noiselaw data prepare` with one tokenizer, mixed."""

    sources: tuple[TokenData, ...]
    interleaving: Interleaving

    @property
    def folder(self) -> Path:
        """The first source's, to name the mixture by."""
        return self.sources[0].folder

    @property
    def vocab_size(self) -> int:
        return self.sources[0].vocab_size

    @property
    def mask_id(self) -> int:
        return self.sources[0].mask_id

    @property
    def end_of_text_id(self) -> int:
        return self.sources[0].end_of_text_id

    @property
    def empty_id(self) -> int:
        return self.sources[0].empty_id

    @property
    def tokenizer_path(self) -> Path:
        return self.sources[0].tokenizer_path

    @property
    def fingerprint(self) -> str:
        """Hash of the sources' content and shares."""
        content = [[d.fingerprint, int(n)] for d, n in zip(self.sources, self.interleaving.shares, strict=True)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def split(self, name: SplitName) -> MixedSplit:
        splits = tuple(data.split(name) for data in self.sources)
        return MixedSplit(name, splits, self.interleaving, tuple(data.fingerprint for data in self.sources))


Data = TokenData | Mixture
AnySplit = Split | MixedSplit


def open_data(spec: DataSpec, verify: bool | None = None) -> Data:
    """Open the folder or the mixture that `spec` names.

    Raises ValueError as `open_tokens`, for weights whose ratio is not one of small whole numbers, and for sources of
    different tokenizers or of the same content.
    """
    if spec.path is not None:
        return open_tokens(spec.path, verify)
    sources = tuple(open_tokens(source.path, verify) for source in spec.sources)
    first = sources[0]
    for number, data in enumerate(sources[1:], start=1):
        if data.manifest.tokenizer.sha256 != first.manifest.tokenizer.sha256:
            raise ValueError(
                f"data.sources: {data.folder} was prepared with another tokenizer than {first.folder}; prepare it with "
                f"--tokenizer {first.tokenizer_path}"
            )
        same = next((other for other in sources[:number] if other.fingerprint == data.fingerprint), None)
        if same is not None:
            raise ValueError(f"data.sources: {same.folder} and {data.folder} hold the same tokens; leave one out")
    return Mixture(sources, Interleaving.of(_shares(spec.sources)))


def gather(splits: Sequence[Split], sources: np.ndarray, indices: np.ndarray, sequence_length: int) -> np.ndarray:
    """Tokens int64 [B, T] of sequence `indices[i]` of `splits[sources[i]]`."""
    tokens = np.empty((len(indices), sequence_length), dtype=np.int64)
    for number, split in enumerate(splits):
        here = sources == number
        tokens[here] = split.sequences(indices[here], sequence_length)
    return tokens


def _shares(sources: Sequence[SourceSpec]) -> list[int]:
    """The weights as whole numbers in the same proportion, as small as they go."""
    weights = [Fraction(str(source.weight)) for source in sources]
    common = math.lcm(*(weight.denominator for weight in weights))
    numbers = [int(weight * common) for weight in weights]
    shares = [number // math.gcd(*numbers) for number in numbers]
    if sum(shares) > MOST_SHARES:
        given = ", ".join(f"{source.weight:g}" for source in sources)
        raise ValueError(
            f"data.sources: weights {given} are in the proportion of whole numbers with sum {sum(shares):,}, more than "
            f"{MOST_SHARES:,}; round them to fewer digits"
        )
    return shares
