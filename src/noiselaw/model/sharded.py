"""Parameters of which a process may hold only a part (DTensor), for code that need not know whether they are.

torch's distributed tensors take a second to import, so nothing here does before there is one.
"""

import torch
from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of `tensor`: all of it, unless it is distributed. Differentiable."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


@torch.no_grad()
def fill(parameter: Tensor, whole: Tensor) -> None:
    """Copy `whole`, which has the shape of all of `parameter`, into what this process holds of it. No communication."""
    if hasattr(parameter, "to_local"):
        from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415 (slow to import)

        assert isinstance(parameter, DTensor)
        placements = parameter.placements
        whole = distribute_tensor(whole.to(parameter.device), parameter.device_mesh, placements, src_data_rank=None)
    parameter.copy_(whole)
