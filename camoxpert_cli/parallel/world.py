"""The processes that train one network together; collectives of one process alone return their input."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from camoxpert_cli.errors import PeerLostError, first_line
from camoxpert_cli.parallel.cuda_errors import to_camox_error
from camoxpert_cli.parallel.worker import (
    is_launched,
    is_worker,
    launcher_lives,
    ranks,
    shared_folder,
    stray,
    world_size,
)

Item = TypeVar("Item")

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class World:
    """`rank` is 0 ... `size` - 1 over all machines, `local_rank` 0 ... `local_size` - 1 on this one.

    Every rank must call the same collectives in the same order. Where a partner is lost they raise PeerLostError.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    timeout: timedelta | None = None  # how long a collective waits
    _groups: dict[tuple[int, ...], dist.ProcessGroup | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Over all ranks, in place; the same bits on each."""
        if self.size > 1:
            with _raising_peer_lost():
                dist.all_reduce(tensor)
        return tensor

    def group(self, ranks: Sequence[int]) -> dist.ProcessGroup | None:
        """The process group of these ranks, made once; None, which stands for all, where they are, or on other ranks.

        Every rank calls this.
        """
        key = tuple(ranks)
        if len(key) < self.size and key not in self._groups:
            with _raising_peer_lost():
                group = dist.new_group(list(key), timeout=self.timeout)
            self._groups[key] = group if isinstance(group, dist.ProcessGroup) else None
        return self._groups.get(key)

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        """Of each value over all ranks, in place."""
        if self.size > 1:
            with _raising_peer_lost():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def require_all(self) -> None:
        """Raise PeerLostError unless every rank comes here within the timeout.

        To be called before collectives on GPUs: NCCL's return before a rank is missed, and its watchdog then aborts
        those that wait. This one is between the CPUs, and does not wait for the GPU.
        """
        self.all_reduce(torch.zeros(1))

    def all_gather(self, item: Item) -> list[Item]:
        """What each rank gave (what pickle takes), in the order of ranks, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with _raising_peer_lost():
            dist.all_gather_object(items, item)
        return items

    def broadcast(self, item: Item) -> Item:
        """What rank 0 gave."""
        if self.size == 1:
            return item
        items = [item]
        with _raising_peer_lost():
            dist.broadcast_object_list(items, src=0)
        return items[0]


def expected_size() -> int:
    """Processes in the world that this one was started for; 1 where it was started by itself."""
    return world_size() if is_worker() else 1


@contextmanager
def joined(timeout: int) -> Iterator[World]:
    """The world that this process was started for, by camox or torchrun; it is left again at the end.

    A collective for which others keep it waiting longer than `timeout` seconds raises PeerLostError. After an error the
    process is still in the world: it has to end by `worker.ending_at_once`.
    """
    if not is_worker():
        yield World()
        return
    rank, size, local_rank, local_size = ranks()
    end_with_parent()
    folder = shared_folder()
    store = "env://" if folder is None else f"file://{folder / 'store'}"
    with member(rank, size, local_rank, local_size, store, timedelta(seconds=timeout)) as world:
        yield world


@contextmanager
def member(rank: int, size: int, local_rank: int, local_size: int, store: str, timeout: timedelta) -> Iterator[World]:
    """The world of `size` processes that meet at `store`, as torch's `init_method`; for the rest see `joined`."""
    try:
        with _raising_peer_lost():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                init_method=store,
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
    except ValueError as error:  # a variable that torch reads itself is not set
        if not is_worker():
            raise
        raise stray(first_line(error)) from error
    yield World(rank, size, local_rank, local_size, timeout)
    # Not after an error: NCCL destroys a group together, and would wait for ranks that may never come.
    with suppress(RuntimeError):
        dist.destroy_process_group()


def peer_lost(error: RuntimeError) -> PeerLostError:
    """What a collective that failed means."""
    return PeerLostError(
        f"this process lost the others: {first_line(error)}",
        "look into the logs of all ranks; where cards cannot reach each other, NCCL_P2P_DISABLE=1 may help",
    )


@contextmanager
def _raising_peer_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if to_camox_error(error) is not None:  # its own GPU's fault, which shows in whatever is called next
            raise
        raise peer_lost(error) from error


def end_with_parent() -> None:
    """Have the system ask this process to terminate when the one that started it is gone, so that it frees its GPU."""
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if is_launched() and not launcher_lives():  # it went before this process could ask
        raise SystemExit(128 + signal.SIGTERM)
