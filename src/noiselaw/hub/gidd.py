"""Published GIDD checkpoints: a folder with `config.json` and `model.safetensors`, or several of them with an index.

The published configuration carries many switches; `REQUIRED` lists those for which only the value of the trained models
has a counterpart here. Anything else is refused rather than loaded into a model that computes something different.
Tensor names are those of `noiselaw.model.Transformer`.
"""

import math
from pathlib import Path
from typing import Any

from noiselaw.accounting import MLP_RATIO
from noiselaw.files import read_json
from noiselaw.hub.weights import load_transformer
from noiselaw.model.transformer import Transformer
from noiselaw.noise.mixing import HybridMixing
from noiselaw.noise.process import NoiseProcess
from noiselaw.specs import ModelSpec, parse_spec

REQUIRED: dict[str, Any] = {
    "model_type": "gidd",
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "is_causal": False,
    "rope_scaling": None,
    "weight_scaling": 1.0,
}
"""Settings that must have this value."""

RENAMED = {
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "attention_sink": "attention_bias",
    "attention_soft_cap": "attn_soft_cap",
    "mlp_bias": "mlp_bias",
    "rope_base": "rope_theta",
    "norm_epsilon": "rms_norm_eps",
    "residual_scale": "resid_scale",
    "head_scale": "head_scaling",
}
"""Fields of ModelSpec and what the published configuration calls them."""


DEFAULT_MASK_ID = 3
"""The mask's id in the published code where the configuration names none."""
PURE_SHIFT = 100.0
"""Shifts from here on stand for pure masked (-) or uniform (+) noise; the published code writes 1000."""


class GiddFormatError(ValueError):
    """A folder that is no GIDD checkpoint this package can load: names the file, the fault and the remedy."""


def load_gidd(folder: Path) -> Transformer:
    """The model of a published checkpoint, in float32 on the CPU.

    Raises:
        GiddFormatError: a setting has no counterpart here.
        WeightsError: weights are missing or damaged, or do not fit the configuration.
        ValueError: the configuration is missing, damaged or describes an impossible shape.
    """
    return load_transformer(folder, *read_config(folder / "config.json"))


def read_config(path: Path) -> tuple[ModelSpec, int]:
    """Model shape and vocabulary size of a published `config.json`. Raises as `load_gidd`."""
    return parse_config(read_json(path), str(path))


def parse_config(config: Any, origin: str) -> tuple[ModelSpec, int]:
    """The same from the configuration's content; `origin` names it in errors."""
    needed = {*REQUIRED, *RENAMED.values(), "head_dim", "intermediate_size", "vocab_size"}
    if not isinstance(config, dict) or needed - config.keys():
        lacking = ", ".join(sorted(needed - set(config)))
        raise GiddFormatError(f"{origin}: lacks {lacking}; take the config.json saved with the weights")
    spec = parse_spec(ModelSpec, {field: config[name] for field, name in RENAMED.items()}, origin=origin)
    # The published value is the logits' multiplier itself, ours is its numerator.
    spec = spec.model_copy(update={"head_scale": spec.head_scale * spec.width})
    derived = {"head_dim": spec.width // spec.num_heads, "intermediate_size": MLP_RATIO * spec.width}
    for name, value in (REQUIRED | derived).items():
        if config[name] != value:
            raise GiddFormatError(f"{origin}: {name} is {config[name]!r}; only {value!r} is supported")
    if not isinstance(config["vocab_size"], int) or config["vocab_size"] < 1:
        raise GiddFormatError(f"{origin}: vocab_size is {config['vocab_size']!r}; it must be a positive whole number")
    return spec, config["vocab_size"]


def read_noise(path: Path, mask_id: int | None) -> tuple[NoiseProcess, int]:
    """The noise process of a published `config.json`, and the longest text its model was made for, in tokens.

    The configuration names the shift, with huge numbers for masked and uniform noise, and the range of log-SNR. Where
    it names no mask the published code's own default stands in, unless `mask_id` (the tokenizer's) says otherwise.
    Raises as `load_gidd`.
    """
    config = read_json(path)
    needed = {"vocab_size", "noise_type", "min_log_snr", "max_log_snr", "max_position_embeddings"}
    if not isinstance(config, dict) or needed - config.keys():
        lacking = ", ".join(sorted(needed - set(config)))
        raise GiddFormatError(f"{path}: lacks {lacking}, without which no text can be sampled")
    named = config.get("mask_token_id")
    if mask_id is not None and named is not None and named != mask_id:
        raise GiddFormatError(f"{path}: mask_token_id is {named} but the tokenizer's mask is {mask_id}; check both")
    mask = next(value for value in (mask_id, named, DEFAULT_MASK_ID) if value is not None)
    try:
        shift = float(config["noise_type"])
        mixing = HybridMixing(
            config["vocab_size"], mask, math.copysign(math.inf, shift) if abs(shift) >= PURE_SHIFT else shift
        )
        process = NoiseProcess(mixing, float(config["min_log_snr"]), float(config["max_log_snr"]))
        return process, int(config["max_position_embeddings"])
    except (TypeError, ValueError, OverflowError) as error:
        raise GiddFormatError(f"{path}: describes no noise process ({error}); take the original config.json") from error
