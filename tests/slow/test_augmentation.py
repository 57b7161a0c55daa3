"""The library that augmentation takes its colours from."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers.forked import RealPopen

# A fork would have loaded libraries before.


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
    command = [sys.executable, "-W", "error", "-c", script]
    with RealPopen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _, errors = process.communicate()

    assert process.returncode == 0, errors
