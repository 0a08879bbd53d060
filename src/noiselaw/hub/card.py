"""The model card: what the exported model is, from its run's own records. Licence fields are the user's to fill in."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

import yaml

from noiselaw import __version__
from noiselaw.hub.format import ExportedConfig
from noiselaw.specs import DiffusionSpec, RunSpec


class LawRecord(Protocol):
    """What a study's law says of a run."""

    @property
    def source(self) -> str: ...
    @property
    def flops(self) -> float: ...
    @property
    def best_loss(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Card:
    """The facts a card shows."""

    config: ExportedConfig
    spec: RunSpec
    facts: dict[str, Any]
    """run.json"""
    validation: dict[str, Any] | None
    """The last validation up to the exported step."""
    law: LawRecord | None


def render_card(card: Card) -> str:
    """README.md."""
    config, facts = card.config, card.facts
    names = [path.name for path in card.spec.data.paths]
    shape = config.model
    tokens = config.step * facts["tokens_per_step"]
    rows = [
        (
            "model",
            f"{shape.num_layers} layers × {shape.width}, {shape.num_heads} heads, context {config.sequence_length}",
        ),
        (
            "parameters",
            f"{facts['non_embedding_parameters']:,} without embedding, {facts['total_parameters']:,} in all",
        ),
        ("noise", _noise(card)),
        (
            "data",
            f"{' + '.join(map(_code, names))}, fingerprint {_code(facts['data_fingerprint'])}",
        ),
        ("vocabulary", f"{config.vocab_size:,} tokens"),
        ("training", f"{config.step:,} of {card.spec.schedule.num_steps:,} steps, {tokens:,} tokens"),
        ("compute", f"{tokens * facts['flops_per_token']:.3g} FLOPs ({facts['flops_convention']}, without the head)"),
        ("held-out loss", _loss(card)),
        ("law", _law(card)),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    settings = json.loads(card.spec.model_dump_json(exclude={"runtime": True, "data": {"path"}}))
    return f"""---
library_name: noiselaw
tags: [noiselaw, discrete-diffusion]
# license: the licence of these weights is yours to state, for example apache-2.0
# language: and so is the language of the text
---

# {_plain(config.name)}

| | |
|---|---|
{table}

```sh
noiselaw sample . --prompt "..."
```

```python
import noiselaw.hub.transformers  # makes the Auto classes know this kind of model; no remote code
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

Settings of the run (noiselaw {__version__}, fingerprint {_code(config.run_fingerprint)}):

```yaml
{yaml.safe_dump(settings, sort_keys=False).replace("```", "'''")}```
"""


def _noise(card: Card) -> str:
    objective = card.config.objective
    if not isinstance(objective, DiffusionSpec):
        return "none: autoregressive"
    low, high = objective.min_log_snr, objective.max_log_snr
    return (
        f"{objective.name}: shift {objective.noise.shift:g}, scale {objective.noise.scale:g}, log-SNR {low:g}..{high:g}"
    )


def _loss(card: Card) -> str:
    row = card.validation
    if row is None:
        return "not measured yet"
    return (
        f"{row['loss']:.4f} ± {row['standard_error']:.4f} nats per token, {row['bits_per_byte']:.4f} bits per byte "
        f"(step {row['step']:,})"
    )


def _law(card: Card) -> str:
    law, row = card.law, card.validation
    if law is None:
        return "none given; `noiselaw export --laws STUDY` names one"
    if law.best_loss is None:
        return f"study {_code(law.source)} has none for this noise"
    text = (
        f"study {_code(law.source)}: the best model at {law.flops:.3g} FLOPs reaches {law.best_loss:.4f} nats per token"
    )
    return text if row is None else f"{text}; this one is {row['loss'] / law.best_loss - 1:+.2%} off"


def _plain(text: str) -> str:
    """`text` on one line, without what Markdown or HTML would act on."""
    return "".join(char if char.isalnum() or char in " -_.+" else "·" for char in text)


def _code(text: str) -> str:
    return f"`{_plain(text)}`"
