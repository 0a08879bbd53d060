"""The compiled kernel for logits on a CPU: one call per chunk does everything, closed forms included.

Shapes: n tokens, C tokens of one chunk, V vocabulary.
"""

import ctypes

import torch
from torch import Tensor

from noiselaw.head.closedform import TokenLosses
from noiselaw.head.library import Library
from noiselaw.head.rarity import Rarity
from noiselaw.head.targets import TokenTargets, statistics_dtype

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
CROSS_ENTROPY, MASKED, SWAPS = 0, 1, 2


class Job(ctypes.Structure):
    """What `noiselaw_head` in kernel.cpp is given: its struct of the same name, field by field."""

    _fields_ = (
        ("logits", ctypes.c_void_p),  # [C, V]; the gradient afterwards
        ("dtype", ctypes.c_int64),  # of the logits, as in DTYPES
        ("num_tokens", ctypes.c_int64),
        ("vocab_size", ctypes.c_int64),
        ("mask_id", ctypes.c_int64),
        ("clean", ctypes.c_void_p),  # int64 [C]
        ("noisy", ctypes.c_void_p),  # int64 [C]
        ("log_snr", ctypes.c_void_p),  # float64 [C]
        ("weight", ctypes.c_void_p),  # float64 [C]
        ("noise", ctypes.c_int64),  # CROSS_ENTROPY, MASKED or SWAPS
        ("share_logit", ctypes.c_void_p),  # the logit of the share of swaps, float64 [C]; null without swaps
        ("share_slope", ctypes.c_void_p),  # its derivative by the log-SNR, alike
        ("log_reference", ctypes.c_void_p),  # log ρ, float64 [V]; null where it is uniform, as the next two
        ("reference", ctypes.c_void_p),  # ρ [V] in the dtype of the statistics
        ("rarity", ctypes.c_void_p),  # of `Rarity`, alike
        ("log_highest", ctypes.c_double),
        ("max_log_ratio", ctypes.c_double),
        ("multiplier", ctypes.c_double),
        ("wants_gradient", ctypes.c_int64),
        ("num_threads", ctypes.c_int64),
        ("kl", ctypes.c_void_p),  # float64 [C], as the next two
        ("itakura_saito", ctypes.c_void_p),
        ("integrand", ctypes.c_void_p),
    )


class NativeKernel:
    """Calls `noiselaw_head` for each chunk."""

    def __init__(
        self, library: Library, targets: TokenTargets, multiplier: float, logits: Tensor, wants_gradient: bool
    ) -> None:
        """For tokens on the device of `logits` [C, V], a CPU."""
        self._function = library.functions.noiselaw_head
        mixing, rarity = targets.mixing, Rarity.of(targets.mixing, logits.device, statistics_dtype(logits))
        log_reference = None if rarity.probs is None or mixing is None else mixing.reference_probs().log()
        # Rows of the job's pointers; kept here because the job holds addresses only.
        self._inputs = {
            "clean": targets.clean.contiguous(),
            "noisy": targets.noisy.contiguous(),
            "log_snr": targets.log_snr.double().contiguous(),
            "weight": targets.weight.double().contiguous(),
        }
        if mixing is not None and targets.has_swaps:
            levels = self._inputs["log_snr"]
            self._inputs["share_logit"] = mixing.share_logit(levels).contiguous()
            self._inputs["share_slope"] = mixing.share_logit_slope(levels).contiguous()
        self._tables = {"log_reference": log_reference, "reference": rarity.probs, "rarity": rarity.rarity}
        parts = torch.empty(3, len(targets.clean), dtype=torch.float64)
        self._losses = TokenLosses(*parts)
        self._job = Job(
            dtype=DTYPES[logits.dtype],
            vocab_size=logits.shape[1],
            mask_id=targets.mask_id,
            noise=CROSS_ENTROPY if mixing is None else MASKED if mixing.is_masked else SWAPS,
            log_highest=rarity.log_highest,
            max_log_ratio=rarity.max_log_ratio,
            multiplier=multiplier,
            wants_gradient=wants_gradient,
            num_threads=torch.get_num_threads(),
            **{name: None if table is None else table.data_ptr() for name, table in self._tables.items()},
        )

    def process(self, logits: Tensor, rows: slice) -> None:
        job = self._job
        job.logits, job.num_tokens = logits.data_ptr(), len(logits)
        outputs = {name: getattr(self._losses, name) for name in ("kl", "itakura_saito", "integrand")}
        for name, values in (self._inputs | outputs).items():
            setattr(job, name, values.data_ptr() + rows.start * values.element_size())
        if self._function(ctypes.byref(job)):
            raise IndexError(f"a token id is outside the vocabulary of {logits.shape[1]} tokens")

    def losses(self) -> TokenLosses:
        return self._losses
