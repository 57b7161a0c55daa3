"""Runs a function in several processes that train together, as the launcher would start them."""

from __future__ import annotations

import faulthandler
import importlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from camoxpert_cli.parallel.worker import ending_at_once, shared_folder, worker_environment, write_job
from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT

TIMEOUT = 180


def in_ranks(
    count: int, function: Callable[..., Any], *arguments: Any, interpreters: Collection[int] = ()
) -> list[Any]:
    """What `function(world, *arguments)`, at the top of a test module, returns on each of `count` ranks.

    Forks put sets of strings in the same order, as `interpreters` of their own do not: the ranks that shall be that.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_job(folder)
        (folder / "arguments").write_bytes(pickle.dumps(arguments))
        processes = []
        for rank in range(count):
            environment = worker_environment(folder, rank, count, threads=1)
            command = [sys.executable, "-m", "tests.helpers.ranks", function.__module__, function.__name__]
            kind = RealPopen if rank in interpreters else subprocess.Popen
            processes.append(
                kind(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        outputs = []
        try:
            outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for process, output in zip(processes, outputs, strict=True):
            assert process.returncode == 0, output
        return [pickle.loads((folder / f"result{rank}").read_bytes()) for rank in range(count)]  # noqa: S301


def _main() -> None:
    from camoxpert_cli.parallel.world import joined

    faulthandler.enable()  # says where, if a library aborts
    folder = shared_folder()
    assert folder is not None
    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    arguments = pickle.loads((folder / "arguments").read_bytes())  # noqa: S301  # of the test itself
    with joined(timeout=TIMEOUT) as world:
        result = function(world, *arguments)
    (folder / f"result{world.rank}").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    with ending_at_once():
        _main()
