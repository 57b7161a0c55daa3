"""Probes as the doctor asks them: an error within one is its answer, in one line."""

from __future__ import annotations

import pytest

from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_probe import ask

PROBES = "camoxpert_cli.doctor.probes"
GENEROUS = 120.0


def test_probe_that_does_not_exist() -> None:
    """An error within a probe is its answer, in one line."""
    assert ask(PROBES, "nonsense", seconds=GENEROUS) == Failure("KeyError: 'nonsense'")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that does not answer is told by name; a switch for being offline counts."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    refused = ask(PROBES, "internet", "5", seconds=GENEROUS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert isinstance(refused, Failure)
    assert refused.why == "http://127.0.0.1:1 does not answer: [Errno 111] Connection refused"
    assert ask(PROBES, "internet", "5", seconds=GENEROUS) == Failure("HF_HUB_OFFLINE is set, so nothing is fetched")
