"""The script that runs the checks on a GPU, with checks that take no GPU and no time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import __main__ as script
from tests.gpu.ending import STARTED_BY, end_processes
from tests.gpu.report import in_one_line
from tests.gpu.run_checks import RESULTS, TABLE, Check, run_checks
from tests.helpers.processes import is_running

ROOT = Path(__file__).parents[2]

# Programs; `report` is the check's own, and `sleep` a process that nobody waits for, in a session of its own.
REPORTING = """
import os, subprocess, sys, time
from pathlib import Path
from tests.gpu.report import NeedsACard, Report
report = Report("cpu", Path(os.environ["CAMOX_GPU_CHECK"]), Path())
def sleep():
    code = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid
"""
PASSES = "report.number('images/s', 12.345); report.end('ended')"
NEEDS_A_CARD = "report.end('needs a card')"
FAILS = "report.number('before it', 1); raise ValueError('a bug')"
FAILS_IN_PART = """
with report.part('one', seconds=10):
    assert 1 == 2, 'not equal'
with report.part('two', seconds=0.1):
    time.sleep(60)
with report.part('three', seconds=10):
    raise NeedsACard
report.number('four', 4)
report.end('ended')
"""
SAYS_NOTHING = "print('no report')"
DIES_WRITING = "report.number('whole', 1); (report.folder / 'report.jsonl').open('a').write('{\"numb'); os._exit(0)"
HANGS = "report.number('grandchild', sleep()); time.sleep(60)"
LEAVES_A_PROCESS = "report.number('left', sleep()); report.end('ended')"


def check(name: str, program: str, seconds: float = 30.0) -> Check:
    return Check(name, seconds, (sys.executable, "-c", REPORTING + program))


def results(out: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (out / RESULTS).read_text(encoding="utf-8").splitlines()]
    return {line["name"]: line for line in lines}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of checks that come to all kinds of ends, and the exit code in a file `code`."""
    folder = tmp_path_factory.mktemp("out")
    checks = [
        check("passes", PASSES),
        check("fails", FAILS),
        check("parts", FAILS_IN_PART),
        check("silent", SAYS_NOTHING),
        check("dies", DIES_WRITING),
        check("hangs", HANGS, seconds=0.5),
        check("leaves", LEAVES_A_PROCESS),
        check("late", PASSES, seconds=3600),
        check("needs", NEEDS_A_CARD),
    ]
    code = run_checks(checks, folder, minutes=1, about=[("card", "none")])
    (folder / "code").write_text(str(code))
    return folder


def test_every_end_is_told_in_order(out: Path) -> None:
    """One that fails, hangs or says nothing stops none of those that follow."""
    found = results(out)

    assert [(name, each["outcome"]) for name, each in found.items()] == [
        ("passes", "passed"),
        ("fails", "failed"),
        ("parts", "failed"),
        ("silent", "failed"),
        ("dies", "failed"),
        ("hangs", "timed out"),
        ("leaves", "passed"),
        ("late", "skipped: no time left"),
        ("needs", "needs a card"),
    ]
    assert (out / "code").read_text() == "1"


def test_what_was_measured_before_a_failure_is_kept(out: Path) -> None:
    """And why it failed is said."""
    found = results(out)

    assert found["passes"]["numbers"] == {"images/s": 12.345}
    assert found["passes"]["failures"] == []
    assert found["fails"]["numbers"] == {"before it": 1}
    assert found["fails"]["failures"] == ["ended with exit code 1 before its last line"]
    assert "ValueError: a bug" in (out / "fails.log").read_text(encoding="utf-8")
    assert found["silent"]["failures"] == ["ended with exit code 0 before its last line"]
    assert found["dies"]["numbers"] == {"whole": 1}
    assert found["hangs"]["failures"] == ["killed after 1 s"]
    assert 1 <= found["hangs"]["seconds"] < 10


def test_a_part_that_fails_stops_no_other(out: Path) -> None:
    """Each failure is named; a part that takes too long is one."""
    found = results(out)["parts"]

    assert found["failures"] == ["one: AssertionError: not equal", "two: TimeoutError: not done within 0.1 s"]
    assert found["numbers"] == {"three": "needs a card", "four": 4}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo", "AssertionError: one"),
        ("", "AssertionError"),
        ("Traceback\n  in x\nUsageError: no\nTry: y", "AssertionError: UsageError: no"),
    ],
)
def test_failures_are_one_line(text: str, line: str) -> None:
    """Also where a process that failed is quoted with its traceback."""
    assert in_one_line(AssertionError(text)) == line


@pytest.mark.parametrize(("name", "number"), [("hangs", "grandchild"), ("leaves", "left")])
def test_no_process_is_left(out: Path, name: str, number: str) -> None:
    """Not one in a session of its own either."""
    assert not is_running(results(out)[name]["numbers"][number])


def test_the_table(out: Path) -> None:
    """What the results depend on, then a row for each check."""
    lines = (out / TABLE).read_text(encoding="utf-8").splitlines()

    assert lines[:3] == ["# camox on a GPU", "", "- card: none"]
    assert [line.split(" | ")[0] for line in lines[7:]] == [f"| {name}" for name in results(out)]
    assert lines[7].startswith("| passes | passed | ")
    assert lines[7].endswith(" |  | images/s 12.3 |")


def test_exit_code_0_where_nothing_failed(tmp_path: Path) -> None:
    """What needs a card, or was skipped, did not fail."""
    checks = [check("passes", PASSES), check("needs", NEEDS_A_CARD), check("late", PASSES, seconds=3600)]

    assert run_checks(checks, tmp_path, minutes=1, about=[]) == 0


def test_processes_of_others_are_left_alone(tmp_path: Path) -> None:
    """Also those of a folder whose name goes on where this one's ends."""
    environment = {**os.environ, STARTED_BY: f"{tmp_path}2"}
    program = "import time; print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()  # before it is at work the system may not know its environment yet
        end_processes(tmp_path)
        assert other.poll() is None
        end_processes(tmp_path.with_name(f"{tmp_path.name}2"))
        assert other.wait(10) == -signal.SIGKILL
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user(tmp_path: Path, number: signal.Signals) -> None:
    """The check that runs is killed, and the table has what there is, however often the key is pressed."""
    program = f"""
import sys
from pathlib import Path
from tests.gpu.test_run_checks import HANGS, PASSES, check
from tests.gpu.report import in_one_line
from tests.gpu.run_checks import run_checks
checks = [check("passes", PASSES), check("hangs", "print(sleep(), flush=True); time.sleep(60)"), check("after", PASSES)]
sys.exit(run_checks(checks, Path({str(tmp_path)!r}), minutes=1, about=[]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True)
    try:
        log = tmp_path / "hangs.log"
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
        while not (tmp_path / TABLE).exists() and process.poll() is None:
            process.send_signal(number)
            time.sleep(0.01)
        code = process.wait(20)
    finally:
        process.kill()
        process.wait()
    table = (tmp_path / TABLE).read_text(encoding="utf-8")

    assert code == 128 + number
    assert list(results(tmp_path)) == ["passes"]
    assert "- stopped by the user in hangs; what follows it was not run" in table
    assert "| passes | passed |" in table
    assert not is_running(int(log.read_text()))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the script says, as its last line, of arguments that it refuses."""
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with the names that there are, before anything is run."""
    said = refusal(monkeypatch, capsys, "--out", str(tmp_path / "out"), "--only", "one_step", "two_step")

    assert "invalid choice: 'two_step'" in said
    assert all(name in said for name in script.CHECKS)
    assert not (tmp_path / "out").exists()


def test_results_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that holds anything, such as those of another time, is refused."""
    (tmp_path / RESULTS).touch()
    said = refusal(monkeypatch, capsys, "--out", str(tmp_path), "--device", "cpu", "--only", "gpu_tests")

    assert f"{tmp_path} is not empty: choose another --out" in said


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is run that would prove nothing."""
    monkeypatch.setattr(script, "has_cuda", lambda: False)
    said = refusal(monkeypatch, capsys, "--out", str(tmp_path))

    assert "torch finds no GPU here; --device cpu runs what needs none" in said


def test_each_check_is_a_file() -> None:
    """None is forgotten, and none is missing."""
    files = {path.stem for path in (Path(script.__file__).parent / "checks").glob("*.py")} - {"__init__"}

    assert files == set(script.CHECKS)
