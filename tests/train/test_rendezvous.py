"""The living processes of a run agree on a name, whatever dead ones have left in the store."""

import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from noiselaw.train.rendezvous import agreed_name

SOON = timedelta(seconds=20)


def agree(store, size, late=()):
    """The names on which threads that stand for ranks agree; those of `late` come after the others have tried."""
    names = {}

    def join(rank):
        time.sleep(0.3 if rank in late else 0)
        names[rank] = agreed_name(store, rank, size, SOON)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(size)]


def test_ranks_agree_and_never_on_a_name_of_the_dead():
    store, earlier = HashStore(), set()
    for late in ((), (0,), (2,), (1, 2), (0, 1)):
        names = agree(store, 3, late)
        assert len(set(names)) == 1
        assert names[0] not in earlier
        earlier.add(names[0])


def test_a_rank_that_never_comes_is_reported():
    with pytest.raises(TimeoutError, match="rank 0 waited"):
        agreed_name(HashStore(), 0, 2, timedelta(seconds=0.1))
