"""The library that augmentation takes its colours from."""

from __future__ import annotations

import subprocess
import sys


def test_albumentations_does_not_ask_the_network() -> None:
    """Importing the module imports no albumentations, and augmenting does not let it ask the network."""
    script = (
        "import os, socket, sys\n"
        "os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "socket.getaddrinfo = lambda *_, **__: os._exit(9)\n"
        "from camoxpert_cli.data.transforms import Augmentation\n"
        "assert 'albumentations' not in sys.modules\n"
        "Augmentation()\n"
        "assert 'albumentations' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
