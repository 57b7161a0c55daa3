"""Child processes as such: how long they are waited for, and which of them the others failed because of."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from camoxpert_cli.errors import DeviceError, TrainingError
from camoxpert_cli.launch.processes import ABORTED, BadEnd, ChildProcesses, Failure, last_lines
from camoxpert_cli.parallel.worker import PEER_LOST


@pytest.fixture
def children(tmp_path: Path) -> Iterator[ChildProcesses]:
    started = ChildProcesses(tmp_path)
    yield started
    started.kill()


def start(children: ChildProcesses, code: str, *, output: bool = False) -> None:
    program = f"import os, sys, time\nfrom pathlib import Path\n{code}"
    children.start([sys.executable, "-S", "-c", program], {**os.environ, "HERE": str(children.folder)}, output=output)


def test_signs_of_life(children: ChildProcesses) -> None:
    """Who touches its file again and again is waited for longer than somebody who is silent."""
    start(children, "for _ in range(30): Path(os.environ['HERE'], 'alive0').touch(); time.sleep(0.1)")
    assert children.wait(1.5)
    start(children, "time.sleep(60)")

    assert not children.wait(0.3)
    assert children.codes == [0, None]
    children.kill()
    assert children.codes == [0, -signal.SIGKILL]


def test_hurried(children: ChildProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in a hurry waits for the grace alone, though none has failed."""
    monkeypatch.setattr("camoxpert_cli.launch.processes.GRACE_SECONDS", 0.1)
    start(children, "time.sleep(60)")
    children.is_hurried = True

    assert children.wait()
    assert children.codes == [None]
    assert children.cause() is None


def test_who_was_asked_to_end(children: ChildProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has failed, unless that exit code is called well: then the others are waited for."""
    monkeypatch.setattr("camoxpert_cli.launch.processes.GRACE_SECONDS", 0.1)
    start(children, "sys.exit(143)")
    start(children, "time.sleep(60)")

    assert children.wait(30)
    assert children.codes == [143, None]
    assert not children.wait(0.3, well=(0, 143))


def test_what_they_write(children: ChildProcesses) -> None:
    """All of it is in the log, but for what is printed where that is kept apart."""
    code = "print('printed', flush=True); sys.stderr.write('said\\n\\n')"
    start(children, code)
    start(children, code, output=True)

    assert children.wait()
    assert children.log(0).read_text() == "printed\nsaid\n\n"
    assert [children.output(1).read_text(), children.log(1).read_text()] == ["printed\n", "said\n\n"]
    assert [last_lines(children.log(0)), last_lines(children.log(0), 9)] == ["said", "printed\nsaid"]
    assert last_lines(children.output(0)) == ""


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        (f"sys.exit({PEER_LOST}) if rank == 0 else os.abort()", 1),
        ("os.abort() if rank == 0 else sys.exit(143)", 1),
        ("sys.exit(143) if rank == 0 else sys.exit(6)", 1),
        ("sys.exit(3)", 0),
    ],
)
def test_cause(children: ChildProcesses, ends: str, rank: int) -> None:
    """What says most comes first: a lost partner after an abort, that after a request to end, that after an error."""
    for each in range(2):
        start(children, f"rank = {each}\n{ends}")
    children.wait()
    cause = children.cause()

    assert cause is not None
    assert cause.rank == rank


def test_how_it_ended() -> None:
    """In words and as shells have it; a process that told why it aborted was not simply aborted."""
    told = {"message": "why", "hint": "", "details": ""}
    ends = [BadEnd(0, -9, None, 0.0), BadEnd(0, 3, None, 0.0), BadEnd(0, -6, None, 0.0), BadEnd(0, -6, told, 1.0)]

    assert [str(end) for end in ends] == [
        *("was killed by SIGKILL", "ended with exit code 3", ABORTED, "was killed by SIGABRT"),
    ]
    assert [end.exit_code for end in ends] == [137, 3, 134, 134]


def test_a_program_that_is_not_there(children: ChildProcesses) -> None:
    """The system's own error is raised, and there is nothing to wait for."""
    with pytest.raises(FileNotFoundError):
        children.start(["/nowhere/nvidia-smi"], {})

    assert children.codes == []


def test_a_failure_as_an_error() -> None:
    """It is of the class that its exit code belongs to; training that failed where it has none."""
    known, unknown = Failure("no GPU", "--device cpu", 5).error("no GPU"), Failure("crashed").error("nothing measured")

    assert isinstance(known, DeviceError)
    assert (known.message, known.hint) == ("no GPU", "--device cpu")
    assert isinstance(unknown, TrainingError)
    assert (unknown.message, unknown.exit_code) == ("nothing measured", 6)
