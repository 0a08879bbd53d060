"""Published checkpoints: the golden logits, and one clear error for each thing that can be wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from noiselaw.hub.gidd import GiddFormatError, load_gidd, read_config, read_noise
from noiselaw.hub.loading import load_model
from noiselaw.hub.weights import WeightsError, write_weights
from noiselaw.model import transformer
from noiselaw.model.attention import Attention, attend
from noiselaw.sampling import Canvas, LogitsDenoiser, blockwise, cosine_grid

MASK_CASES = ["none", "mask_2d", "mask_3d_block", "mask_3d_causal_prompt", "short_none", "short_pos_offset"]


@pytest.fixture(params=["gidd_tiny", "gidd_tiny_nobias"])
def checkpoint(request, reference_dir):
    return reference_dir / request.param


@pytest.fixture
def inputs(reference_dir):
    with np.load(reference_dir / "gidd_tiny" / "inputs.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture
def copied(tmp_path, reference_dir):
    """A checkpoint that a test may damage."""
    return shutil.copytree(reference_dir / "gidd_tiny", tmp_path / "checkpoint")


def call_arguments(case, inputs):
    attention = {
        "mask_2d": Attention.keys(inputs["mask_2d"]),
        "mask_3d_block": Attention.prompt(inputs["prompt_lens"]),
        "mask_3d_causal_prompt": Attention.matrix(inputs["mask_3d_causal_prompt"]),
    }.get(case, Attention.full())
    ids = inputs["input_ids_short" if case.startswith("short") else "input_ids"]
    positions = torch.arange(9, 22) if case == "short_pos_offset" else None
    return ids, attention, positions


@pytest.mark.parametrize("case", MASK_CASES)
@torch.no_grad()
def test_logits_match_the_published_model(checkpoint, inputs, case):
    model = load_gidd(checkpoint)
    logits = model.logits(model(*call_arguments(case, inputs)))
    expected = np.load(checkpoint / "expected.npz")[f"{case}/logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("case", ["none", "mask_3d_block"])
@torch.no_grad()
def test_every_layer_matches_the_published_model(checkpoint, inputs, case):
    model = load_gidd(checkpoint)
    found = {}

    def keep(name):
        return lambda _module, _inputs, output: found.update({f"{case}/{name}": output})

    model.model.embed_tokens.register_forward_hook(keep("embed"))
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(keep(f"layer{index}_out"))
        layer.self_attn.register_forward_hook(keep(f"layer{index}_attn_out"))
    found[f"{case}/final_norm"] = model(*call_arguments(case, inputs))

    expected = np.load(checkpoint / "expected.npz")
    names = [name for name in expected.files if name.startswith(f"{case}/") and name in found]
    assert len(names) == {"none": 8, "mask_3d_block": 5}[case]
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2e-5, err_msg=name)


@torch.no_grad()
def test_attention_probabilities_match_the_published_model(checkpoint, inputs, monkeypatch):
    """`attend` weighs unit vectors as values, so its output is the probabilities themselves."""
    model = load_gidd(checkpoint)
    calls = []

    def spy(query, key, value, bias, soft_cap):
        calls.append((query, key, bias, soft_cap))
        return attend(query, key, value, bias, soft_cap)

    monkeypatch.setattr(transformer, "attend", spy)
    model(*call_arguments("mask_3d_block", inputs))
    expected = np.load(checkpoint / "expected.npz")
    names = [name for name in expected.files if "attn_probs" in name]
    assert names
    for name in names:
        query, key, bias, soft_cap = calls[int(name[-1])]
        unit_values = torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1)
        probabilities = attend(query, key, unit_values, bias, soft_cap)
        np.testing.assert_allclose(probabilities, expected[name], rtol=0, atol=2e-6, err_msg=name)


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True; only False"),
        ({"weight_scaling": "fan_in"}, "weight_scaling is 'fan_in'; only 1.0"),
        ({"use_qk_norm": False}, "use_qk_norm is False"),
        ({"is_causal": True}, "is_causal is True"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"intermediate_size": 128}, "intermediate_size is 128; only 256"),
        ({"head_dim": 32}, "head_dim is 32; only 16"),
        ({"num_attention_heads": 5}, "width 64 must be an even multiple of num_heads 5"),
        ({"hidden_size": "wide"}, "width"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"rms_norm_eps": "absent"}, "lacks rms_norm_eps"),
        ({"vocab_size": 98}, r"shape \[97, 64\], config.json calls for \[98, 64\]"),
        ({"attention_bias": False}, "has 6 tensors config.json does not know, first 'model.layers.0.self_attn.k_bias'"),
        ({"num_hidden_layers": 4}, "lacks 14 tensors config.json calls for, first 'model.layers.3.attn_layernorm"),
    ],
)
def test_refuses_a_configuration_it_cannot_honour(copied, changes, message):
    edit_config(copied, **changes)
    with pytest.raises(ValueError, match=message):
        load_gidd(copied)


def test_missing_files_are_named(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file"):
        load_gidd(copied)
    (copied / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        load_gidd(copied)


def test_truncated_weights_are_refused(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_gidd(copied)


def test_configuration_that_is_no_mapping_is_refused(copied):
    (copied / "config.json").write_text("[]")
    with pytest.raises(GiddFormatError, match="lacks attention_bias"):
        load_gidd(copied)


def test_bfloat16_weights_load_as_float32(copied):
    path = copied / "model.safetensors"
    halved = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(halved, path)
    model = load_gidd(copied)
    for name, parameter in model.named_parameters():
        assert parameter.dtype is torch.float32
        assert parameter.requires_grad
        assert torch.equal(parameter, halved[name].float()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_shards_of_any_precision_load_as_one_file(copied, dtype):
    path = copied / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    path.unlink()
    write_weights(copied, tensors, shard_bytes=100_000)
    assert len(list(copied.glob("*.safetensors"))) > 3
    for name, tensor in load_gidd(copied).state_dict().items():
        assert torch.equal(tensor, tensors[name].float()), name


def test_integer_weights_are_refused(copied):
    path = copied / "model.safetensors"
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(WeightsError, match="quantised"):
        load_gidd(copied)


@pytest.mark.parametrize("name", ["gidd_tiny", "gidd_tiny_nobias"])
def test_blockwise_writing_from_a_published_folder_is_the_same_with_and_without_cache(reference_dir, name):
    loaded = load_model(reference_dir / name)
    canvas = Canvas.from_prompts([[5, 6, 7], [9]], 24)

    def written(denoiser):
        grid = cosine_grid(loaded.process, 6)
        generator = torch.Generator().manual_seed(0)
        return blockwise(denoiser, loaded.process, canvas, grid, block_length=8, generator=generator)

    uncached = LogitsDenoiser(lambda ids, attention: loaded.model.logits(loaded.model(ids, attention)))
    assert torch.equal(written(loaded.denoiser), written(uncached))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_configuration_makes_it_fail_otherwise_than_by_a_clear_error(reference_dir, tmp_path, data):
    config = json.loads((reference_dir / "gidd_tiny" / "config.json").read_text())
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[name] = data.draw(SCALARS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    messages = []
    for read in (read_config, lambda path: read_noise(path, None)):
        try:
            read(path)
        except ValueError as error:
            messages.append(str(error))
    assert all("config.json" in message for message in messages)
