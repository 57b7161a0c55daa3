"""Shows that the default run's tests notice mistakes: `python -m tests.mutants`.

Puts each of the listed mistakes into a copy of the package, runs the tests that have to fail because of it, and names
those that nothing noticed. Some four minutes on two cores. A copy is tested in a fork of a process that has torch
loaded, so most mutants take a second or two.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tests.mutants
from tests.helpers.forked import ForkedPopen
from tests.helpers.places import ROOT
from tests.mutants.mutant import Mutant

# A mutant may make its test wait for ever; as a busy machine does too, that counts as not noticed.
_PATIENCE = 90
_FAILED = 1  # pytest's exit code
_OPTIONS = [
    *(
        "-x",
        "-q",
        "--no-header",
        "--no-summary",
        "--tb=line",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ),
    "--no-time-limit",  # a test that is late on a busy machine has noticed nothing
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # what the fork has loaded already
]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: `noticed`, or else what the tests said."""

    noticed: bool
    seconds: float
    said: str


def all_mutants() -> list[Mutant]:
    """Those of every module beside this one."""
    modules = (each.name for each in pkgutil.iter_modules(tests.mutants.__path__))
    rooms = (importlib.import_module(f"tests.mutants.{name}") for name in modules if name.startswith("in_"))
    return [mutant for room in rooms for mutant in room.MUTANTS]


def judge(mutant: Mutant | None, selected: str) -> Verdict:
    """Run the tests on a copy with the mistake in it; None is a copy without one."""
    before = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="camox-mutant-", ignore_cleanup_errors=True) as temporary:
        copy = Path(temporary) / "camox"
        copy.mkdir()
        for name in ("camoxpert_cli", "tests", "presets"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, copy / name)
        if mutant is not None:
            mutant.plant(copy / "camoxpert_cli")
        where = [f"tests/{each}" for each in selected.split()]
        base = f"--basetemp={temporary}/pytest"
        process = ForkedPopen(
            [sys.executable, "-m", "pytest", *_OPTIONS, base, *where],
            cwd=copy,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = f"{process.communicate()[0]}\nnot done within {_PATIENCE} s"
    # Whether a test failed; not where none was run, such as with a mistake that nothing can be imported with.
    return Verdict(process.returncode == _FAILED, time.monotonic() - before, said.strip() or "nothing")


def main() -> None:
    """Exits with 1 where a mutant was not noticed, or where its tests fail without it."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose file or text has one of these words")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--sound", action="store_true", help="run the tests without any mistake too: all have to pass")
    asked = parser.parse_args()
    wanted = [each for each in all_mutants() if not asked.words or any(word in str(each) for word in asked.words)]
    began = time.monotonic()
    survivors = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        if asked.sound:
            places = list(dict.fromkeys(each.tests for each in wanted))
            for place, verdict in zip(places, pool.map(lambda place: judge(None, place), places), strict=True):
                if verdict.noticed or " passed" not in verdict.said.splitlines()[-1]:
                    survivors += 1
                    print(f"FAILS WITHOUT ANY MISTAKE  {place}\n{verdict.said}", flush=True)
        for mutant, verdict in zip(wanted, pool.map(lambda each: judge(each, each.tests), wanted), strict=True):
            print(f"{'noticed ' if verdict.noticed else 'SURVIVED'} {verdict.seconds:5.1f} s  {mutant}", flush=True)
            if not verdict.noticed:
                survivors += 1
                print(f"    {mutant.tests}\n    " + "\n    ".join(verdict.said.splitlines()[-5:]), flush=True)
    print(f"{len(wanted)} mutants in {time.monotonic() - began:.0f} s, {survivors} not noticed")
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
