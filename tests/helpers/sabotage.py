"""Has one of several processes do something at a certain step; the program itself knows nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

# What Python runs when it starts, where it finds it.
_SITE = """
import os

rank, step, once, action = os.environ["SABOTAGE"].split(":", 3)
if os.environ.get("RANK") == rank and not os.path.exists(once):
    import signal
    from camoxpert_cli.engine import train

    original, steps = train.optimizer_step, 0

    def sabotaged(*arguments):
        global steps
        steps += 1
        if steps == int(step):
            open(once, "w").close()
            exec(action)
        return original(*arguments)

    train.optimizer_step = sabotaged
"""


def sabotage(folder: Path, rank: int, step: int, action: str) -> dict[str, str]:
    """Environment in which process `rank`, before its optimizer step number `step`, runs `action` (Python), once.

    `folder` must not exist.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE)
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])]),
        "SABOTAGE": f"{rank}:{step}:{folder / 'done'}:{action}",
    }


def kill(target: str, number: str) -> str:
    """The action that sends a signal to `target`: "self", "launcher", or "group", the launcher's as a terminal does."""
    return {
        "self": f"os.kill(os.getpid(), signal.{number})",
        "launcher": f"os.kill(os.getppid(), signal.{number})",
        "group": f"os.killpg(os.getpgid(os.getppid()), signal.{number})",
    }[target]
