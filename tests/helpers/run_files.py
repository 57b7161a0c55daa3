"""Reads the files of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camoxpert_cli.run_folder import RunFolder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def events(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == kind]
