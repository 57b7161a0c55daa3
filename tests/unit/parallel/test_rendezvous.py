"""How processes that torchrun has restarted tell each other from those that it started before."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from camoxpert_cli.parallel import rendezvous
from camoxpert_cli.parallel.rendezvous import agree_on_name, warn_if_machines_cannot_join

SECONDS = 60.0
# torch documents it, and leaves it out of its annotations.
store_in_memory: Callable[[], Store] = dist.__dict__["HashStore"]


def agreed(store: Store, size: int, order: list[int] | None = None) -> set[str]:
    """The names that ranks arrive at which come in this order, each when the one before waits for the others."""
    with ThreadPoolExecutor(size) as pool:
        waiting = []
        for rank in order or range(size):
            waiting.append(pool.submit(agree_on_name, store, rank, size, SECONDS))
            time.sleep(3 * rendezvous._POLL_SECONDS)
        return {each.result() for each in waiting}


def test_no_name_is_used_twice() -> None:
    """Whoever comes first after a restart finds the numbers of killed processes, and waits for the new ones."""
    store = store_in_memory()
    names = [agreed(store, 2, order) for order in ([0, 1], [0, 1], [1, 0])]

    assert [len(each) for each in names] == [1, 1, 1]
    assert len(set().union(*names)) == 3


def test_another_number_of_processes() -> None:
    """Of a machine that has gone, or came in addition, there are numbers of an earlier round, or none."""
    store = store_in_memory()
    names = [agreed(store, size) for size in (2, 1, 3)]

    assert [len(each) for each in names] == [1, 1, 1]
    assert len(set().union(*names)) == 3


def test_killed_before_all_had_come() -> None:
    """The number of a rank for which nobody waits any more does not count in the next round."""
    store = store_in_memory()
    with pytest.raises(RuntimeError, match="not all 2 processes joined within 0 s"):
        agree_on_name(store, 1, 2, 0.0)

    assert len(agreed(store, 2)) == 1


AGENTS = {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}


@pytest.mark.parametrize(
    ("changed", "warns"),
    [
        ({}, True),
        ({"TORCHELASTIC_USE_AGENT_STORE": "False"}, False),
        ({"GROUP_WORLD_SIZE": "1"}, False),
        ({"TORCHELASTIC_MAX_RESTARTS": "0"}, False),
        (dict.fromkeys(AGENTS), False),
    ],
)
def test_machines_that_cannot_join(
    changed: dict[str, str | None],
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message names the variable that helps, if several machines may restart and it is not set."""
    for name, value in {**AGENTS, **changed}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    warn_if_machines_cannot_join()

    assert ("export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in " ".join(capsys.readouterr().err.split())) == warns
