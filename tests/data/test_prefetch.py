"""Batches read ahead are the same batches; the thread stops, and what goes wrong in it is told."""

import threading

import pytest
import torch

from noiselaw.data.loader import TokenLoader
from noiselaw.data.prefetch import Prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_same_batches_bit_for_bit(ahead: int, data):
    loader = TokenLoader(data.split("train"), 16, 8, seed=5)
    steps = [0, 1, 2, 3, 7, 8, 2, 3, 4]  # a resumed run starts anywhere, a measurement may go back
    with Prefetch(loader.batch, ahead) as batches:
        for step in steps:
            assert batches.batch(step).equal(loader.batch(step))
        assert bool(threads()) == (ahead > 0)
        assert batches.waited_seconds > 0
    assert not threads()


def test_reads_ahead_and_no_further():
    read, may_read = [], threading.Semaphore(5)
    five_read = threading.Event()

    def batch(step: int) -> torch.Tensor:
        may_read.acquire()
        read.append(step)
        if len(read) == 5:
            five_read.set()
        return torch.tensor([step])

    batches = Prefetch(batch, 3)
    assert int(batches.batch(10)) == 10
    assert five_read.wait(60)  # one taken, three ready, one in hand: no sixth is begun, or stopping would hang below
    assert read == [10, 11, 12, 13, 14]
    batches.close()
    assert not threads()


def test_what_goes_wrong_is_raised_where_the_batch_is_asked_for(data):
    loader = TokenLoader(data.split("train"), 16, 8, seed=5)

    def batch(step: int) -> torch.Tensor:
        if step == 2:
            raise ValueError("train-00001.bin: holds token 300")
        return loader.batch(step)

    with Prefetch(batch, 2) as batches:
        assert batches.batch(0).equal(loader.batch(0))
        assert batches.batch(1).equal(loader.batch(1))
        for _ in range(2):
            with pytest.raises(ValueError, match=r"train-00001.bin: holds token 300"):
                batches.batch(2)
        assert batches.batch(3).equal(loader.batch(3))
    assert not threads()
