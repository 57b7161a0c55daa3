"""`camox import-labels` in a process of its own, which a signal ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers.label_files import blob, write_coco, write_images
from tests.helpers.processes import camox, finish, start, wait_for


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    """Neither half of the masks nor the folder that it made, and one line that says why it ended."""
    masks = {f"{at:03}.png": blob(0, 600, 800) for at in range(100)}
    images = write_images(tmp_path / "images", masks)
    source = write_coco(tmp_path / "a.json", masks)
    out = tmp_path / "DATA"
    process = start(camox("import-labels", str(source), "--images", str(images), "--out", str(out)))
    wait_for(lambda: any(out.rglob("*.png")), process)
    process.send_signal(number)

    assert finish(process)[0] == code
    assert not out.exists()
