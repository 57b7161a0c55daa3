"""Has one of several processes do something at a certain step; the program itself knows nothing of it."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.at_start import at_start

# What every process runs when it starts.
_SITE = """
import os

rank, step, once, action = os.environ["SABOTAGE"].split(":", 3)
if os.environ.get("RANK") == rank and not os.path.exists(once):
    import signal
    from camoxpert_cli.engine import training_steps

    original, steps = training_steps.optimizer_step, 0

    def sabotaged(*arguments):
        global steps
        steps += 1
        if steps == int(step):
            open(once, "w").close()
            arguments[0].saver.wait()  # so that what is on the disk does not depend on how fast it is
            exec(action)
        return original(*arguments)

    training_steps.optimizer_step = sabotaged
"""


def sabotage(folder: Path, rank: int, step: int, action: str, before: str = "") -> dict[str, str]:
    """Environment in which process `rank`, before its optimizer step number `step`, runs `action` (Python), once.

    What it has saved is on the disk by then. Every process runs `before` when it starts. `folder`, which must not
    exist, has a file `done` from the action on.
    """
    return {**at_start(folder, before + _SITE), "SABOTAGE": f"{rank}:{step}:{folder / 'done'}:{action}"}


def kill(target: str, number: str) -> str:
    """The action that sends a signal to `target`: "self", "launcher", or "group", the launcher's as a terminal does."""
    return {
        "self": f"os.kill(os.getpid(), signal.{number})",
        "launcher": f"os.kill(os.getppid(), signal.{number})",
        "group": f"os.killpg(os.getpgid(os.getppid()), signal.{number})",
    }[target]
