"""Exits with one sentence on an unsupported operating system. Import before the other modules."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("fcntl") is None:
    raise SystemExit("Error: camox requires Linux or macOS\nTry:   on Windows, run camox inside WSL 2")
