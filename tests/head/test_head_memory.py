"""What the chunked head does not do: hold all logits, send dead tokens through, form gradients nobody asked for."""

from functools import partial

import pytest
import torch
from headcases import make_targets, product_case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from noiselaw.head import reference_loss, vocabulary_loss

VOCAB_SIZE, CHUNK_TOKENS, WIDTH = 4096, 8, 4
PRODUCTS = ("addmm", "mm")


class Recorder(TorchDispatchMode):
    """Elements of every fresh tensor that operators return, and the shapes of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[int] = []
        self.products: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {part.untyped_storage().data_ptr() for part in (*args, *kwargs.values()) if isinstance(part, Tensor)}
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in given:
            self.allocated.append(result.numel())
        if func.overloadpacket.__name__ in PRODUCTS:
            self.products.append(tuple(result.shape))
        return result


def record(noise: str, num_tokens: int, function) -> Recorder:
    case = product_case(noise, torch.linspace(-9, 9, num_tokens), vocab_size=VOCAB_SIZE, width=WIDTH).to(torch.float32)
    case.targets.weight.fill_(1.0)
    with Recorder() as recorder:
        function(case.hidden, case.weight, case.multiplier, case.targets).loss.backward()
    return recorder


def chunked(hidden, weight, multiplier, targets, kernel="auto"):
    return vocabulary_loss(hidden, weight, multiplier, targets, CHUNK_TOKENS, kernel=kernel)


@pytest.mark.parametrize("noise", ["balanced", "unigram", "masked", "autoregressive"])
def test_memory_does_not_grow_with_the_tokens(noise: str, kernel: str):
    """One [chunk, V] tensor, at most three without the native kernel; nothing larger, however many tokens there are."""
    num_large = {"balanced": 2, "unigram": 3}.get(noise, 1) if kernel == "torch" else 1
    chunk_elements = CHUNK_TOKENS * VOCAB_SIZE
    few, many = (record(noise, num, partial(chunked, kernel=kernel)).allocated for num in (64, 256))
    for allocated in (few, many):
        large = [elements for elements in allocated if elements > VOCAB_SIZE * WIDTH]
        assert max(large) == chunk_elements
        assert len(large) == num_large
    assert max(record(noise, 256, reference_loss).allocated) >= 128 * VOCAB_SIZE, "the recorder must see full logits"


def test_only_one_gradient_of_the_head_is_ever_alive():
    """Backward scales the one that forward made; a large vocabulary's is as large as a chunk of logits."""
    allocated = record("balanced", 256, chunked).allocated
    assert allocated.count(VOCAB_SIZE * WIDTH) == 1


def test_masked_noise_sends_only_masked_tokens_through_the_head():
    targets = make_targets("masked", VOCAB_SIZE, torch.linspace(-9, 9, 256))
    num_masked = int((targets.noisy == targets.mask_id).sum())
    assert 0 < num_masked < 256
    logits = [shape for shape in record("masked", 256, chunked).products if shape[1] == VOCAB_SIZE]
    assert sum(rows for rows, _ in logits) == num_masked


@pytest.mark.parametrize("noise", ["balanced", "autoregressive"])
def test_no_gradient_work_without_gradients(noise: str):
    case = product_case(noise, torch.linspace(-9, 9, 64), vocab_size=VOCAB_SIZE, width=WIDTH).to(torch.float32)
    with torch.no_grad(), Recorder() as recorder:
        result = chunked(case.hidden, case.weight, case.multiplier, case.targets)
    assert {shape[1] for shape in recorder.products} == {VOCAB_SIZE}, "only the products that give logits"
    assert not result.loss.requires_grad
    assert torch.equal(result.loss, chunked(case.hidden, case.weight, case.multiplier, case.targets).loss.detach())
