"""Language models that people know, by size and training tokens, as their papers give them.

Parameters are the headline count of each paper (embeddings included), tokens those of the whole training.
"""

from typing import Literal, NamedTuple

from noiselaw.laws.published import LARGE_RUNS


class KnownModel(NamedTuple):
    """A trained model."""

    name: str
    params: float
    tokens: float
    source: str
    is_diffusion: bool = False
    side: Literal["left", "right"] = "right"
    """Of its mark, where the name stands."""


AUTOREGRESSIVE_MODELS = (
    KnownModel("GPT-3", 175e9, 300e9, "arXiv 2005.14165"),
    KnownModel("Chinchilla", 70e9, 1.4e12, "arXiv 2203.15556", side="left"),
    KnownModel("Pythia 12B", 12e9, 300e9, "arXiv 2304.01373"),
    KnownModel("Llama 2 70B", 70e9, 2e12, "arXiv 2307.09288"),
    KnownModel("Llama 3.1 405B", 405e9, 15.6e12, "arXiv 2407.21783"),
)
DIFFUSION_MODELS = (
    KnownModel("LLaDA 8B", 8e9, 2.3e12, "arXiv 2502.09992", is_diffusion=True, side="left"),
    *(
        KnownModel(
            run.name,
            run.params,
            run.tokens,
            run.source,
            is_diffusion=True,
            side="left" if run.group == "masked" else "right",
        )
        for run in LARGE_RUNS
    ),
)
KNOWN_MODELS = (*AUTOREGRESSIVE_MODELS, *DIFFUSION_MODELS)
