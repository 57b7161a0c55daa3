from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli import __version__, run_folder
from camoxpert_cli.errors import PeerLostError, TrainingError, UsageError
from camoxpert_cli.run_folder import RunFolder, default_path, make_default, versions

FILES = ["history.json", "last.pth", "previous.pth", "best_model.pth", "results.json"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_folder_of_another_run(tmp_path: Path, name: str) -> None:
    """A folder with any result of a run is refused with exit code 2, the file named, and nothing is changed."""
    (tmp_path / name).write_bytes(b"of another run")
    with pytest.raises(UsageError, match=f"already contains a run .*{name}") as caught:
        RunFolder(tmp_path).refuse_other_run(None)

    assert caught.value.exit_code == 2
    assert "--checkpoint-dir" in caught.value.hint
    assert ("camox resume" in caught.value.hint) == (name == "last.pth")
    assert content(tmp_path) == {name: b"of another run"}


def test_folder_of_the_run_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may go on in its own folder, however the path is written; a checkpoint from elsewhere opens no folder."""
    folder, other = tmp_path / "run", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
        (each / "last.pth").touch()
    monkeypatch.chdir(folder)
    RunFolder(folder).refuse_other_run(Path("last.pth"))
    RunFolder(Path("../run")).refuse_other_run(folder / "last.pth")

    with pytest.raises(UsageError, match="already contains a run"):
        RunFolder(folder).refuse_other_run(other / "last.pth")


def test_folder_with_other_files(tmp_path: Path) -> None:
    """Files of names that no run writes do not stand in the way, nor does a folder that is not there yet."""
    (tmp_path / "notes.txt").touch()

    RunFolder(tmp_path).refuse_other_run(None)
    RunFolder(tmp_path / "new").refuse_other_run(None)
    assert not (tmp_path / "new").exists()


def test_file_as_folder(tmp_path: Path) -> None:
    """A file where the folder should be is refused with exit code 2 and kept."""
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="is a file") as caught:
        RunFolder(path).refuse_other_run(None)

    assert caught.value.exit_code == 2
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("below", ["run", "deep/run"])
def test_folder_below_a_file(tmp_path: Path, below: str) -> None:
    """A folder that cannot be made is refused with exit code 2 and the system's reason."""
    (tmp_path / "file").write_bytes(b"mine")
    folder = RunFolder(tmp_path / "file" / below)
    folder.refuse_other_run(None)
    with pytest.raises(UsageError, match="cannot be written: Not a directory") as caught:
        folder.create()

    assert caught.value.exit_code == 2
    assert content(tmp_path) == {"file": b"mine"}


def test_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is there but takes no files is found out before training, not at the first save."""

    def refuse(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        RunFolder(tmp_path / "run").create()


def test_create(tmp_path: Path) -> None:
    """The folder is made with those above it, is empty, and making it again does no harm."""
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.create()
    (folder.path / "file").touch()
    folder.create()

    assert content(folder.path) == {"file": b""}


def test_versions() -> None:
    """Every package that can change a result is told with its version; one that is not there is left out."""
    found = versions()

    assert found["camox"] == __version__
    assert set(found) == {"camox", "python", *run_folder._PACKAGES}
    assert all(found.values())


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is no error."""
    monkeypatch.setattr(run_folder, "_PACKAGES", ("no-such-package-at-all", "numpy"))

    assert set(versions()) == {"camox", "python", "numpy"}


def test_log(tmp_path: Path) -> None:
    """Each entry is a line of JSON of its own, with what happened and when, behind those before it."""
    folder = RunFolder(tmp_path)
    before = time.time()
    folder.log("step", lr=1e-3, gradient_norm=None)
    folder.log("epoch", note="two\nlines")
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]

    assert [(line["event"], line.get("lr"), line.get("note")) for line in lines] == [
        ("step", 1e-3, None),
        ("epoch", None, "two\nlines"),
    ]
    assert lines[0]["gradient_norm"] is None
    assert all(abs(line["time"] - before) < 3600 for line in lines)


def test_a_pipe_in_place_of_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for whoever might read it."""
    folder = RunFolder(tmp_path)
    os.mkfifo(folder.metrics)
    logging = threading.Thread(target=folder.log, args=("step",), daemon=True)
    logging.start()
    logging.join(10)

    assert not logging.is_alive()
    assert "metrics.jsonl cannot be written: No such device or address" in capsys.readouterr().err


def test_full_disk_costs_lines_of_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Log and history on a full disk are given up with one warning each: the checkpoints hold the history as well."""
    folder = RunFolder(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("camoxpert_cli.run_folder.open", refuse, raising=False)
        patched.setattr(Path, "write_text", refuse)
        for _ in range(3):
            folder.log("step")
            folder.write_history([])
    said = capsys.readouterr().err.splitlines()
    folder.log("step")

    assert len(said) == 2
    assert "metrics.jsonl cannot be written: No space left on device; training continues without it" in said[0]
    assert "history.json" in said[1]
    assert len(folder.metrics.read_text().splitlines()) == 1


@pytest.mark.parametrize("what", ["results", "settings"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A file that the disk refuses ends the run with exit code 6, its name and the reason."""
    folder = RunFolder(tmp_path)
    writers: dict[str, Callable[[], None]] = {
        "results": lambda: folder.write_results({}),
        "settings": lambda: folder.write_settings({}),
    }

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(TrainingError, match=r"\.(json|yaml) cannot be written: No space left") as caught:
        writers[what]()

    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_history_and_results(tmp_path: Path) -> None:
    """Both files are JSON, and a later version replaces the earlier one."""
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 1}])
    folder.write_history([{"epoch": 1}, {"epoch": 2}])
    folder.write_results({"epoch": 2})

    assert json.loads(folder.history.read_text(encoding="utf-8")) == [{"epoch": 1}, {"epoch": 2}]
    assert json.loads(folder.results.read_text(encoding="utf-8")) == {"epoch": 2}


def test_default_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the same second get folders of their own, below `runs`, named after their preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda pattern: "20261123-184500")
    paths = []
    for _ in range(3):
        paths.append(default_path("kaggle-1xT4"))
        paths[-1].mkdir(parents=True)

    names = [f"runs/kaggle-1xT4-20261123-184500{ending}" for ending in ("", "-2", "-3")]
    assert [path.as_posix() for path in paths] == names
    assert default_path(None).as_posix() == "runs/train-20261123-184500"
    assert default_path("../somewhere/mine.yaml").as_posix() == "runs/mine-20261123-184500"


def test_going_on_ends_the_log_where_the_run_goes_on(tmp_path: Path) -> None:
    """What was logged after the save that a run goes on from is done, and logged, again; half a line goes too."""
    folder = RunFolder(tmp_path)
    for epoch, samples in ((1, 4), (1, 8), (2, 4), (2, 8)):
        folder.log("step", epoch=epoch, samples=samples)
        if samples == 8:
            folder.log("epoch", epoch=epoch)
    folder.metrics.write_text(folder.metrics.read_text() + '{"event": "st')
    folder.go_on_from(1, 4, [{"epoch": 1}], Path("last.pth"))
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]

    assert [(row["event"], row["epoch"], row.get("samples")) for row in rows] == [
        ("step", 1, 4),
        ("step", 1, 8),
        ("epoch", 1, None),
        ("step", 2, 4),
        ("resume", 1, 4),
    ]
    assert json.loads(folder.history.read_text()) == [{"epoch": 1}]


Row = st.dictionaries(
    st.sampled_from(["event", "epoch", "samples", "x"]),
    st.one_of(st.none(), st.text(max_size=2), st.integers(), st.lists(st.integers(), max_size=1)),
)
Damage = st.one_of(
    st.binary(max_size=20).filter(lambda each: b"\n" not in each),
    st.just(b"\0" * 4096),
    st.just(b"[" * 3000),
    st.one_of(Row, st.integers(), st.lists(st.integers())).map(lambda each: json.dumps(each).encode()),
)


@settings(max_examples=50)
@given(st.lists(Damage, max_size=3), st.lists(st.integers(0, 4), max_size=3))
def test_a_damaged_log(damage: list[bytes], places: list[int]) -> None:
    """Lines that are no entries of a run are passed over, wherever they stand; those that are stay as they were."""
    rows = [{"event": "step", "epoch": 1, "samples": at} for at in (4, 8)] + [
        {"event": "epoch", "epoch": 1, "iou": 0.5}
    ]
    lines = [json.dumps(row).encode() for row in rows]
    for place, line in zip(places, damage, strict=False):
        lines.insert(place, line)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.metrics.write_bytes(b"\n".join(lines))
        run.go_on_from(1, 0, [], Path("last.pth"))
        kept = [json.loads(line) for line in run.metrics.read_bytes().splitlines()]

    assert [row for row in kept if row in rows] == rows
    assert kept[-1]["event"] == "resume"
    assert all("event" in row for row in kept)


def test_names_are_made_by_one_process_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that start within a second have folders of their own, though all of them look at the same moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda pattern: "20261123-184500")
    together = threading.Barrier(4)
    exists = os.path.lexists

    def meeting(path: Any) -> bool:
        there = exists(path)
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)
        return there

    monkeypatch.setattr(os.path, "lexists", meeting)
    with ThreadPoolExecutor(4) as pool:
        paths = [each.result() for each in [pool.submit(make_default, "quickstart") for _ in range(4)]]

    assert len({*paths}) == 4
    assert {path.name for path in Path("runs").iterdir()} == {path.name for path in paths}


def test_names_where_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_bytes(b"mine")
    with pytest.raises(UsageError, match="runs is a file"):
        make_default(None)


def test_the_lock_makes_the_folder(tmp_path: Path) -> None:
    """And takes it away again where nothing came of it, with those that it made above it."""
    folder = RunFolder(tmp_path / "deep" / "run")
    with folder.locked():
        assert folder.path.is_dir()
    assert list(tmp_path.iterdir()) == []
    with folder.locked():
        folder.metrics.touch()
    assert folder.metrics.exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        pass

    assert tmp_path.is_dir()


def test_a_folder_below_one_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In somebody else's home folder nothing can be looked at, nor made: a sentence says so."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("exists", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"), RunFolder(tmp_path / "a").locked():
        pass


def test_a_launcher_and_its_worker_share_the_lock(tmp_path: Path) -> None:
    """Both hold the folder against a third, whichever of them ends first."""
    launcher, worker, other = (RunFolder(tmp_path) for _ in range(3))
    with launcher.locked():
        launcher.share_lock()
        with worker.locked(shared=True), pytest.raises(UsageError, match="another process is using"), other.locked():
            pass
        with pytest.raises(UsageError, match="another process is using"), other.locked():
            pass
    with worker.locked(shared=True), pytest.raises(UsageError, match="another process is using"), other.locked():
        pass


def test_waiting_for_the_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that is about to end gets the time to do so; one that stays is refused as ever."""
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with first.locked():
            held.set()
            free.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert held.wait(60)
        refused = pytest.raises(PeerLostError, match=r"another process is using .*, still after 0\.01 s")
        with refused, second.locked(wait=0.01):
            pass
        threading.Timer(0.05, free.set).start()
        with second.locked(wait=60):
            pass
    words = " ".join(capsys.readouterr().err.split())
    assert f"Waiting up to 60 s for another process to stop using {tmp_path}" in words


def test_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none a run works all the same."""

    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.share_lock()
        folder.metrics.touch()

    assert folder.metrics.exists()


def test_a_folder_that_goes_as_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is locked is what has the name: another process may take its empty folder away in between."""
    folder = RunFolder(tmp_path / "run")
    flock = fcntl.flock
    seen: list[int] = []

    def racing(descriptor: int, kind: int) -> None:
        if not seen:
            folder.path.rmdir()
        seen.append(descriptor)
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", racing)
    with folder.locked():
        assert folder.path.is_dir()
        with pytest.raises(UsageError, match="another process"), RunFolder(folder.path).locked():
            pass


def test_lock(tmp_path: Path) -> None:
    """A folder is one process's at a time; the lock goes with its holder."""

    def hold_twice() -> None:
        with RunFolder(tmp_path).locked(), RunFolder(tmp_path).locked():
            raise AssertionError("not reached")

    with pytest.raises(UsageError, match="another process is using"):
        hold_twice()
    with RunFolder(tmp_path).locked():
        pass


def test_sweep(tmp_path: Path) -> None:
    """What a killed process left half-written goes; nothing else does, of whatever name."""
    kept = ["last.pth", "last.pth.tmp", "thesis.tmp", ".thesis.docx.tmp0f"]
    for name in (*kept, ".last.pth.tmp0123456789ab", ".history.json.tmp00"):
        (tmp_path / name).touch()
    (tmp_path / "folder.tmp").mkdir()
    RunFolder(tmp_path).sweep()

    assert {path.name for path in tmp_path.iterdir()} == {*kept, "folder.tmp"}


def test_too_little_space(tmp_path: Path) -> None:
    """A disk that cannot hold the checkpoints is refused before training, with what there is and what it takes."""
    RunFolder(tmp_path).require_space(1)
    with pytest.raises(TrainingError, match="GiB free, but checkpoints of this network need 1048576") as caught:
        RunFolder(tmp_path).require_space(2**50)

    assert "--checkpoint-dir" in caught.value.hint


def test_what_is_there_needs_no_more_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on has its checkpoints on the disk already."""
    for name in ("last.pth", "previous.pth"):
        (tmp_path / name).write_bytes(bytes(300))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500))
    RunFolder(tmp_path).require_space(1000)
    with pytest.raises(TrainingError, match="GiB more"):
        RunFolder(tmp_path).require_space(1200)


def test_stamps(tmp_path: Path) -> None:
    """They tell that a checkpoint was replaced, and not that a mounted drive gave the same file another inode."""
    folder = RunFolder(tmp_path)
    folder.last.write_bytes(b"old")
    before = folder.stamps
    shutil.copy2(folder.last, tmp_path / "copy")
    (tmp_path / "copy").replace(folder.last)
    assert folder.stamps == before
    folder.last.write_bytes(b"newer")
    assert folder.stamps != before


def test_resume_command_is_quoted() -> None:
    """A command to paste survives blanks in a folder's name."""
    assert RunFolder(Path("my runs/first")).resume_command == "camox resume 'my runs/first'"


def test_what_a_run_ends_with_is_removed(tmp_path: Path) -> None:
    """Nothing that tells of an end is left in the folder of a run that goes on; its other files stay."""
    ended = {"results.json", "per_image.csv", "report.html", "curves.png"}
    kept = {"last.pth", "previous.pth", "best_model.pth", "history.json", "metrics.jsonl", "config.yaml", "env.json"}
    for name in ended | kept:
        (tmp_path / name).touch()
    RunFolder(tmp_path).remove_results()

    assert {path.name for path in tmp_path.iterdir()} == kept


def test_history_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it writes leaves the history before it."""
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 1}])

    def die(path: Path, text: str, encoding: str | None = None) -> None:
        path.write_bytes(text.encode()[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        folder.write_history([{"epoch": 1}, {"epoch": 2}])

    assert json.loads(folder.history.read_bytes()) == [{"epoch": 1}]


def test_there_is_a_history_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one takes the place of the old one, which is there until then."""
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 1}])
    seen = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        seen.append(json.loads(folder.history.read_bytes()))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    folder.write_history([{"epoch": 1}, {"epoch": 2}])

    assert seen == [[{"epoch": 1}]]
    assert json.loads(folder.history.read_bytes()) == [{"epoch": 1}, {"epoch": 2}]


def test_a_lock_that_was_let_go_is_nothing_to_a_fork(tmp_path: Path) -> None:
    """A forked child lets the lock go, and no file that has got the lock's number since."""
    with RunFolder(tmp_path).locked():
        held = set(run_folder._locks)
    with (tmp_path / "file").open("w") as file:
        assert file.fileno() in held
        run_folder._let_go()
        file.write("x")

    assert (tmp_path / "file").read_text() == "x"
