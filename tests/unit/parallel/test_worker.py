"""What a process knows of its launcher."""

from __future__ import annotations

import pytest

from camoxpert_cli.parallel.worker import JOB, is_first


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
