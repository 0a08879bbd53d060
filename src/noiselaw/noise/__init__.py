"""The noise process and the bound on the likelihood: pure mathematics, no training."""

from noiselaw.noise.elbo import (
    WEIGHTINGS,
    BoundTerms,
    Divergences,
    bound_weight,
    divergences,
    log_bound_weight,
    prior_divergence,
    reconstruction_loss,
)
from noiselaw.noise.mixing import HybridMixing, Mixing
from noiselaw.noise.oracle import Denoiser, Oracle
from noiselaw.noise.process import NoiseProcess, build_process
from noiselaw.noise.rate import (
    alpha,
    log_snr_density,
    log_snr_from_time,
    one_minus_alpha,
    sample_log_snr,
    time_from_log_snr,
)

__all__ = [
    "WEIGHTINGS",
    "BoundTerms",
    "Denoiser",
    "Divergences",
    "HybridMixing",
    "Mixing",
    "NoiseProcess",
    "Oracle",
    "alpha",
    "bound_weight",
    "build_process",
    "divergences",
    "log_bound_weight",
    "log_snr_density",
    "log_snr_from_time",
    "one_minus_alpha",
    "prior_divergence",
    "reconstruction_loss",
    "sample_log_snr",
    "time_from_log_snr",
]
