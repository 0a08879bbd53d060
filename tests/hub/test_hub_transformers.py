"""The Auto classes of whichever transformers is installed give our own model's logits, without remote code."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

import noiselaw.hub.transformers  # noqa: F401
from noiselaw import hub
from noiselaw.model import Attention

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM])
@torch.no_grad()
def test_exported_folder(exported, auto):
    loaded = hub.load(exported)
    assert AutoConfig.from_pretrained(exported).vocab_size == loaded.vocab_size
    model = auto.from_pretrained(exported)
    ids = torch.randint(0, loaded.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    attention = Attention.causal() if loaded.process is None else Attention.full()
    expected = loaded.model.logits(loaded.model(ids, attention))
    assert torch.equal(model(ids).logits, expected)
    assert expected.abs().max() > 0
    with pytest.raises(ValueError, match="labels: no loss is computed here"):
        model(ids, labels=ids)


@torch.no_grad()
def test_saved_again_it_still_loads_here(exported, tmp_path):
    AutoModel.from_pretrained(exported).save_pretrained(tmp_path)
    for kept in {"tokenizer.json", "token_frequencies.npy"} & {item.name for item in exported.iterdir()}:
        shutil.copy(exported / kept, tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, hub.load(tmp_path).model.state_dict()[name])


def test_tokenizer(exported):
    loaded, tokenizer = hub.load(exported), AutoTokenizer.from_pretrained(exported)
    for text in ("alpha noise", "a <|mask|> in text is text", "größer\n  数"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == loaded.encode(text)
        assert tokenizer.decode(loaded.encode(text)) == text
    assert tokenizer.mask_token_id == loaded.mask_id
    assert tokenizer.eos_token_id == loaded.text_tokenizer().end_of_text_id


@pytest.mark.parametrize("name", ["gidd_tiny", "gidd_tiny_nobias"])
@torch.no_grad()
def test_published_folder(reference_dir, name):
    inputs = np.load(reference_dir / "gidd_tiny" / "inputs.npz")
    expected = np.load(reference_dir / name / "expected.npz")
    model = AutoModel.from_pretrained(reference_dir / name)
    ids = torch.from_numpy(inputs["input_ids"])
    np.testing.assert_allclose(model(ids).logits, expected["none/logits"], rtol=0, atol=5e-5)
    padded = model(ids, attention_mask=torch.from_numpy(inputs["mask_2d"]))
    np.testing.assert_allclose(padded.logits, expected["mask_2d/logits"], rtol=0, atol=5e-5)
