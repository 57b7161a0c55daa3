"""What the doctor asks of this machine, in processes of its own: an error within one is its answer."""

from __future__ import annotations

import json

import pytest
import torch

from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_probe import ask
from tests.unit.commands.test_doctor import run, without_gpu

PROBES = "camoxpert_cli.doctor.probes"
GENEROUS = 120.0


@without_gpu
def test_this_machine_as_json() -> None:
    """The same in JSON, with the raw readings, and a preset's own findings."""
    outcome = run("--json", "--preset", "kaggle-2xT4")

    assert outcome.exit_code == 5
    content = json.loads(outcome.stdout)
    assert content["usable"] is False
    assert content["preset"] == "kaggle-2xT4"
    assert content["recommended"]["preset"] == "quickstart"
    assert content["readings"]["torch"]["version"] == torch.__version__
    assert content["readings"]["network"]["parameters"] > 10_000_000
    by_name = {each["name"]: each for each in content["findings"]}
    assert by_name["GPU memory"]["status"] == "skipped"
    assert by_name["packages"]["status"] == "ok"
    assert set(by_name["disk"]) == {"name", "status", "ran", "result", "advice", "command"}


def test_probe_that_does_not_exist() -> None:
    """An error within a probe is its answer, in one line."""
    assert ask(PROBES, "nonsense", seconds=GENEROUS) == Failure("KeyError: 'nonsense'")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that does not answer is told by name; a switch for being offline counts."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    refused = ask(PROBES, "internet", "5", seconds=GENEROUS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert isinstance(refused, Failure)
    assert refused.why == "http://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused"
    assert ask(PROBES, "internet", "5", seconds=GENEROUS) == Failure("HF_HUB_OFFLINE is set, so nothing is downloaded")
