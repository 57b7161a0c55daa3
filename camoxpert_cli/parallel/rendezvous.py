"""The store in which processes started by torchrun find each other, also after it has restarted them."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from camoxpert_cli import console

_POLL_SECONDS = 0.05


def fresh_store(rank: int, size: int, timeout: timedelta) -> Store:
    """Return a store for the `size` processes that torchrun has just started, empty at first.

    torchrun keeps one store over all restarts (pytorch/pytorch issues 135712 and 167288): it still contains addresses
    of processes that were killed, and each agent counts its restarts separately. Raises RuntimeError if a process is
    missing after `timeout`, ValueError if torchrun's environment variables are incomplete.
    """
    store, _, _ = next(rendezvous("env://", rank, size, timeout=timeout))
    store.set_timeout(timeout)
    return PrefixStore(agree_on_name(store, rank, size, timeout.total_seconds()), store)


def agree_on_name(store: Store, rank: int, size: int, seconds: float) -> str:
    """Return a name that `size` ranks agree on, and that no earlier processes used. Raises as `fresh_store`.

    It depends on a random number of every rank. A rank that has read the number of a killed process arrives at a name
    at which no other rank arrives, and reads again.
    """
    numbers = [f"camox/{each}" for each in range(size)]
    store.set(numbers[rank], secrets.token_hex(16))
    name, there, end = "", 0, time.monotonic() + seconds
    while there < size:
        if store.check(numbers):
            found = hashlib.sha256(b" ".join(store.multi_get(numbers))).hexdigest()
            there = store.add(found, int(found != name))
            name = found
        if there < size and time.monotonic() > end:
            raise RuntimeError(f"not all {size} processes joined within {seconds:g} s")
        if there < size:
            time.sleep(_POLL_SECONDS)
    return name


def warn_if_machines_cannot_join() -> None:
    """Warn if torchrun may restart the workers of several machines, but not with a machine that joins later.

    A new agent then waits for a key that the others do not write again, until torchrun fails on all machines.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    machines, restarts = (os.environ.get(name, "0") for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"))
    if shared and machines not in ("0", "1") and restarts != "0":
        console.warn(
            "torchrun fails on all machines if one joins later or comes back, unless this is set on each of them "
            "before torchrun starts: export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )
