"""How the processes of a run find each other, also after some were killed and torchrun started all of them again.

torchrun's store outlives its workers (pytorch issue 135712): whoever reads in it too early finds the addresses of the
dead. Its count of restarts is each machine's own and no help. So the ranks first agree on a name that none of the dead
knew, and everything after that is stored under this name. In the store: `hello/RANK` what each living process drew for
itself, `roster` what rank 0 last read of these and the name that goes with it, `seen/RANK` the name under which that
rank has found itself, `go` the name once all have.
"""

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]  (documented)
from torch.distributed.rendezvous import rendezvous

POLL_SECONDS = 0.02


def fresh_store(timeout: timedelta) -> tuple[Store, int, int]:
    """A store that only the living processes of this run use, this process's rank, and the number of ranks.

    Raises TimeoutError where not all of them come.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    return PrefixStore(agreed_name(store, rank, size, timeout), store), rank, size


def agreed_name(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name on which the living processes of ranks 0 to size - 1 agree, whatever dead ones have left in `store`."""
    deadline = time.monotonic() + timeout.total_seconds()
    own = uuid.uuid4().hex
    store.set(f"hello/{rank}", own)
    name, roster = "", {}
    while True:
        if rank == 0:
            hellos = {str(other): _value(store, f"hello/{other}") for other in range(size)}
            if hellos != roster:
                name, roster = uuid.uuid4().hex, hellos
                store.set("roster", json.dumps({"name": name, "hellos": hellos}))
            if all(_value(store, f"seen/{other}") == name for other in range(1, size)):
                store.set("go", name)
                return name
        else:
            found = json.loads(_value(store, "roster") or '{"hellos": {}}')
            if found["hellos"].get(str(rank)) == own:
                if found["name"] != name:
                    name = found["name"]
                    store.set(f"seen/{rank}", name)
                if _value(store, "go") == name:
                    return name
        if time.monotonic() > deadline:
            raise TimeoutError(f"rank {rank} waited {timeout} for the other processes of the run; are all started?")
        time.sleep(POLL_SECONDS)


def _value(store: Store, key: str) -> str:
    """What stands under `key`, "" where nothing does yet."""
    return store.get(key).decode() if store.check([key]) else ""
