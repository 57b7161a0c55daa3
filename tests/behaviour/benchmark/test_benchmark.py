"""`camox benchmark` with a trial that really trains."""

from __future__ import annotations

import pytest

from tests.unit.commands.test_benchmark import SMALL, run


def test_generated_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data images are generated, which is said; the default is one process where there is no GPU."""
    monkeypatch.setattr("camoxpert_cli.benchmark.benchmark._GENERATED", 2)
    outcome = run(*SMALL.split(), "--steps", 1, "--repeats", 1)

    assert outcome.exit_code == 0, outcome.output
    text = " ".join(outcome.stdout.split())
    assert (
        "4040 training images per epoch, 404 for validation; no dataset was given, so this is extrapolated from 2 "
        "generated JPEGs"
    ) in text
    assert "single, 1 process, stage 2" in text
    assert "ddp" not in text
    assert max(map(len, outcome.stdout.splitlines())) <= 80
