"""Writing text with a trained model: samplers are functions, grids of noise levels are data, any denoiser will do."""

from noiselaw.sampling.adaptive import adaptive, self_correct
from noiselaw.sampling.ancestral import ancestral
from noiselaw.sampling.autoregressive import autoregressive
from noiselaw.sampling.blockwise import Sampler, blockwise
from noiselaw.sampling.canvas import Canvas
from noiselaw.sampling.denoiser import Denoiser, LogitsDenoiser, OracleDenoiser, TransformerDenoiser
from noiselaw.sampling.filters import GREEDY, NO_FILTERS, Filters
from noiselaw.sampling.grid import GRIDS, cosine_grid, linear_grid
from noiselaw.sampling.steps import Beliefs, Observer, Step

__all__ = [
    "GREEDY",
    "GRIDS",
    "NO_FILTERS",
    "Beliefs",
    "Canvas",
    "Denoiser",
    "Filters",
    "LogitsDenoiser",
    "Observer",
    "OracleDenoiser",
    "Sampler",
    "Step",
    "TransformerDenoiser",
    "adaptive",
    "ancestral",
    "autoregressive",
    "blockwise",
    "cosine_grid",
    "linear_grid",
    "self_correct",
]
