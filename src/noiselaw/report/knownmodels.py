"""Language models that people know, by size and training tokens, as their papers give them.

Parameters are the headline count of each paper (embeddings included), tokens those of the whole training.
"""

from typing import NamedTuple

from noiselaw.laws.published import LARGE_RUNS


class KnownModel(NamedTuple):
    """A trained model."""

    name: str
    params: float
    tokens: float
    source: str
    is_diffusion: bool = False


AUTOREGRESSIVE_MODELS = (
    KnownModel("GPT-3", 175e9, 300e9, "arXiv 2005.14165"),
    KnownModel("Gopher", 280e9, 300e9, "arXiv 2112.11446"),
    KnownModel("Chinchilla", 70e9, 1.4e12, "arXiv 2203.15556"),
    KnownModel("PaLM", 540e9, 780e9, "arXiv 2204.02311"),
    KnownModel("Pythia 12B", 12e9, 300e9, "arXiv 2304.01373"),
    KnownModel("LLaMA 65B", 65e9, 1.4e12, "arXiv 2302.13971"),
    KnownModel("Llama 2 70B", 70e9, 2e12, "arXiv 2307.09288"),
    KnownModel("Llama 3.1 405B", 405e9, 15.6e12, "arXiv 2407.21783"),
)
DIFFUSION_MODELS = (
    KnownModel("LLaDA 8B", 8e9, 2.3e12, "arXiv 2502.09992", is_diffusion=True),
    *(KnownModel(run.name, run.params, run.tokens, run.source, is_diffusion=True) for run in LARGE_RUNS),
)
KNOWN_MODELS = (*AUTOREGRESSIVE_MODELS, *DIFFUSION_MODELS)
