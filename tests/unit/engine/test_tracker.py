"""What a tracker tells wandb, and that nothing about wandb stops a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camoxpert_cli.engine.tracker import Tracker, ready_wandb
from camoxpert_cli.errors import UsageError


class Package:
    """Stands for the wandb package, and for its run; `failing` names the functions that fail."""

    Error = RuntimeError
    __version__ = "0.31.0"
    disabled = False

    def __init__(self, *, mode: str = "online", logged_in: bool = True, failing: str = "") -> None:
        self.mode, self.logged_in, self.failing = mode, logged_in, failing
        self.asked: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.dir = "/runs/a b/wandb/run-1/files"
        self.url: str | None = "https://wandb.ai/me/camox/runs/1"
        self.exit_codes: list[int] = []
        self.torn_down, self.run = 0, None

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802  # as wandb calls it
        return settings

    def setup(self, settings: Any) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt
        self._fail("login")
        return self.logged_in

    def init(self, **asked: Any) -> Package:
        if "mode" not in asked:
            self._fail("start")
        self._fail("init")
        self.asked = asked
        return self

    def log(self, values: dict[str, float], *, step: int, commit: bool) -> None:
        self._fail("log")
        assert commit
        self.rows.append((step, values))

    def finish(self, *, exit_code: int) -> None:
        if self.failing == "upload":
            raise TimeoutError
        self._fail("finish")
        self.exit_codes.append(exit_code)

    def teardown(self) -> None:
        self.torn_down += 1
        sys.exit(3)  # what its own process exited with

    def _fail(self, name: str) -> None:
        if name == self.failing:
            raise self.Error(f"{name} failed\nat length")


def package(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> Package:
    made = Package(**behaviour)
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def steps_logged(made: Package) -> list[int]:
    return [step for step, _ in made.rows]


def log(tracker: Tracker, *steps: int) -> None:
    for step in steps:
        tracker.write("step", {"total": 0.5}, step)


def test_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings, numbers by step, and results; in the run folder and without a word of wandb's own."""
    made = package(monkeypatch)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_NAME", raising=False)
    tracker = Tracker(tmp_path, {"train": {"lr": 0.5}}, None)
    tracker.write("step", {"total": 0.25, "group_lr": {"backbone": 0.125}, "note": "text"}, 4)
    tracker.write("epoch", {"iou": 0.5, "dead_experts": [0, 1]}, 9)
    tracker.summarize({"epoch": 1, "validation": {"iou": 0.5}, "tests": {"CAMO": {"mae": 0.25}}})
    tracker.close(failed=False)

    assert (made.asked["project"], made.asked["name"], made.asked["dir"]) == ("camox", tmp_path.name, str(tmp_path))
    assert (made.asked["config"], made.asked["resume"]) == ({"train": {"lr": 0.5}}, "allow")
    assert made.asked["id"] == (tmp_path / "wandb" / "run-id").read_text()
    assert made.asked["settings"]["silent"] is True
    assert made.rows == [
        (4, {"step/total": 0.25, "group_lr/backbone": 0.125}),
        (9, {"epoch/iou": 0.5, "dead_experts/1": 0, "dead_experts/2": 1}),
    ]
    assert made.summary == {"results/epoch": 1, "validation/iou": 0.5, "tests/CAMO/mae": 0.25}
    assert made.exit_codes == [0]
    assert capsys.readouterr().err == "Tracker     https://wandb.ai/me/camox/runs/1\n"


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to be logged in, and the command that uploads the run is printed."""
    package(monkeypatch, mode="offline", logged_in=False).url = None
    (tmp_path / "a b").mkdir()
    Tracker(tmp_path / "a b", {}, None)

    assert f"wandb sync '{tmp_path}/a b/wandb'/offline-run-*\n" in capsys.readouterr().err


def test_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same run, and the steps that it repeats are not logged again."""
    made = package(monkeypatch)
    first = Tracker(tmp_path, {}, None)
    log(first, 4, 8, 12)
    first.close(failed=True)
    run_id = made.asked["id"]
    second = Tracker(tmp_path, {}, tmp_path)
    log(second, 8, 12, 15)
    second.close(failed=False)

    assert made.asked["id"] == run_id
    assert steps_logged(made) == [4, 8, 12, 15]
    assert made.exit_codes == [1, 0]


def test_a_run_that_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that had saved nothing is another run, which logs from the first step on."""
    made = package(monkeypatch)
    log(Tracker(tmp_path, {}, None), 4, 8)
    run_id = made.asked["id"]
    log(Tracker(tmp_path, {}, None), 4, 8)

    assert made.asked["id"] != run_id
    assert steps_logged(made) == [4, 8, 4, 8]


@pytest.mark.parametrize("writable", [True, False])
def test_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool) -> None:
    """A run that moves on from a folder that is read-only stays the same; otherwise there are two from then on."""
    made = package(monkeypatch)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    first = Tracker(old, {}, None)
    log(first, 4, 8)
    first.close(failed=True)
    run_id = made.asked["id"]
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    second = Tracker(new, {}, old)
    log(second, 8, 12)

    assert (made.asked["id"] == run_id) is not writable
    assert steps_logged(made)[2:] == ([8, 12] if writable else [12])
    assert (new / "wandb" / "run-id").read_text() == made.asked["id"]


def test_a_killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only steps that wandb has surely written to disk count as logged: there is no gap in the curves."""
    made, now = package(monkeypatch), [0.0]
    monkeypatch.setattr("camoxpert_cli.engine.tracker.time.monotonic", lambda: now[0])
    killed = Tracker(tmp_path, {}, None)
    for step in range(10):
        log(killed, step)
        now[0] += 10
    made.rows.clear()
    log(Tracker(tmp_path, {}, tmp_path), *range(12))

    # At 80 s, the step of 60 s was noted: it had been logged 20 s before.
    assert steps_logged(made) == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_wandb_fails(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it raises is one warning, and the run goes on without it."""
    made = package(monkeypatch, failing=failing)
    tracker = Tracker(tmp_path, {}, None)
    log(tracker, 4, 8)
    tracker.summarize({"validation": {"iou": 0.5}})
    tracker.close(failed=False)
    tracker.close(failed=False)

    assert capsys.readouterr().err.count(f"Warning: wandb failed: {failing} failed; training continues") == 1
    assert made.torn_down == 1
    assert len(made.rows) == (2 if failing == "finish" else 0)


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that cannot be tracked online is tracked offline: nothing is lost."""
    made = package(monkeypatch, failing="start")
    tracker = Tracker(tmp_path, {}, None)
    log(tracker, 4)

    assert made.asked["mode"] == "offline"
    assert made.asked["id"] == (tmp_path / "wandb" / "run-id").read_text()
    assert steps_logged(made) == [4]
    assert "Warning: wandb cannot be reached: start failed; logging offline, to the run folder\n" in (
        capsys.readouterr().err
    )


def test_a_slow_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The run does not wait for it longer than half a minute, and says how to upload the rest."""
    made = package(monkeypatch, failing="upload")
    tracker = Tracker(tmp_path, {}, None)
    tracker.close(failed=False)

    assert (made.asked["settings"]["finish_timeout"], made.asked["settings"]["finish_timeout_raises"]) == (30, True)
    assert "to upload the rest: wandb sync '/runs/a b/wandb/run-1'\n" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is a disk that is full or read-only."""
    package(monkeypatch)
    (tmp_path / "wandb").write_text("")
    log(Tracker(tmp_path, {}, None), 4)

    assert capsys.readouterr().err.count("Warning: wandb failed: ") == 1


def refused(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> tuple[str, str]:
    package(monkeypatch, **behaviour)
    with pytest.raises(UsageError) as caught:
        ready_wandb()
    return caught.value.message, caught.value.hint


def test_not_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb would ask for a key, in the middle of the night: both ways out are named before anything begins."""
    hint = "wandb login; or WANDB_MODE=offline, to log to the run folder and upload it later"

    assert refused(monkeypatch, logged_in=False) == ("--tracker wandb cannot be used: nobody is logged in", hint)
    assert refused(monkeypatch, failing="login") == ("--tracker wandb cannot be used: login failed", hint)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="--tracker wandb requires the wandb package: ") as caught:
        ready_wandb()

    assert caught.value.hint == "python -m pip install 'camox[wandb]'"


def test_an_old_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can only ask for a key is refused."""
    monkeypatch.setattr(Package, "login", lambda self: True)
    monkeypatch.setattr(Package, "__version__", "0.20.1")

    assert refused(monkeypatch) == (
        "--tracker wandb requires wandb 0.31 or later, but 0.20.1 is installed",
        "python -m pip install --upgrade wandb",
    )
