"""What several probes that run together answer; see also `behaviour/launch/test_run_probe.py`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from camoxpert_cli.launch import run_probe
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_probe import ask_together


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (['{"a": 1}', '{"a": 2}'], {"a": 1}),
        (['{"a": 1}', Failure("crashed")], Failure("crashed")),
        ([Failure("stopped because another process failed"), Failure("crashed")], Failure("crashed")),
        (["nothing that is JSON", '{"a": 2}'], Failure("it exited without an answer")),
    ],
)
def test_answers_together(
    monkeypatch: pytest.MonkeyPatch, outputs: Sequence[str | Failure], expected: dict[str, int] | Failure
) -> None:
    """The first one's answer stands for all; where one fails it is why, and not that others ended because of it."""
    monkeypatch.setattr(run_probe, "run_together", lambda *_, **__: list(outputs))

    assert ask_together("a.module", [["0"], ["1"]], seconds=1) == expected
