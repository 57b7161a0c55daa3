from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from camoxpert_cli import atomic

OLD, NEW = b"old content", b"new content, of another length"


def test_killed_while_writing(tmp_path: Path) -> None:
    """A process killed in the middle leaves the old file and a temporary one, which does not outlive the next sweep."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    script = f"""
import sys, time
from pathlib import Path
from camoxpert_cli import atomic

with atomic.replacing(Path({str(path)!r})) as temporary:
    temporary.write_bytes({NEW!r} * 1000)
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        code = process.wait(timeout=30)

    assert (said, code) == ("writing\n", -signal.SIGKILL)
    assert path.read_bytes() == OLD
    atomic.write_text(path, "next")
    assert len(list(tmp_path.iterdir())) == 2
    atomic.sweep(path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"next"}
