"""LaProp: normalise the gradient by the root of its second moment first, then average (spec section 5).

With g the gradient, eta the learning rate, t = 1, 2, ... the step and b_t = 1 - (1 - b) / (1 - b^t) either beta
debiased as a running average (b_1 = 0: the first average is the first value):

    v = b2_t v + (1 - b2_t) g^2
    m = b1_t m + (1 - b1_t) g / (sqrt(v) + epsilon)
    p = p - eta (m + weight_decay p)

Ziyin, Wang, Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", arXiv 2002.04839.
"""

# pyright: reportPrivateImportUsage=false
# torch marks its list operations with an underscore, yet documents them and builds its own optimisers on them.

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from noiselaw.model.sharded import local


class LaProp(Optimizer):
    """LaProp with decoupled weight decay.

    The state is at least float32 whatever the parameters' dtype, and the update is computed in it. Unlike Adam's, the
    momentum is a running average of normalised gradients, so a gradient's share in later updates never depends on the
    gradients that follow it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
    ) -> None:
        """Raises ValueError for values outside their range; betas lie in [0, 1)."""
        if min(lr, eps, weight_decay) < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"LaProp: lr {lr}, eps {eps}, weight_decay {weight_decay} must be >= 0 and betas {betas} in [0, 1)"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient; `closure` as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, params in self._by_step(group["params"]).items():
                self._update(params, step, group)
        return loss

    def _by_step(self, params: list[Tensor]) -> dict[int, list[Tensor]]:
        """Parameters with a gradient by the number of this update: one list, unless some lacked gradients before."""
        lists: defaultdict[int, list[Tensor]] = defaultdict(list)
        for param in params:
            if param.grad is None:
                continue
            state = self.state[param]
            if not state:
                dtype = _state_dtype(param)
                state["step"] = 0
                state["momentum"] = torch.zeros_like(param, dtype=dtype)
                state["second_moment"] = torch.zeros_like(param, dtype=dtype)
            state["step"] += 1
            lists[state["step"]].append(param)
        return lists

    def _update(self, params: list[Tensor], step: int, group: dict[str, Any]) -> None:
        beta1, beta2 = (1 - (1 - beta) / (1 - beta**step) for beta in group["betas"])
        # Element by element: of distributed tensors every process updates what it holds, be it nothing.
        momenta = [local(self.state[param]["momentum"]) for param in params]
        seconds = [local(self.state[param]["second_moment"]) for param in params]
        # For parameters as precise as their state, `to` returns the tensors themselves.
        values = [local(param).to(_state_dtype(param)) for param in params]
        grads = [local(param.grad).to(_state_dtype(param)) for param in params if param.grad is not None]

        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, grads, grads, 1 - beta2)
        roots = torch._foreach_sqrt(seconds)  # noqa: SLF001 (the public name of torch's fused list operations)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_mul_(momenta, beta1)
        torch._foreach_addcdiv_(momenta, grads, roots, 1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(values, momenta, alpha=-group["lr"])
        for param, value in zip(params, values, strict=True):
            if value.dtype != param.dtype:
                local(param).copy_(value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but the state keeps its precision: torch would cast it to the parameters' dtype."""
        super().load_state_dict(state_dict)
        order = [param for group in self.param_groups for param in group["params"]]
        for index, saved in state_dict["state"].items():
            state = self.state[order[index]]
            for key in ("momentum", "second_moment"):
                state[key] = saved[key].to(device=order[index].device, dtype=_state_dtype(order[index]), copy=True)


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.promote_types(param.dtype, torch.float32)
