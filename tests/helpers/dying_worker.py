"""What a trial's process may do instead of measuring: `run_trial` starts this module, and DEATH says what to do.

`hang`, a signal's number, `exit`, or `told` and an exit code; `partner` has rank 1 die of SIGKILL while rank 0 hangs.
"""

from __future__ import annotations

import os
import sys
import time

from camoxpert_cli.parallel.worker import tell_launcher

DEATH = "CAMOX_TEST_DEATH"


def _main() -> None:
    death = os.environ[DEATH]
    if death == "partner":
        death = "9" if os.environ["RANK"] == "1" else "hang"
    if death == "hang":
        time.sleep(600)
    if death.startswith("told"):
        tell_launcher("why", "what helps", "")
        sys.exit(int(death.removeprefix("told")))
    if death == "exit":
        sys.stderr.write("Traceback\nValueError: a bug\n\n")
        sys.exit(1)
    os.kill(os.getpid(), int(death))


if __name__ == "__main__":
    _main()
