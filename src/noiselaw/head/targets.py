"""What the vocabulary head is asked to predict, and what it answers.

Shapes: N tokens, n of them that carry loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from noiselaw.noise.mixing import Mixing


@dataclass(frozen=True, slots=True, eq=False)
class TokenTargets:
    """N tokens, flattened over sequences: the truth, what the model saw of it, and how much each counts.

    The weight w_λ(z, x) of the bound is not part of `weight`: the loss forms it from `mixing`, because at z = x it must
    enter as exp(log w + d) (spec section 11). `weight` is what training adds to it: 1 or 1/p(λ), 0 for prompts.
    """

    clean: Tensor
    """x: int64 [N] ids to predict; never the mask."""
    noisy: Tensor
    """z: int64 [N] ids the model saw in their place. Ignored without a mixing."""
    log_snr: Tensor
    """λ: [N]. Ignored without a mixing."""
    weight: Tensor
    """Non-negative multiplier of each token's bound term w (KL + IS), [N]; tokens with 0 never go through the head."""
    mixing: Mixing | None
    """The noise whose bound is the loss; None for plain cross-entropy."""
    mask_id: int
    """The token the model can never predict."""
    live: Tensor | None = None
    """What `live_tokens` would find, int64 [n], where the caller knows it already."""

    def __post_init__(self) -> None:
        num_tokens = len(self.clean)
        for part in (self.clean, self.noisy, self.log_snr, self.weight):
            assert part.shape == (num_tokens,), f"token targets must be flat and equally long, got {tuple(part.shape)}"
        assert self.mixing is None or self.mixing.mask_id == self.mask_id

    @property
    def has_swaps(self) -> bool:
        """Whether noise can turn a token into another one, so that the loss needs a second sum over the vocabulary."""
        return self.mixing is not None and not self.mixing.is_masked

    def live_tokens(self) -> Tensor:
        """Indices of the tokens that carry loss, [n]: weight above 0 and, under pure masking, masked.

        On a GPU this waits for the device, because n must be known on the host, unless `live` was given.
        """
        if self.live is not None:
            return self.live
        live = self.weight > 0
        if self.mixing is not None and self.mixing.is_masked:
            live = live & (self.noisy == self.mask_id)
        return live.nonzero().squeeze(-1)

    def at(self, index: Tensor | slice) -> "TokenTargets":
        """The tokens at `index`."""
        parts = (self.clean, self.noisy, self.log_snr, self.weight)
        return TokenTargets(*(part[index] for part in parts), mixing=self.mixing, mask_id=self.mask_id)


def statistics_dtype(matrix: Tensor) -> torch.dtype:
    """What softmax, sums and accumulated gradients are formed in beside products in the dtype of `matrix`."""
    return torch.float64 if matrix.dtype == torch.float64 else torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class HeadLoss:
    """The loss of N tokens in nats. Only `loss` is differentiable; the others are [N], 0 at tokens without loss."""

    loss: Tensor
    """Sum over tokens of weight * integrand, a scalar."""
    kl: Tensor
    """KL(q ‖ p) over the vocabulary; without a mixing the cross-entropy."""
    itakura_saito: Tensor
    """q(z)/p(z) - log(q(z)/p(z)) - 1 at the observed token."""
    integrand: Tensor
    """w_λ(z, x) (KL + IS), the integrand of the bound before `weight`."""
