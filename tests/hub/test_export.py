"""Exported folders: the same logits, whole or not at all, and one clear line for whatever is wrong."""

import json
import sys
from importlib import import_module

import pytest
import torch
from safetensors.torch import load_file

from noiselaw import hub
from noiselaw.hub.weights import WeightsError


@torch.no_grad()
def logits(loaded, ids):
    return loaded.model.logits(loaded.model(ids))


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 4_000])
def test_an_export_gives_the_same_logits_noise_and_tokens(run, tmp_path, shard_bytes):
    hub.export_run(run, tmp_path / "out", shard_bytes=shard_bytes)
    assert (tmp_path / "out" / "model.safetensors").exists() == (shard_bytes > 4_000)
    before, after = hub.load_model(run), hub.load(tmp_path / "out")
    ids = torch.randint(0, before.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits(before, ids), logits(after, ids))
    assert before.noise_name == after.noise_name
    assert before.encode("alpha noise") == after.encode("alpha noise")
    assert (after.step, after.mask_id, after.sequence_length) == (4, before.mask_id, 16)
    if before.process is not None:
        level = torch.tensor(0.3)
        assert torch.equal(before.process.mixing.pi(level), after.process.mixing.pi(level))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "held-out loss" in card
    assert "4 of 4 steps, 256 tokens" in card
    assert str(run) not in card


def test_export_refuses_what_it_would_destroy(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty"):
        hub.export_run(run, tmp_path / "out")
    with pytest.raises(ValueError, match="is no run folder"):
        hub.export_run(tmp_path / "out", tmp_path / "new")
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config.update(model_type="bert"), "model_type is 'bert'"),
        (lambda config: config.pop("noiselaw"), "lacks the settings"),
        (lambda config: config["noiselaw"].update(mask_id=9999), "mask_id 9999 is no token"),
        (lambda config: config["noiselaw"]["model"].update(num_layers=10**9), "calls for 1000000000 layers"),
        (lambda config: config["noiselaw"]["model"].update(width=10**10), r"calls for \[\d+, 10000000000\]"),
        (lambda config: config["noiselaw"].update(vocab_size=10**6), "1000000 tokens"),
    ],
)
def test_a_wrong_config_is_named(run, tmp_path, damage, message):
    hub.export_run(run, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    damage(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        hub.load(tmp_path / "out")


def test_an_index_cannot_name_files_elsewhere(run, tmp_path):
    out = tmp_path / "out"
    hub.export_run(run, out, shard_bytes=4_000)
    index = out / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"]))
    for place in ("../out/model-00001-of-00009.safetensors", "weights.bin", 3):
        index.write_text(json.dumps(content | {"weight_map": content["weight_map"] | {first: place}}))
        with pytest.raises(WeightsError, match=r"only \.safetensors files beside the index"):
            hub.load(out)
    shard = out / content["weight_map"][first]
    assert load_file(shard)
    index.write_text(json.dumps(content))
    shard.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        hub.load(out)


def test_without_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "noiselaw.hub.transformers", raising=False)
    with pytest.raises(ImportError, match="pip install transformers"):
        import_module("noiselaw.hub.transformers")
