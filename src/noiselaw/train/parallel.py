"""How a model spreads over processes and what its blocks keep: one function over the model, none of it inside it.

After `parallelise` every parameter is a DTensor that knows its whole shape, of which a process holds a shard, and the
forward pass works on plain tensors as before. Shapes: B batch, T positions, V vocabulary, d width.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from noiselaw.model.sharded import local
from noiselaw.model.transformer import Block, Head, RMSNorm, SelfAttention, Transformer
from noiselaw.specs import Recompute, RuntimeSpec

if TYPE_CHECKING:  # torch's distributed tensors take a second to import
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

MESH_AXES = ("replica", "shard", "tensor")
"""Axes of the mesh, slowest first: ranks that share matrices are neighbours."""

Result = TypeVar("Result")


def parallelise(model: Transformer, mesh: "DeviceMesh | None", runtime: RuntimeSpec, dtype: torch.dtype) -> None:
    """Change `model` in place so that the processes of `mesh` share it, as `runtime` says; None is one process.

    The model may be on the meta device: then give it memory with `to_empty` afterwards and fill it. `dtype` is what
    matrix products run in (under autocast): in bfloat16 the blocks' and the head's weights are gathered in it, while
    the parameters themselves, gradients and their sums stay float32. Gradients are sums over ranks, not means.
    """
    if mesh is not None and mesh["tensor"].size() > 1:
        _split_matrices(model, mesh["tensor"])
    for layer in model.model.layers:
        if runtime.parallel.recompute != "none":
            layer.forward = _computed_again(layer.forward, runtime.parallel.recompute)
        if runtime.compile:
            layer.forward = torch.compile(layer.forward)
    if mesh is not None:
        _shard(model, mesh, dtype)


def _computed_again(forward: Callable[..., Tensor], kind: Recompute) -> Callable[..., Tensor]:
    """`forward`, of which the backward pass computes everything again or all but the dearest results."""
    if kind == "full":
        return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    aten = torch.ops.aten
    kept = [
        aten.mm.default,
        aten.addmm.default,
        aten._scaled_dot_product_flash_attention.default,  # noqa: SLF001 (operators have no public name)
        aten._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
        aten._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
        aten._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
    ]
    contexts = partial(create_selective_checkpoint_contexts, kept)
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _shard(model: Transformer, mesh: "DeviceMesh", dtype: torch.dtype) -> None:
    """FSDP2: the embedding, each block, the head, and the rest are gathered when they run and freed afterwards.

    With several replicas (HSDP) each holds the whole model and their gradients are summed.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard  # noqa: PLC0415 (slow to import)

    axes = mesh["replica", "shard"] if mesh["replica"].size() > 1 else mesh["shard"]
    whole = MixedPrecisionPolicy()
    is_low = dtype != torch.float32
    low = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    products = low if is_low else whole
    # The residual stream starts in float32, and the gradient of a frequent token is a long sum.
    embedding = fully_shard(model.model.embed_tokens, mesh=axes, mp_policy=whole)
    for layer in model.model.layers:
        fully_shard(layer, mesh=axes, mp_policy=products)
    # The head's backward pass follows at once.
    splits_head = mesh["tensor"].size() > 1
    head = fully_shard(
        model.lm_head, mesh=axes, reshard_after_forward=False, mp_policy=whole if splits_head else products
    )
    if is_low and not splits_head:
        model.lm_head.register_forward_pre_hook(_float32_gradient)
    fully_shard(model, mesh=axes, mp_policy=whole)
    # Neither gradient depends on the weight: the head's is ready when its forward pass ends.
    embedding.set_unshard_in_backward(False)
    head.set_unshard_in_backward(False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _float32_gradient(head: nn.Module, _arguments: Any) -> None:
    """The gradient of the gathered head is summed over tokens in float32, and so it reaches the sum over ranks."""
    assert isinstance(head, Head)
    head.weight.grad_dtype = torch.float32


def reshard(model: Transformer) -> None:
    """Free what a forward pass without a backward pass left gathered, so that `parameters()` are the shards again."""
    for module in (model, model.lm_head):
        if (free := getattr(module, "reshard", None)) is not None:
            free()


def sum_over_replicas(model: Transformer, *, now: bool) -> None:
    """Whether the next backward pass sums gradients over replicas, those since the last sum included."""
    if (require := getattr(model, "set_requires_all_reduce", None)) is not None:
        require(now)


def _split_matrices(model: Transformer, mesh: "DeviceMesh") -> None:
    """Tensor parallel: every rank of `mesh` has some heads and some of the MLP; what flows between blocks is whole.

    Embedding and head are split by width. Every rank's head works on some of the tokens with the whole weight.
    """
    from torch.distributed.tensor import Replicate, Shard  # noqa: PLC0415 (slow to import)
    from torch.distributed.tensor.parallel import (  # noqa: PLC0415
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    whole = Replicate()
    first = (whole, None, None, None, None)  # the other arguments of attention are left alone
    for layer in model.model.layers:
        assert isinstance(layer, Block)
        plan = {
            "self_attn": PrepareModuleInput(input_layouts=first, desired_input_layouts=first),
            "self_attn.q_proj": ColwiseParallel(),
            "self_attn.k_proj": ColwiseParallel(),
            "self_attn.v_proj": ColwiseParallel(),
            "self_attn.o_proj": RowwiseParallel(),
            "mlp.up_proj": ColwiseParallel(),
            "mlp.down_proj": RowwiseParallel(),
        }
        parallelize_module(layer, mesh, plan)
        _split_heads(layer.self_attn, mesh)
        for norm in (layer.attn_layernorm, layer.mlp_layernorm):
            _distribute(norm, mesh, whole)
    _distribute(model.model.norm, mesh, whole)
    parallelize_module(model.model, mesh, {"embed_tokens": ColwiseParallel(output_layouts=whole)})
    # FSDP's hooks need an output that is not a view.
    model.model.embed_tokens.register_forward_hook(lambda _module, _inputs, output: output.clone())
    _distribute(model.lm_head, mesh, Shard(1))
    model.lm_head.forward = partial(_shared_head, model.lm_head, mesh)


def _split_heads(attention: SelfAttention, mesh: "DeviceMesh") -> None:
    """Each rank computes its own heads; only the norms of queries and keys need all of them."""
    from torch.distributed.tensor import Shard  # noqa: PLC0415 (slow to import)

    num_heads, head_dim = attention.heads
    attention.heads = (num_heads // mesh.size(), head_dim)
    for norm in (attention.q_norm, attention.k_norm):
        width = len(norm.weight)
        _distribute(norm, mesh, Shard(0))
        norm.forward = partial(_split_norm, norm, width, mesh.get_group())
    for name in ("k_bias", "v_bias"):
        if getattr(attention, name) is not None:
            _distribute(attention, mesh, Shard(0), name)


def _distribute(module: nn.Module, mesh: "DeviceMesh", placement: Any, name: str = "weight") -> None:
    """Make the parameter `name` of `module` a DTensor on `mesh`."""
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 (slow to import)

    distributed = distribute_tensor(getattr(module, name).detach(), mesh, [placement], src_data_rank=None)
    module.register_parameter(name, nn.Parameter(distributed))


def _split_norm(norm: RMSNorm, width: int, group: "ProcessGroup", x: Tensor) -> Tensor:
    """RMSNorm over `width` features of which `x` [B, T, d / ranks] are this rank's."""
    dtype = norm.dtype(x.device)
    x = x.to(dtype)
    mean_square = _SumOverRanks.apply(x.square().sum(-1, keepdim=True), group) / width
    return x * torch.rsqrt(mean_square + norm.epsilon) * (1 + local(norm.weight).to(dtype))


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks, whose gradient is the sum of all ranks' gradients: each uses the sum for something else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "ProcessGroup") -> Tensor:
        ctx.group = group
        return _sum_over(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _sum_over(gradient, ctx.group), None


def _sum_over(x: Tensor, group: "ProcessGroup") -> Tensor:
    from torch.distributed import _functional_collectives as collectives  # noqa: PLC0415 (slow to import)

    return collectives.wait_tensor(collectives.all_reduce(x.contiguous(), "sum", group))


def _shared_head(
    head: Head,
    mesh: "DeviceMesh",
    hidden: Tensor,
    operation: Callable[[Tensor, Tensor], Result] = functional.linear,
) -> Result:
    """The head where every rank of `mesh` takes some of the tokens: gradients of both matrices are sums over ranks."""
    from torch.distributed.tensor import DTensor, Partial, Replicate  # noqa: PLC0415 (slow to import)

    assert isinstance(head.weight, DTensor)
    weight = head.weight.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
    hidden = DTensor.from_local(hidden, mesh, [Replicate()]).to_local(grad_placements=[Partial()])
    return operation(hidden, weight)
