"""Write text with any Hugging Face masked language model: python examples/hf_masked_lm.py FOLDER "a prompt"

A masked LM is a denoiser for masked noise: it predicts the clean token at every masked position. All that noiselaw's
samplers ask for is a function from ids and an attention structure to logits.
"""

import sys

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from noiselaw.model import Attention
from noiselaw.noise import HybridMixing, NoiseProcess
from noiselaw.sampling import Canvas, LogitsDenoiser, ancestral, cosine_grid


def as_denoiser(model: PreTrainedModel) -> LogitsDenoiser:
    """The masked LM as samplers see it. It sees the whole text whatever the prompt, but nothing behind a text's end."""

    def predict(ids: Tensor, attention: Attention) -> Tensor:
        ends = attention.ends
        exists = None if ends is None else torch.arange(ids.shape[1]) < ends[:, None]
        return model(input_ids=ids, attention_mask=exists).logits

    return LogitsDenoiser(predict)


def write(model: PreTrainedModel, mask_id: int, prompt: list[int], length: int, *, steps: int, seed: int) -> Tensor:
    """Continue `prompt` to `length` tokens: ids [1, length]."""
    process = NoiseProcess(HybridMixing(model.config.vocab_size, mask_id, shift=-torch.inf), -9.0, 9.0)
    canvas = Canvas.from_prompts([prompt], length)
    generator = torch.Generator().manual_seed(seed)
    return ancestral(as_denoiser(model), process, canvas, cosine_grid(process, steps), generator=generator)


if __name__ == "__main__":
    folder, text = sys.argv[1:]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    print(tokenizer.decode(write(model, tokenizer.mask_token_id, prompt, len(prompt) + 32, steps=32, seed=0)[0]))
