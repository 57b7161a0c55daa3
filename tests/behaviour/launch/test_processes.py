"""Child processes as such: how long they are waited for, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.launch.processes import ChildProcesses, ending_them, last_lines, python
from camoxpert_cli.parallel.worker import PEER_LOST
from tests.helpers.forked import RealPopen
from tests.helpers.places import PACKAGE

GRACE = 1.0
PATIENCE = 2.0


class Clock:
    """Time that passes where somebody sleeps; `at_each` is called with the seconds that have passed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at_each: Callable[[float], None] = lambda now: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.at_each(self.now)
        time.sleep(0.001)  # the others' turn


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def children(tmp_path: Path, clock: Clock) -> Iterator[ChildProcesses]:
    started = ChildProcesses(tmp_path, grace=GRACE, clock=clock, sleep=clock.sleep)
    yield started
    started.kill()


def start(children: ChildProcesses, code: str, *, output: bool = False) -> None:
    children.start([sys.executable, "-S", "-c", code], dict(os.environ), output=output)


def start_sleeping(children: ChildProcesses) -> None:
    """One that does not end by itself. It is no Python, which would be here late."""
    children.start(["sleep", "600"], dict(os.environ))


def wait_for(children: ChildProcesses, codes: list[int | None]) -> None:
    """Until processes that end by themselves have."""
    end = time.monotonic() + 60
    while children.codes != codes:
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@pytest.mark.parametrize("pace", [1, -1])
def test_signs_of_life(children: ChildProcesses, clock: Clock, pace: int) -> None:
    """Who touches its file again and again is waited for; patience with a silent one counts from its last sign.

    Also where the machine's clock is set back meanwhile.
    """
    start_sleeping(children)

    def touch(now: float) -> None:
        if now < 3:
            os.utime(alive, (1000 + pace * now,) * 2)

    alive = children.folder / "alive0"
    alive.touch()
    os.utime(alive, (1000, 1000))
    clock.at_each = touch

    assert not children.wait(PATIENCE)
    assert clock.now == pytest.approx(3 + PATIENCE, abs=0.2)
    assert children.codes == [None]
    children.kill()
    assert children.codes == [-signal.SIGKILL]


def test_hurried(children: ChildProcesses, clock: Clock) -> None:
    """Whoever is in a hurry waits for the grace alone, though none has failed."""
    start_sleeping(children)
    children.is_hurried = True

    assert children.wait()
    assert clock.now == pytest.approx(GRACE, abs=0.2)
    assert children.codes == [None]
    assert children.cause() is None


def test_who_was_asked_to_end(children: ChildProcesses, clock: Clock) -> None:
    """It has failed, and the others have their grace; where its exit code is called well they are waited for."""
    start(children, "raise SystemExit(143)")
    start_sleeping(children)
    wait_for(children, [143, None])

    assert children.wait(PATIENCE)
    assert clock.now == pytest.approx(GRACE, abs=0.2)
    assert not children.wait(PATIENCE, well=(0, 143))
    assert clock.now == pytest.approx(GRACE + PATIENCE, abs=0.4)


def test_what_they_write(children: ChildProcesses) -> None:
    """All of it is in the log, but for what is printed where that is kept apart."""
    code = "import sys; print('printed', flush=True); sys.stderr.write('said\\n\\n')"
    start(children, code)
    start(children, code, output=True)

    assert children.wait()
    assert children.log(0).read_text() == "printed\nsaid\n\n"
    assert [children.output(1).read_text(), children.log(1).read_text()] == ["printed\n", "said\n\n"]
    assert [last_lines(children.log(0)), last_lines(children.log(0), 9)] == ["said", "printed\nsaid"]
    assert last_lines(children.output(0)) == ""


def test_the_cause(children: ChildProcesses) -> None:
    """Of all that have ended badly by then: the one that was aborted, and not the one that lost it."""
    start(children, f"raise SystemExit({PEER_LOST})")
    start(children, "import os; os.abort()")
    start(children, "pass")
    start_sleeping(children)
    wait_for(children, [PEER_LOST, -signal.SIGABRT, 0, None])
    cause = children.cause()

    assert cause is not None
    assert (cause.rank, cause.code) == (1, -signal.SIGABRT)


def test_a_program_that_is_not_there(children: ChildProcesses) -> None:
    """The system's own error is raised, and there is nothing to wait for."""
    with pytest.raises(FileNotFoundError):
        children.start(["/nowhere/nvidia-smi"], {})

    assert children.codes == []


@pytest.mark.parametrize("path", [None, "", os.pathsep, f"/nowhere{os.pathsep}"])
def test_what_lies_in_the_current_folder(
    children: ChildProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """It is nobody's module: a file of such a name is data, and the package is the very one that runs here.

    Neither the process nor one that it starts imports it, whatever PYTHONPATH leaves open.
    """
    folder = tmp_path / "hostile"
    for name in ("camoxpert_cli", "torch", "typer", "json", "runpy", "sitecustomize", "usercustomize"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('ran what lies here')")
    asks = "import sys, json; sys.stdout.write(json.__file__)"
    tells = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asks!r}], check=True)"
    (tmp_path / "telling.py").write_text(
        "import sys, camoxpert_cli; from camoxpert_cli import errors\n"
        f"print(errors.__file__, sys.argv[1:], __name__, flush=True)\n{tells}"
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(subprocess, "Popen", RealPopen)  # a fork has loaded all that already
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{path}"
        children.start(python("telling", "an", "argument"), environment)
    else:
        children.start(python("camoxpert_cli.errors", "an", "argument"), environment)

    assert children.wait()
    assert children.codes == [0], children.log(0).read_text()
    if path is not None:
        own, stdlib = children.log(0).read_text().splitlines()
        assert own == f"{PACKAGE / 'errors.py'} ['an', 'argument'] __main__"
        assert not Path(stdlib).is_relative_to(tmp_path)


def test_threads_that_wait(tmp_path: Path) -> None:
    """Who is asked to end meanwhile is not kept waiting: their processes are killed."""
    children = ChildProcesses(tmp_path)
    children.start(["sleep", "10"], dict(os.environ))
    with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as pool, ending_them(pool):  # noqa: PT012
        waiting = pool.submit(children.wait)
        later = pool.submit(children.wait)
        raise KeyboardInterrupt

    assert waiting.result()
    assert later.cancelled()
    assert children.codes == [-signal.SIGKILL]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_interrupted_before_anybody_listens(handler: Any) -> None:
    """Ctrl-C while modules are imported ends a process without their traceback, and is ignored in a background job."""
    asks = "import signal; print(signal.getsignal(signal.SIGINT).name)"
    before = signal.signal(signal.SIGINT, handler)
    try:
        command = python("timeit", "-n1", "-r1", asks)
        said = RealPopen(command, stdout=subprocess.PIPE, text=True).communicate(timeout=60)[0]
    finally:
        signal.signal(signal.SIGINT, before)

    assert said.split()[0] == ("SIG_IGN" if handler is signal.SIG_IGN else "SIG_DFL")
