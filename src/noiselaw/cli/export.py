"""`noiselaw export RUN --out DIR`: a run's model as a folder to share."""

import json as json_format
from pathlib import Path
from typing import Annotated

import tyro

from noiselaw.hub.export import export_run


def export(
    run: Annotated[Path, tyro.conf.Positional], /, *, out: Path, laws: Path | None = None, json: bool = False
) -> None:
    """Write the model of a run as a folder to share: safetensors, config, tokenizer, model card.

    `noiselaw sample` and `noiselaw.hub.load` read it; so does transformers once noiselaw.hub.transformers is imported.

    Args:
        run: Run folder of `noiselaw train`; its newest checkpoint is exported.
        out: Folder to create.
        laws: Study, or its laws.json, that the model card compares with; by default the study the run is part of.
        json: Print JSON.
    """
    card = export_run(run, out, laws=laws)
    if json:
        record = {"folder": str(out), "validation": card.validation} | card.config.settings()
        print(json_format.dumps(record, indent=1))
        return
    print(f"{out}: {card.config.name} after {card.config.step:,} steps; state its licence in {out / 'README.md'}")
