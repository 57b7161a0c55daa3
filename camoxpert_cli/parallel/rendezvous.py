"""The store in which processes started by torchrun find each other, also after it has restarted them."""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

_POLL_SECONDS = 0.05


def fresh_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return a store for the `size` processes that torchrun has just started, without anything of earlier ones.

    torchrun keeps one store over all restarts, with the addresses of processes that were killed. Its own count of
    restarts does not tell them apart, since each agent counts for itself. Raises RuntimeError if a process is missing
    after `timeout`, ValueError if torchrun's environment variables are incomplete.
    """
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timeout))
    store.set_timeout(timeout)
    return dist.PrefixStore(_agree_on_name(store, rank, size, timeout), store)


def _agree_on_name(store: dist.Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name that contains a random number of every rank, once all ranks have found the same one.

    A rank that reads the number of a killed process finds a name that no other rank finds, and reads again.
    """
    numbers = [f"camox/{each}" for each in range(size)]
    store.set(numbers[rank], secrets.token_hex(16))
    name, there = "", 0
    end = time.monotonic() + timeout.total_seconds()
    while there < size:
        if time.monotonic() > end:
            raise RuntimeError(f"{max(there, 1)} of {size} processes joined within {timeout.total_seconds():g} s")
        # In Python, and not in a call that waits in the store, so that a signal is heard.
        if store.check(numbers):
            found = hashlib.sha256(b" ".join(store.multi_get(numbers))).hexdigest()
            there = store.add(found, int(found != name))
            name = found
        if there < size:
            time.sleep(_POLL_SECONDS)
    return name
