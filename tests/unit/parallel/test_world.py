"""The world that a process is told of, and what becomes of errors in its collectives."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from camoxpert_cli.errors import PeerLostError
from camoxpert_cli.parallel import world as world_module
from camoxpert_cli.parallel.worker import JOB
from camoxpert_cli.parallel.world import World, expected_size, joined
from camoxpert_cli.signals import interrupt
from tests.helpers.compare import differences

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(("rank", "local_rank", "expected"), [(0, 0, True), (1, 1, False), (2, 0, False)])
def test_who_speaks(rank: int, local_rank: int, expected: bool) -> None:
    """One process of all machines writes files and speaks, not one of each machine."""
    assert World(rank, 4, local_rank, 2).is_main is expected


def test_as_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank and size are those over all machines, the local ones those of this one; so is what torch is told."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(world_module, "end_with_parent", lambda: None)
    store = object()
    monkeypatch.setattr(world_module, "fresh_store", lambda *arguments: told.update(asked=arguments) or store)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: told.update(settings))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: told.update(left=True))
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with joined(timeout=7) as world:
        assert world == World(3, 4, 1, 2, timedelta(seconds=7))
        assert "left" not in told

    assert told == {
        **{"init_method": None, "store": store, "rank": 3, "world_size": 4, "timeout": timedelta(seconds=7)},
        **{"asked": (3, 4, timedelta(seconds=7)), "left": True},
    }


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that a launcher of another program left are not for a process that nobody started as one of several."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    with joined(timeout=7) as world:
        assert world == World()

    assert expected_size() == 1
    monkeypatch.setenv(JOB, "folder/job.json")
    assert expected_size() == 4


# torch's function, the collective that calls it, and what one process alone gets from that.
COLLECTIVES: list[tuple[str, Callable[[World], object], object]] = [
    ("all_reduce", lambda world: world.all_reduce(torch.ones(1)), torch.ones(1)),
    ("all_reduce", lambda world: world.all_reduce_max(torch.full((1,), 2.0)), torch.full((1,), 2.0)),
    ("all_reduce", lambda world: world.require_all(), None),
    ("all_gather_object", lambda world: world.all_gather(3), [3]),
    ("broadcast_object_list", lambda world: world.broadcast(4), 4),
    ("new_group", lambda world: world.group([0]), None),
]


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, call, _ in COLLECTIVES])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[gloo] Timed out waiting 1000ms for recv operation", PeerLostError),
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_what_fails_in_a_collective(
    monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[World], object], said: str, kind: type[Exception]
) -> None:
    """The others are lost, unless it is this process's own GPU: that shows in whatever is called next."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(dist, name, fail)
    with pytest.raises(kind, match=r"Timed out|illegal memory") as caught:
        call(World(0, 2, 0, 2))

    assert type(caught.value) is kind


@pytest.mark.parametrize(("call", "expected"), [(call, expected) for _, call, expected in COLLECTIVES])
def test_one_process_asks_nobody(call: Callable[[World], object], expected: object) -> None:
    """Its collectives return what they got, without a process group."""
    assert differences(call(World()), expected) == []


def test_handlers_after_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals end a process only while it waits for the others; what is ignored is ignored all the time."""
    seen: list[object] = []
    monkeypatch.setattr(world_module, "end_with_parent", lambda: None)
    monkeypatch.setattr(world_module, "fresh_store", lambda *rest: seen.append(handlers()))
    monkeypatch.setattr(dist, "init_process_group", lambda *rest, **settings: seen.append(handlers()))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with joined(timeout=7):
            seen.append(handlers())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert seen == [(signal.SIG_DFL, signal.SIG_IGN)] * 2 + [(interrupt, signal.SIG_IGN)]


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
