"""What a run keeps of its data, so that its model can be used when the data is gone: tokenizer, token frequencies."""

from pathlib import Path

import numpy as np

from noiselaw.data.manifest import TOKENIZER_NAME
from noiselaw.data.mixture import Data
from noiselaw.data.shards import read_array
from noiselaw.files import write_atomically

FREQUENCIES_NAME = "token_frequencies.npy"


def keep_vocabulary(data: Data, folder: Path, *, frequencies: bool) -> None:
    """Copy the tokenizer into `folder`, and where `frequencies` the share of each token in the training data.

    Files that stand there already are kept: they are this data's, because the run's fingerprint holds its content.
    """
    tokenizer = folder / TOKENIZER_NAME
    if not tokenizer.exists():
        content = data.tokenizer_path.read_bytes()
        write_atomically(tokenizer, lambda stream: stream.write(content))
    if frequencies and not (folder / FREQUENCIES_NAME).exists():
        values = data.split("train").token_frequencies()
        write_atomically(folder / FREQUENCIES_NAME, lambda stream: np.save(stream, values))


def read_frequencies(folder: Path) -> np.ndarray | None:
    """Token frequencies float64 [V] kept in `folder`, or None. Raises ValueError where the file is damaged."""
    path = folder / FREQUENCIES_NAME
    if not path.exists():
        return None
    try:
        return read_array(path)
    except ValueError as error:
        raise ValueError(f"{error}, or delete it and continue the run to write it again") from error
