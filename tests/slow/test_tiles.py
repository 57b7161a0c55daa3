"""The memory that a large image takes."""

from __future__ import annotations

from pathlib import Path

import cv2

from tests.helpers.image_files import scene, write
from tests.helpers.places import ROOT
from tests.helpers.processes import camox, run
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

# Runs camox, then says how many kB this process ever held.
_MEASURED = """
import re, sys
from pathlib import Path
from camoxpert_cli import app

sys.argv = ["camox", *{arguments!r}]
try:
    app.main()
finally:
    print("most:", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], flush=True)
"""


def most_memory(*arguments: str) -> int:
    """Bytes."""
    code, output = run([camox()[0], "-c", _MEASURED.format(arguments=arguments)], PYTHONPATH=str(ROOT))
    assert code == 0, output
    return 1024 * int(output.rpartition("most: ")[2])


def test_an_image_of_64_million_pixels(tiny_data: Path, tmp_path: Path) -> None:
    """With an overlay and two views, it takes less than 1.5 GB more than a small one; 1.05 GB were measured."""
    checkpoint = write_vivid_checkpoint(vivid_network(tiny_data), tmp_path / "best.pth")
    small, large = write(tmp_path / "small.png", scene(0, 80, 80)), tmp_path / "large.png"
    write(large, cv2.resize(scene(0, 2000, 2000), (8000, 8000)))
    flags = ["--overlay", "--tta", "flip", "--tiles", "1024", "--device", "cpu"]
    least, most = (
        most_memory("predict", str(checkpoint), str(image), "--out", str(tmp_path / image.stem), *flags)
        for image in (small, large)
    )

    assert most - least < 1.5e9
    map_ = cv2.imread(str(tmp_path / "large" / "large.png"), cv2.IMREAD_UNCHANGED)
    assert map_ is not None
    assert map_.shape == (8000, 8000)
    assert (tmp_path / "large" / "overlays" / "large.jpg").exists()
