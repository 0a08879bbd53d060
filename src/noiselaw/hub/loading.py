"""One function that makes a model ready for use from whatever holds it: a run, an export, a published checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from noiselaw.data.manifest import MANIFEST_NAME, TOKENIZER_NAME
from noiselaw.data.mixture import open_data
from noiselaw.data.tokenizer import TextTokenizer, load_tokenizer
from noiselaw.data.vocabulary import read_frequencies
from noiselaw.files import read_json
from noiselaw.hub.format import MODEL_TYPE, read_exported
from noiselaw.hub.gidd import load_gidd, read_noise
from noiselaw.hub.weights import load_transformer
from noiselaw.model.transformer import Transformer
from noiselaw.noise.process import NoiseProcess, build_process, noise_spec
from noiselaw.sampling.denoiser import TransformerDenoiser
from noiselaw.specs import (
    AUTOREGRESSIVE,
    AutoregressiveSpec,
    DataSpec,
    DiffusionSpec,
    RunSpec,
    parse_spec,
    read_mapping,
)
from noiselaw.train.checkpoint import MODEL, CheckpointError, newest_valid, read_tensors, tensors_under


class LoadError(ValueError):
    """A folder no model can be loaded from: names the folder, what is in it and the remedy."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A trained model with all that is needed to use it."""

    path: Path
    model: Transformer
    """In float32, without dropout or any other mode."""
    process: NoiseProcess | None
    """The noise it was trained with; None for an autoregressive model."""
    tokenizer: TextTokenizer | None
    """None for a published checkpoint without a tokenizer.json: ids only."""
    mask_id: int
    sequence_length: int
    """The context: tokens of the longest text it was trained on."""
    step: int | None = None
    """Optimiser steps it was trained for; None where nobody wrote them down."""
    warnings: tuple[str, ...] = ()
    """What was passed over on the way, for example a damaged checkpoint."""

    @property
    def vocab_size(self) -> int:
        return self.model.lm_head.weight.shape[0]

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    @property
    def denoiser(self) -> TransformerDenoiser:
        """The model as samplers see it."""
        return TransformerDenoiser(self.model)

    @property
    def noise_name(self) -> str:
        """The paper's name of the noise where there is one."""
        if self.process is None:
            return AUTOREGRESSIVE
        return noise_spec(self.process.mixing).name

    def text_tokenizer(self) -> TextTokenizer:
        """The tokenizer. Raises LoadError where there is none."""
        if self.tokenizer is None:
            raise LoadError(
                f"{self.path}: has no {TOKENIZER_NAME}, so the model knows ids but no text; put the tokenizer.json it "
                "was trained with into the folder or name it with --tokenizer"
            )
        return self.tokenizer

    def encode(self, text: str, what: str = "text") -> list[int]:
        """Token ids of `text`; `what` names it in errors.

        Raises ValueError for text the tokenizer has no token for.
        """
        tokenizer = self.text_tokenizer()
        (ids,) = tokenizer.encode([text])
        if tokenizer.unknown_id is not None and (ids == tokenizer.unknown_id).any():
            raise ValueError(
                f"{what} {text!r} holds characters that the tokenizer of {self.path} has no token for; leave them out"
            )
        return ids.tolist()

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens shown by name."""
        return self.text_tokenizer().decode(np.array(ids, dtype=np.int64))


def load_model(path: Path, *, tokenizer: Path | None = None) -> LoadedModel:
    """The model in `path`, on the CPU in float32: a run folder of `noiselaw train`, what `noiselaw export`
    made of one, or a published GIDD checkpoint.

    `tokenizer` is a tokenizer.json to use instead of the folder's own.

    Raises ValueError-family errors that name the folder, what it lacks and the remedy.
    """
    if not path.is_dir():
        raise LoadError(f"{path}: no such folder; give a run folder of `noiselaw train` or a GIDD checkpoint")
    for name, load in LOADERS.items():
        if (path / name).is_file():
            return load(path, None if tokenizer is None else load_tokenizer(tokenizer))
    for name, what in OTHER_FOLDERS.items():
        if (path / name).exists():
            raise LoadError(f"{path}: is {what}")
    found = ", ".join(sorted(item.name for item in path.iterdir())[:6]) or "nothing"
    raise LoadError(
        f"{path}: holds no model (found {found}); a run folder has spec.json, a GIDD checkpoint has config.json"
    )


def holds_model(path: Path) -> bool:
    """Whether `path` is a folder that `load_model` takes for its own, not somebody else's model or no model at all."""
    if (path / "spec.json").is_file():
        return True
    return (path / "config.json").is_file() and _model_type(path) in CONFIGURED


def load_run(path: Path, tokenizer: TextTokenizer | None) -> LoadedModel:
    """As `load_model`, for a run folder."""
    spec = parse_spec(RunSpec, read_mapping(path / "spec.json"), str(path / "spec.json"))
    if not (path / "run.json").is_file():
        raise LoadError(f"{path}: the run has not started (no run.json); train it with `noiselaw train`")
    facts = read_json(path / "run.json")
    if not isinstance(facts, dict) or not {"fingerprint", "vocab_size"} <= facts.keys():
        raise LoadError(f"{path / 'run.json'}: lacks fingerprint or vocab_size; continue the run to write it again")
    checkpoint, faults = newest_valid(path / "checkpoints", facts["fingerprint"])
    if checkpoint is None:
        damaged = "".join(f"\n  {fault}" for fault in faults)
        raise CheckpointError(f"{path}: has no checkpoint to load; train it further{damaged}")
    tokenizer = tokenizer or _run_tokenizer(path, spec.data.paths[0])
    if tokenizer.vocab_size != facts["vocab_size"]:
        raise LoadError(
            f"{path}: was trained with {facts['vocab_size']} tokens but its tokenizer has {tokenizer.vocab_size}; "
            f"restore {TOKENIZER_NAME} or name the right one with --tokenizer"
        )
    with torch.device("meta"):
        model = Transformer(spec.model, facts["vocab_size"])
    model.load_state_dict(tensors_under(MODEL, read_tensors(checkpoint, MODEL)), assign=True)
    return LoadedModel(
        path,
        model.eval(),
        _process(path, spec.objective, spec.data, tokenizer),
        tokenizer,
        tokenizer.mask_id,
        spec.data.sequence_length,
        checkpoint.step,
        tuple(faults),
    )


def _run_tokenizer(path: Path, data: Path) -> TextTokenizer:
    """The tokenizer a run kept; for runs from before runs kept theirs, that of their data."""
    places = (path / TOKENIZER_NAME, data / TOKENIZER_NAME)
    for place in places:
        if place.is_file():
            return load_tokenizer(place)
    raise LoadError(
        f"{path}: its tokenizer is neither at {places[0]} nor with the data at {places[1]}; copy the tokenizer.json of "
        "the prepared data into the run folder or name it with --tokenizer"
    )


def _process(
    path: Path, objective: DiffusionSpec | AutoregressiveSpec, data: DataSpec | None, tokenizer: TextTokenizer
) -> NoiseProcess | None:
    if isinstance(objective, AutoregressiveSpec):
        return None
    frequencies = None
    if objective.noise.reference == "unigram":
        frequencies = read_frequencies(path)
        places = () if data is None else data.paths
        if data is not None and frequencies is None and all((place / MANIFEST_NAME).is_file() for place in places):
            frequencies = open_data(data, verify=False).split("train").token_frequencies()
        if frequencies is None:
            raise LoadError(
                f"{path}: its noise needs the token frequencies of the training data, which neither the run folder nor "
                f"{', '.join(map(str, places)) or path} holds; put the prepared data back and start the run again, "
                "it will keep them"
            )
    return build_process(
        objective.noise,
        tokenizer.vocab_size,
        tokenizer.mask_id,
        objective.min_log_snr,
        objective.max_log_snr,
        token_frequencies=None if frequencies is None else torch.from_numpy(frequencies),
    )


def _load_exported(path: Path, tokenizer: TextTokenizer | None) -> LoadedModel:
    config = read_exported(path / "config.json")
    tokenizer = tokenizer or load_tokenizer(path / TOKENIZER_NAME)
    if (tokenizer.vocab_size, tokenizer.mask_id) != (config.vocab_size, config.mask_id):
        raise LoadError(
            f"{path}: was trained with {config.vocab_size} tokens and mask {config.mask_id} but its tokenizer has "
            f"{tokenizer.vocab_size} and mask {tokenizer.mask_id}; restore {TOKENIZER_NAME} from the export"
        )
    model = load_transformer(path, config.model, config.vocab_size)
    process = _process(path, config.objective, None, tokenizer)
    return LoadedModel(path, model.eval(), process, tokenizer, config.mask_id, config.sequence_length, config.step)


def _load_published(path: Path, tokenizer: TextTokenizer | None) -> LoadedModel:
    model = load_gidd(path)
    if tokenizer is None and (path / TOKENIZER_NAME).is_file():
        tokenizer = load_tokenizer(path / TOKENIZER_NAME)
    process, context = read_noise(path / "config.json", None if tokenizer is None else tokenizer.mask_id)
    vocab_size = process.mixing.vocab_size
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise LoadError(
            f"{path}: the model has {vocab_size} tokens but the tokenizer {tokenizer.vocab_size}; check both"
        )
    return LoadedModel(path, model.eval(), process, tokenizer, process.mixing.mask_id, context)


def _load_configured(path: Path, tokenizer: TextTokenizer | None) -> LoadedModel:
    """A folder with config.json, by the kind of model that it names."""
    kind = _model_type(path)
    if kind not in CONFIGURED:
        raise LoadError(
            f"{path / 'config.json'}: model_type is {kind!r}; {MODEL_TYPE!r} and 'gidd' are known. To sample from "
            "another masked language model wrap it in a Denoiser (examples/hf_masked_lm.py)"
        )
    return CONFIGURED[kind](path, tokenizer)


def _model_type(path: Path) -> str | None:
    """What kind of model the config.json in `path` names."""
    config = read_json(path / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None


CONFIGURED: dict[str | None, Callable[[Path, TextTokenizer | None], LoadedModel]] = {
    MODEL_TYPE: _load_exported,
    "gidd": _load_published,
}
"""By the model_type in config.json."""

LOADERS: dict[str, Callable[[Path, TextTokenizer | None], LoadedModel]] = {
    "spec.json": load_run,
    "config.json": _load_configured,
}
"""By the file that marks the folder; the first that stands there decides."""

OTHER_FOLDERS = {
    "recipe.json": "a study; give one of its runs, for example a folder in its runs/",
    MANIFEST_NAME: "prepared data; give the run folder that was trained on it",
}
"""Folders people mistake for a model, by the file that marks them."""
