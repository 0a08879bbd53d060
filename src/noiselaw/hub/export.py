"""A run folder becomes a folder to share: weights, config, tokenizer, model card. Written whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiselaw.accounting import flops_per_token
from noiselaw.data.manifest import TOKENIZER_NAME
from noiselaw.data.vocabulary import FREQUENCIES_NAME
from noiselaw.files import new_folder, read_json, write_atomically, write_json, write_text
from noiselaw.hub.card import Card, render_card
from noiselaw.hub.format import ExportedConfig
from noiselaw.hub.loading import LoadError, load_run
from noiselaw.hub.weights import SHARD_BYTES, write_weights
from noiselaw.laws.ownbook import read_book
from noiselaw.metrics import read_rows
from noiselaw.specs import RunSpec, parse_spec, read_mapping


@dataclass(frozen=True, slots=True)
class Law:
    """What a study's law says of a run."""

    source: str
    flops: float
    """Of the run, as the law counts them."""
    best_loss: float | None
    """Of the best model at those FLOPs; None where the study has no law for this noise."""


def export_run(run: Path, out: Path, *, laws: Path | None = None, shard_bytes: int = SHARD_BYTES) -> Card:
    """Write the model of the newest checkpoint of `run` as the folder `out`; the facts its card shows.

    `laws` is a study or its laws.json; where not given, that of the study the run belongs to, if it does.

    Raises ValueError for a folder that is no run, and for an `out` that holds something.
    """
    if not (run / "spec.json").is_file():
        raise LoadError(f"{run}: is no run folder (no spec.json); give a folder that `noiselaw train` wrote")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists already and is not empty; choose a new folder for --out")
    loaded = load_run(run, None)
    spec = parse_spec(RunSpec, read_mapping(run / "spec.json"), str(run / "spec.json"))
    facts, tokenizer, step = read_json(run / "run.json"), loaded.text_tokenizer(), loaded.step
    assert step is not None
    config = ExportedConfig(
        name=spec.name,
        step=step,
        run_fingerprint=facts["fingerprint"],
        vocab_size=loaded.vocab_size,
        sequence_length=loaded.sequence_length,
        mask_id=tokenizer.mask_id,
        end_of_text_id=tokenizer.end_of_text_id,
        empty_id=tokenizer.empty_id,
        model=spec.model,
        objective=spec.objective,
    )
    validations = [row for row in read_rows(run / "metrics.jsonl", "validation") if row["step"] <= step]
    card = Card(config, spec, facts, validations[-1] if validations else None, _law(run, spec, facts, step, laws))
    with new_folder(out) as folder:
        write_weights(folder, loaded.model.state_dict(), shard_bytes)
        write_json(folder / "config.json", config.to_json())
        write_text(folder / TOKENIZER_NAME, tokenizer.to_json())
        write_json(folder / "tokenizer_config.json", _tokenizer_config(config, tokenizer.tokenizer.id_to_token))
        if (run / FREQUENCIES_NAME).is_file():
            content = (run / FREQUENCIES_NAME).read_bytes()
            write_atomically(folder / FREQUENCIES_NAME, lambda stream: stream.write(content))
        write_text(folder / "README.md", render_card(card))
    return card


def _tokenizer_config(config: ExportedConfig, name_of: Any) -> dict[str, Any]:
    """What transformers' AutoTokenizer reads beside tokenizer.json; text never becomes a special token."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": name_of(config.end_of_text_id),
        "mask_token": name_of(config.mask_id),
        "pad_token": name_of(config.empty_id),
        "model_max_length": config.sequence_length,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }


def _law(run: Path, spec: RunSpec, facts: dict[str, Any], step: int, laws: Path | None) -> Law | None:
    if laws is None:
        parents = run.resolve().parents
        laws = parents[1] / "laws.json" if run.resolve().parent.name == "runs" else None
        if laws is None or not laws.is_file():
            return None
    elif not laws.exists():
        raise ValueError(f"--laws {laws}: no such study nor laws.json; give the folder that `noiselaw study` wrote")
    book = read_book([laws])
    per_token = flops_per_token(spec.model.shape(facts["vocab_size"]), spec.data.sequence_length, book.convention)
    flops = float(per_token * spec.tokens_per_step * step)
    fit = book.fits.get(facts["group"])
    law = None if fit is None else fit.laws.get("loss")
    return Law(laws.parent.name if laws.is_file() else laws.name, flops, None if law is None else float(law.law(flops)))
