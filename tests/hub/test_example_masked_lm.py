"""examples/hf_masked_lm.py on a small random BERT."""

import runpy
from pathlib import Path

import pytest
import torch
import transformers

EXAMPLE = Path(__file__).parents[2] / "examples" / "hf_masked_lm.py"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_masked_language_model_writes():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.BertForMaskedLM(config).eval()
    example = runpy.run_path(str(EXAMPLE))
    first = example["write"](model, 4, [7, 8, 9], 20, steps=8, seed=0)
    assert first[0, :3].tolist() == [7, 8, 9]
    assert not (first == 4).any()
    assert torch.equal(first, example["write"](model, 4, [7, 8, 9], 20, steps=8, seed=0))
    assert not torch.equal(first, example["write"](model, 4, [7, 8, 9], 20, steps=8, seed=1))
