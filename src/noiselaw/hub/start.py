"""Fine-tuning: the trained model that a run's `init.weights` names, checked against what the run is to be."""

import json
from pathlib import Path

from noiselaw.data.mixture import Data, open_data
from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.specs import RunSpec
from noiselaw.train.checkpoint import checksum
from noiselaw.train.step import StartingPoint


class StartError(ValueError):
    """A model that a run cannot start from: names the model, what differs and the remedy."""


def starting_point(spec: RunSpec) -> StartingPoint | None:
    """The model in `spec.init.weights`, or None where there is none.

    Raises ValueError where it cannot be loaded, or has another shape, vocabulary or mask than the run.
    """
    path = spec.init.weights
    if path is None:
        return None
    loaded = load_model(path)
    _check_shape(path, spec, loaded)
    _check_vocabulary(path, open_data(spec.data, verify=False), loaded)
    weights = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    return StartingPoint(weights, checksum(weights)[:16])


def _check_shape(path: Path, spec: RunSpec, loaded: LoadedModel) -> None:
    wanted, found = spec.model.model_dump(), loaded.model.spec.model_dump()
    if differing := [name for name in wanted if wanted[name] != found[name]]:
        options = " ".join(f"--model.{name.replace('_', '-')} {json.dumps(found[name])}" for name in differing)
        raise StartError(f"{path}: its model differs from the spec's in {', '.join(differing)}; add {options}")


def _check_vocabulary(path: Path, data: Data, loaded: LoadedModel) -> None:
    remedy = "prepare the data with the model's tokenizer.json (noiselaw data prepare --tokenizer)"
    for what, ours, theirs in (
        ("vocabulary", data.vocab_size, loaded.vocab_size),
        ("mask", data.mask_id, loaded.mask_id),
    ):
        if ours != theirs:
            raise StartError(f"{path}: its {what} is {theirs}, that of {data.folder} is {ours}; {remedy}")
    if loaded.tokenizer is not None:
        ours, theirs = load_tokenizer(data.tokenizer_path).tokenizer, loaded.tokenizer.tokenizer
        if ours.get_vocab() != theirs.get_vocab():
            raise StartError(f"{path}: its tokens are not those of {data.folder}; {remedy}")
