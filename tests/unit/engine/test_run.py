"""What a run is made ready with."""

from __future__ import annotations

import pytest

from camoxpert_cli.engine import run


@pytest.mark.parametrize(("asked", "ranks", "warned"), [(4, 1, False), (2, 2, False), (3, 2, True), (5, 1, True)])
def test_more_workers_than_cores(
    asked: int, ranks: int, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many are taken as were asked for, and said to take turns where those of all ranks are more than the cores."""
    monkeypatch.setattr(run, "usable_cores", lambda: 4)

    assert run._choose_workers(asked, ranks) == asked
    assert (f"{asked * ranks} loader workers share" in capsys.readouterr().err) is warned
