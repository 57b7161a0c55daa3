"""The processes that train one network together; with a single process, collectives return their input."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

from camoxpert_cli.errors import PeerLostError, first_line
from camoxpert_cli.parallel.cuda_errors import to_camox_error
from camoxpert_cli.parallel.rendezvous import fresh_store, warn_if_machines_cannot_join
from camoxpert_cli.parallel.worker import (
    is_launched,
    is_worker,
    launcher_lives,
    ranks,
    shared_folder,
    stray,
    world_size,
)
from camoxpert_cli.signals import ASKING, give_back

Item = TypeVar("Item")

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class World:
    """This process's place among all: `rank` of `size` over all machines, `local_rank` of `local_size` on this one.

    Every rank must call the same collectives in the same order. They raise PeerLostError if another rank is lost.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    timeout: timedelta | None = None  # how long a collective waits
    _groups: dict[tuple[int, ...], dist.ProcessGroup | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes files and prints."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place; bitwise identical on each.

        On the CPU and in deterministic training it also does not depend on where in the tensor a value is.
        """
        if self.size > 1:
            with _raising_peer_lost():
                if self._orders(tensor):
                    _add_in_order(tensor, self.size)
                else:
                    dist.all_reduce(tensor)
        return tensor

    def start_all_reduce(self, tensor: Tensor) -> Future[list[Tensor]]:
        """Start `all_reduce`, and return the future of [tensor]; it fails with RuntimeError if another rank is lost.

        On GPUs it does not hold up what the current stream computes.
        """
        if not self._orders(tensor):
            return dist.all_reduce(tensor, async_op=True).get_future()
        done: Future[list[Tensor]] = Future(devices=[tensor.device] if tensor.is_cuda else [])
        done.set_result([self.all_reduce(tensor)])
        return done

    def _orders(self, tensor: Tensor) -> bool:
        """Whether ranks are added one after the other: a ring starts with another rank in each part of a tensor.

        A sum of two is the same in either order.
        """
        return self.size > 2 and (not tensor.is_cuda or torch.are_deterministic_algorithms_enabled())

    def group(self, ranks: Sequence[int]) -> dist.ProcessGroup | None:
        """Return the process group of these ranks, created once; None if they are all ranks, and on other ranks.

        Every rank must call this.
        """
        key = tuple(ranks)
        if len(key) < self.size and key not in self._groups:
            with _raising_peer_lost():
                group = dist.new_group(list(key), timeout=self.timeout)
            self._groups[key] = group if isinstance(group, dist.ProcessGroup) else None
        return self._groups.get(key)

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        """Compute the elementwise maximum over all ranks, in place."""
        if self.size > 1:
            with _raising_peer_lost():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def require_all(self) -> None:
        """Raise PeerLostError unless every rank calls this within the timeout.

        Call it before collectives on GPUs: NCCL's return before a missing rank is detected, and its watchdog then
        aborts the ranks that wait. This one runs on the CPU and does not wait for the GPU.
        """
        self.all_reduce(torch.zeros(1))

    def all_gather(self, item: Item) -> list[Item]:
        """Return the items (picklable objects) of all ranks, in the order of ranks, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with _raising_peer_lost():
            dist.all_gather_object(items, item)
        return items

    def broadcast(self, item: Item) -> Item:
        """Return the item of rank 0 on every rank."""
        if self.size == 1:
            return item
        items = [item]
        with _raising_peer_lost():
            dist.broadcast_object_list(items, src=0)
        return items[0]


def expected_size() -> int:
    """Return the number of processes in this process's world; 1 if it was started on its own."""
    return world_size() if is_worker() else 1


@contextmanager
def joined(timeout: int) -> Iterator[World]:
    """Join the world for which camox or torchrun started this process, and leave it at the end.

    A collective that waits longer than `timeout` seconds for other ranks raises PeerLostError. After an error the
    process is still in the world: it has to exit through `worker.ending_at_once`.
    """
    if not is_worker():
        yield World()
        return
    rank, size, local_rank, local_size = ranks()
    if rank == 0:
        warn_if_machines_cannot_join()
    end_with_parent()
    folder = shared_folder()
    store = None if folder is None else f"file://{folder / 'store'}"
    with member(rank, size, local_rank, local_size, store, timedelta(seconds=timeout)) as world:
        yield world


@contextmanager
def member(
    rank: int, size: int, local_rank: int, local_size: int, store: str | None, timeout: timedelta
) -> Iterator[World]:
    """Join a world of `size` processes that rendezvous at `store`, torch's `init_method`; otherwise as `joined`.

    None is for processes that torchrun started.
    """
    try:
        with _raising_peer_lost(), _hearing_signals():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                init_method=store,
                store=None if store is not None else fresh_store(rank, size, timeout),
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
    except ValueError as error:  # a variable that torch reads itself is not set
        if not is_worker():
            raise
        raise stray(first_line(error)) from error
    yield World(rank, size, local_rank, local_size, timeout)
    # Not after an error: NCCL destroys a group collectively, and would wait for ranks that may never arrive.
    with suppress(RuntimeError):
        dist.destroy_process_group()


def peer_lost(error: RuntimeError) -> PeerLostError:
    """Translate the error of a failed collective."""
    return PeerLostError(
        f"this process lost the connection to the other ranks: {first_line(error)}",
        "check the logs of all ranks; if GPUs cannot access each other, NCCL_P2P_DISABLE=1 may help; see camox guide "
        "troubleshooting",
    )


def _add_in_order(tensor: Tensor, size: int) -> None:
    parts = [torch.empty_like(tensor) for _ in range(size)]
    dist.all_gather(parts, tensor)
    tensor.copy_(parts[0])
    for part in parts[1:]:
        tensor.add_(part)


@contextmanager
def _raising_peer_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if to_camox_error(error) is not None:  # an error of its own GPU, which surfaces in the next call
            raise
        raise peer_lost(error) from error


@contextmanager
def _hearing_signals() -> Iterator[None]:
    """Let signals end this process while it waits in code that runs no Python, with nothing to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    heard = {number: handler for number, handler in before.items() if callable(handler)}  # not what is ignored
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        give_back(heard)


def end_with_parent() -> None:
    """Make the kernel terminate this process when its parent is gone, so that it frees its GPU."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if is_launched() and not launcher_lives():  # it was gone before this process could ask
        raise SystemExit(128 + signal.SIGTERM)
