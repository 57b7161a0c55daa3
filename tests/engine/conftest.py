from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.engine.train import train
from camoxpert_cli.runs import RunFolder
from tests.helpers.tiny_data import tiny_run


@pytest.fixture(scope="session")
def plain_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of a finished run with the settings of `tiny_run`. Read it, but change nothing in it."""
    return train(tiny_run(tiny_data, tmp_path_factory.mktemp("plain") / "run"))
