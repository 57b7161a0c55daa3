"""Takes a GPU's memory, but for what FOLDER/leave says, so that a large card is a small one.

    python -m tests.gpu.ballast FOLDER

FOLDER/leave holds a number of bytes. It may be written anew: where less is to be left then, more is taken.
FOLDER/left holds the number that was heeded last. Ends when it is killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch


def main() -> None:
    folder = Path(sys.argv[1])
    held = []
    heeded = ""
    while True:
        wanted = (folder / "leave").read_text(encoding="ascii")
        if wanted and wanted != heeded:
            free, _ = torch.cuda.mem_get_info()
            if (size := free - int(wanted)) > 0:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            (folder / "left").write_text(wanted, encoding="ascii")
            heeded = wanted
        time.sleep(0.02)


if __name__ == "__main__":
    main()
