"""Python programs that these tests start, and those that such a program starts, are forks: see `helpers.forked`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers.forked import ForkedPopen


@pytest.fixture(autouse=True, scope="module")
def _forked_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", ForkedPopen)
        yield
