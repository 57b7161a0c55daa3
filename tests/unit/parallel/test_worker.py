"""What a process knows of its launcher."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from camoxpert_cli.parallel.worker import JOB, ONE_MACHINE, is_first, worker_environment


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, False),
        ({JOB: "folder", "RANK": "0"}, False),
        ({JOB: "folder", "RANK": "1"}, False),
    ],
)
def test_who_speaks_before_a_run(variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that the user started, or rank 0 under torchrun; not the workers of a launcher that spoke already."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_first() is first


def test_the_interface_of_one_machine() -> None:
    """It has one of that name, whatever its system calls it."""
    assert ONE_MACHINE["GLOO_SOCKET_IFNAME"] in [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize(
    ("name", "ours"), [("GLOO_SOCKET_IFNAME", ONE_MACHINE["GLOO_SOCKET_IFNAME"]), ("OMP_NUM_THREADS", "3")]
)
def test_what_the_user_set_goes_before(name: str, ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has the user's own variables; what camox would choose is for where there is none."""
    monkeypatch.delenv(name, raising=False)
    assert worker_environment(tmp_path, 1, 2, threads=3)[name] == ours
    monkeypatch.setenv(name, "7")
    assert worker_environment(tmp_path, 1, 2, threads=3)[name] == "7"
