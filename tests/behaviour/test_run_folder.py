"""The run folder's files and lock where processes are started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from camoxpert_cli.run_folder import RunFolder, environment


def test_settings_and_environment(tmp_path: Path) -> None:
    """config.yaml keeps the settings in their order; env.json has command line and versions."""
    settings = {"train": {"lr": 1e-6, "epochs": 3}, "data": {"dataset_path": ["/a", "ß"]}}
    RunFolder(tmp_path).write_settings(settings)
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")

    assert yaml.safe_load(text) == settings
    assert text.index("train") < text.index("lr") < text.index("epochs") < text.index("data")
    assert json.loads((tmp_path / "env.json").read_text(encoding="utf-8")) == environment()
    assert environment()["command"]


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """The workers of a process that was killed live on for seconds, but do not hold the folder."""
    script = f"""
import os, signal, time
from pathlib import Path
from camoxpert_cli.run_folder import RunFolder

with RunFolder(Path({str(tmp_path)!r})).locked():
    if os.fork() == 0:
        time.sleep(60)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        process.wait(timeout=30)
        try:
            with RunFolder(tmp_path).locked():
                pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL


def test_other_ranks_neither_write_nor_lock(tmp_path: Path) -> None:
    """Of several processes that train together one writes; the others may do all it does, and change nothing."""
    other = RunFolder(tmp_path / "run", writes=False)
    other.create()
    assert not other.path.exists()
    other.path.mkdir()
    for name in ("results.json", ".last.pth.tmp00", "metrics.jsonl"):
        (other.path / name).write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in other.path.iterdir()}
    with RunFolder(other.path).locked(), other.locked():
        other.sweep()
        other.require_space(2**60)
        other.write_settings({"train": {}})
        other.write_strategy("{}")
        other.log("step", epoch=1)
        other.go_on_from(0, 0, [], Path("last.pth"))
        other.write_history([{"epoch": 1}])
        other.write_results({})
        other.remove_results()

    assert {path.name: path.read_bytes() for path in other.path.iterdir()} == before
