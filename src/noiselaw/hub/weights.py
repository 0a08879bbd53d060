"""A model's weights as safetensors: one file, or several with the standard index. Nothing is unpickled or executed.

Files come from anywhere, so nothing they say is believed before it is checked against the model that config.json
describes, and no model is built that is larger than the file.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from noiselaw.files import read_json, write_atomically, write_json
from noiselaw.model.transformer import Transformer
from noiselaw.specs import ModelSpec

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""Weights beyond this are cut into several files."""


class WeightsError(ValueError):
    """Weights that cannot be loaded: names the file, the fault and the remedy."""


def load_transformer(folder: Path, spec: ModelSpec, vocab_size: int) -> Transformer:
    """The model of that shape with the weights in `folder`, in float32 on the CPU.

    Raises WeightsError when they are missing, damaged, or those of another model.
    """
    tensors = read_weights(folder)
    if spec.num_layers > len(tensors):  # before a model is built that config.json may have made absurdly large
        raise WeightsError(f"{folder}: config.json calls for {spec.num_layers} layers of {len(tensors)} tensors in all")
    _check_shapes(folder, tensors, {"model.embed_tokens.weight": torch.Size([vocab_size, spec.width])})
    with torch.device("meta"):
        model = Transformer(spec, vocab_size)
    _check_shapes(folder, tensors, {name: tensor.shape for name, tensor in model.state_dict().items()})
    if unknown := sorted(tensors.keys() - model.state_dict().keys()):
        raise WeightsError(f"{folder}: has {len(unknown)} tensors config.json does not know, first {unknown[0]!r}")
    model.load_state_dict(tensors, assign=True)
    return model


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the weights in `folder`, as float32 whatever their precision there. Raises WeightsError."""
    if (folder / WEIGHTS_NAME).is_file():
        return _read_file(folder / WEIGHTS_NAME)
    if not (folder / INDEX_NAME).is_file():
        raise WeightsError(f"{folder / WEIGHTS_NAME}: no such file, nor {INDEX_NAME}; fetch the weights")
    weight_map = _read_index(folder / INDEX_NAME)
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        part = _read_file(folder / file)
        listed = {name for name, place in weight_map.items() if place == file}
        if listed != part.keys():
            odd = min(listed ^ part.keys())
            raise WeightsError(f"{folder / file}: differs from {INDEX_NAME}, first at {odd!r}; fetch both again")
        tensors |= part
    return tensors


def write_weights(folder: Path, tensors: dict[str, Tensor], shard_bytes: int = SHARD_BYTES) -> None:
    """Write `tensors` into `folder`: one file, or several of at most `shard_bytes` (or one tensor) with their index."""
    shards = _cut(tensors, shard_bytes)
    names = [WEIGHTS_NAME]
    if len(shards) > 1:
        names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})
    for name, shard in zip(names, shards, strict=True):
        content = save(shard, {"format": "pt"})
        write_atomically(folder / name, lambda stream, content=content: stream.write(content))


def _cut(tensors: dict[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        filled += tensor.nbytes
    return shards


def _read_index(path: Path) -> dict[str, str]:
    """{tensor: file}, all of them files beside the index."""
    content = read_json(path)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: has no weight_map from tensors to files; fetch it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise WeightsError(f"{path}: {name!r} lies in {file!r}; only .safetensors files beside the index are read")
    return weight_map


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; fetch it again")
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: _as_float32(path, name, stream.get_tensor(name)) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: damaged ({error}); fetch it again") from error


def _as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise WeightsError(f"{path}: tensor {name!r} holds {tensor.dtype}; quantised weights are not supported")
    return tensor.float()


def _check_shapes(folder: Path, tensors: dict[str, Tensor], expected: dict[str, torch.Size]) -> None:
    if missing := sorted(expected.keys() - tensors.keys()):
        raise WeightsError(f"{folder}: lacks {len(missing)} tensors config.json calls for, first {missing[0]!r}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            found, wanted = list(tensors[name].shape), list(shape)
            raise WeightsError(f"{folder}: tensor {name!r} has shape {found}, config.json calls for {wanted}")
