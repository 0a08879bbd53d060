"""`import noiselaw.hub.transformers` makes transformers' Auto classes know exported and published GIDD folders.

transformers has no entry point through which an installed package could announce itself, so this import is the one line
a user writes. No remote code: the classes are these, the weights safetensors.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiselaw.hub.format import KEY, MODEL_TYPE, parse_exported
from noiselaw.hub.gidd import REQUIRED, parse_config
from noiselaw.model.attention import Attention
from noiselaw.model.transformer import Transformer
from noiselaw.specs import AutoregressiveSpec, ModelSpec

try:
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoConfig,
        AutoModel,
        AutoModelForMaskedLM,
        PretrainedConfig,
        PreTrainedModel,
    )
    from transformers.utils.generic import ModelOutput  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError("noiselaw.hub.transformers needs transformers: pip install transformers") from error


class NoiselawConfig(PretrainedConfig):
    """The config.json of an export."""

    model_type = MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        if KEY in values:  # absent where transformers makes an empty configuration to compare with
            exported = parse_exported(values, "config.json")
            values |= {
                "vocab_size": exported.vocab_size,
                "hidden_size": exported.model.width,
                "num_hidden_layers": exported.model.num_layers,
                "num_attention_heads": exported.model.num_heads,
                "max_position_embeddings": exported.sequence_length,
                "eos_token_id": exported.end_of_text_id,
                "pad_token_id": exported.empty_id,
            }
        values["tie_word_embeddings"] = False
        super().__init__(**values)

    def shape(self) -> tuple[ModelSpec, int, bool]:
        """Model shape, vocabulary size, and whether attention is causal."""
        exported = parse_exported(self.to_dict(), "config.json")
        return exported.model, exported.vocab_size, isinstance(exported.objective, AutoregressiveSpec)


class GiddConfig(NoiselawConfig):
    """The config.json of a published GIDD checkpoint."""

    model_type = "gidd"

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.published = {name: values[name] for name in REQUIRED if name in values}

    def to_dict(self) -> dict[str, Any]:
        """The settings, those that transformers 5 drops (`rope_scaling`) as published."""
        content = super().to_dict()
        return content.pop("published", {}) | content

    def shape(self) -> tuple[ModelSpec, int, bool]:
        return *parse_config(self.to_dict(), "config.json"), False


@dataclass
class NoiselawOutput(ModelOutput):
    """What the model returns."""

    last_hidden_state: Tensor | None = None
    """[B, T, d], after the final norm."""
    logits: Tensor | None = None
    """Of the clean token at every position, for an autoregressive model of the next: [B, T, V]."""


class NoiselawModel(PreTrainedModel):
    """`noiselaw.model.Transformer` as transformers expects a model: same parameters by the same names."""

    config_class = NoiselawConfig
    base_model_prefix = ""
    main_input_name = "input_ids"

    def __init__(self, config: NoiselawConfig) -> None:
        super().__init__(config)
        spec, vocab_size, self._is_causal = config.shape()
        transformer = Transformer(spec, vocab_size)
        self.model, self.lm_head = transformer.model, transformer.lm_head
        self._parts = (transformer,)  # in a tuple, so that its parameters are not counted twice
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Weights come from the folder; `noiselaw train` is where they start."""

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> NoiselawOutput:
        """`input_ids` [B, T], `attention_mask` [B, T] with 0 at padding. Raises ValueError for `labels`."""
        if labels is not None:
            raise ValueError(
                "labels: no loss is computed here; the bound of a noise is not cross-entropy at masks, use "
                "`noiselaw train` or `noiselaw evaluate`"
            )
        (transformer,) = self._parts
        attention = Attention.causal() if self._is_causal else Attention.full()
        if attention_mask is not None:
            seen = attention_mask.bool()
            attention = Attention.keys(seen)
            if self._is_causal:
                num_tokens = input_ids.shape[1]
                causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=seen.device).tril()
                # A padding query sees itself, so that no row of the softmax is empty.
                attention = Attention.matrix(seen[:, None, :] & causal | causal & causal.T)
        hidden = transformer(input_ids, attention, position_ids)
        return NoiselawOutput(last_hidden_state=hidden, logits=transformer.logits(hidden))


class GiddModel(NoiselawModel):
    """A published GIDD checkpoint."""

    config_class = GiddConfig


for _config, _model in ((NoiselawConfig, NoiselawModel), (GiddConfig, GiddModel)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto in (AutoModel, AutoModelForMaskedLM):
        _auto.register(_config, _model, exist_ok=True)
