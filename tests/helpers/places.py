"""Where the repository is, and the material that lies beside it on some machines and never in it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "camoxpert_cli"
PRESETS = ROOT / "presets"
README = ROOT / "README.md"
SHARED = ROOT.parent / "shared"
SHARED_DATA = SHARED / "data"
COMPAT = SHARED / "compat"
