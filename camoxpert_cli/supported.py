"""Ends a command with one sentence where the system lacks what the others need. To be imported before them."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("fcntl") is None:
    raise SystemExit("Error: camox runs on Linux and macOS\nTry:   on Windows, camox within WSL 2, which is a Linux")
