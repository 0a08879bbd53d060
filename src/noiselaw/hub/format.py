"""What the config.json of an exported model says. The key `noiselaw` is ours, the rest for others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from noiselaw.files import read_json
from noiselaw.specs import AutoregressiveSpec, DiffusionSpec, ModelSpec, Spec, SpecError, parse_spec

MODEL_TYPE = "noiselaw"
KEY = "noiselaw"


class ExportedConfig(Spec):
    """All that is needed to use an exported model, beside its weights and tokenizer."""

    format: Literal["noiselaw-model-1"] = "noiselaw-model-1"
    name: str
    step: int = Field(ge=0)
    """Optimiser steps it was trained for."""
    run_fingerprint: str
    vocab_size: int = Field(gt=0)
    sequence_length: int = Field(gt=1)
    """Tokens of the longest text it was trained on."""
    mask_id: int = Field(ge=0)
    end_of_text_id: int = Field(ge=0)
    empty_id: int = Field(ge=0)
    model: ModelSpec
    objective: DiffusionSpec | AutoregressiveSpec = Field(discriminator="kind")

    @model_validator(mode="after")
    def _ids_are_tokens(self) -> Self:
        for name in ("mask_id", "end_of_text_id", "empty_id"):
            if getattr(self, name) >= self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is no token of a vocabulary of {self.vocab_size}")
        return self

    def settings(self) -> dict[str, Any]:
        """Every value as JSON has it, infinite shifts as text."""
        return json.loads(self.model_dump_json())

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "model_type": MODEL_TYPE,
            "architectures": ["NoiselawModel"],
            "dtype": "float32",
            KEY: self.settings(),
        }


def read_exported(path: Path) -> ExportedConfig:
    """Read a config.json. Raises ValueError naming the file and what is wrong in it."""
    return parse_exported(read_json(path), str(path))


def parse_exported(config: Any, origin: str) -> ExportedConfig:
    """The same from the file's content; `origin` names it in errors."""
    block = config.get(KEY) if isinstance(config, Mapping) else None
    if not isinstance(block, Mapping):
        raise SpecError(f"{origin}: lacks the settings under {KEY!r}; export the run again")
    return parse_spec(ExportedConfig, block, origin)
