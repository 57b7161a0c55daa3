"""What is said of a run, from the files in its folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.status.remaining import Remaining
from camoxpert_cli.status.run_status import RunStatus, read_status
from tests.helpers.checkpoints import Stub, content_of, write_content
from tests.helpers.written_runs import (
    settings,
    write_begun,
    write_best,
    write_last,
    write_log,
    write_results,
    write_settings,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of which nothing is saved yet."""
    return write_begun(tmp_path / "run")


def status(run: RunFolder) -> RunStatus:
    found = read_status(run)

    json.dumps(found.to_json())
    return found


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut(run: RunFolder) -> None:
    """Have it be killed in its third epoch, after six of eight images and a save at four."""
    write_last(run.last, 2, 4)
    write_last(run.previous, 2, 0)
    write_best(run.best, 2)
    write_log(run.path, 2, 6)


def test_a_run_that_was_cut(run: RunFolder) -> None:
    """How far it got, what a resume repeats, what came out and what remains, all from its files."""
    cut(run)
    found = status(run)

    assert (found.complete, found.checkpoint, found.position, found.saved) == (False, "last.pth", (2, 6), (2, 4))
    assert (found.epochs, found.images, found.stage) == (6, 8, 1)
    assert (found.best_epoch, found.best_iou) == (2, 0.2)
    assert found.seconds == 25
    assert found.next == f"camox resume {run.path}"
    assert list(found.checkpoints) == ["last.pth", "previous.pth", "best_model.pth"]
    assert all(each.intact for each in found.checkpoints.values())


@pytest.mark.parametrize(("running", "seconds"), [(True, 32.5), (None, 32.5), (False, 35)])
def test_what_remains(run: RunFolder, monkeypatch: pytest.MonkeyPatch, running: bool | None, seconds: float) -> None:
    """From where it is, or else from where it would be resumed; stage 2 has not been timed."""
    monkeypatch.setattr("camoxpert_cli.status.run_status.is_in_use", lambda folder: running)
    cut(run)
    found = status(run)

    assert found.running is running
    assert found.remaining == Remaining(seconds, is_lower_bound=True)


def test_a_last_epoch_with_fewer_images(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are those of the epoch that the run is in, and what remains counts those that it really trains on."""
    monkeypatch.setattr("camoxpert_cli.status.run_status.is_in_use", lambda folder: True)
    config = settings(run.path)
    config["train"]["last_epoch_images"] = 6
    write_settings(run.path, config)
    cut(run)
    before = status(run)
    write_last(run.last, 5, 0, config)
    write_log(run.path, 5, 4)
    within = status(run)

    assert (before.images, before.remaining) == (8, Remaining(32.5 - 2.5, is_lower_bound=True))
    assert (within.images, within.remaining) == (6, Remaining(2.5, is_lower_bound=True))


def test_complete(run: RunFolder) -> None:
    """All epochs are trained and the best weights are scored: they can be used."""
    write_last(run.last, 6, 0)
    write_best(run.best, 6)
    write_log(run.path, 6, 0)
    trained = status(run)
    write_results(run.path)
    found = status(run)

    assert (trained.complete, trained.next) == (False, f"camox resume {run.path}")
    assert trained.remaining == found.remaining == Remaining(0.0, is_lower_bound=False)
    assert (found.complete, found.position, found.stage, found.seconds) == (True, (6, 0), None, 60)
    assert found.next == f"camox predict {run.best} IMAGE... --out predictions"


def test_an_early_stop(run: RunFolder) -> None:
    """A run whose patience has ended is trained, then complete; with a larger one that is not saved, it goes on."""
    config = settings(run.path, train__patience=1, train__progressive_unfreeze=False)
    write_settings(run.path, config)
    write_last(run.last, 5, 0, config)
    better = status(run)
    write_last(run.last, 5, 0, config, best_epoch=4)
    write_log(run.path, 5, 0)
    trained = status(run)
    write_results(run.path, epochs=5, early_stop="it says why")
    found = status(run)
    run.last.unlink()
    write_best(run.best, 4)
    cleared = status(run)
    write_last(run.last, 5, 0, config, best_epoch=4)
    write_settings(run.path, settings(run.path, train__patience=2, train__progressive_unfreeze=False))
    longer = status(run)

    assert (better.complete, better.early_stop, better.stage) == (False, None, 2)
    assert (trained.complete, trained.early_stop) == (
        False,
        "no better validation IoU for 1 epoch, best in epoch 4",
    )
    assert (trained.position, trained.stage, trained.next) == ((5, 0), None, f"camox resume {run.path}")
    assert trained.remaining == found.remaining == Remaining(0.0, is_lower_bound=False)
    assert (found.complete, found.position, found.epochs, found.early_stop) == (True, (5, 0), 6, "it says why")
    assert (cleared.complete, cleared.position, cleared.early_stop) == (True, (5, 0), "it says why")
    assert (longer.complete, longer.early_stop) == (False, None)
    assert longer.next == f"camox resume {run.path} --patience 2"


def test_complete_and_cleared(run: RunFolder) -> None:
    """Whoever removes what is needed to resume, keeps a complete run; without weights nothing is next."""
    write_best(run.best, 4)
    write_results(run.path)
    found = status(run)
    run.best.unlink()
    empty = status(run)

    assert (found.complete, found.position, found.best_epoch) == (True, (6, 0), 4)
    assert found.next == f"camox predict {run.best} IMAGE... --out predictions"
    assert (empty.complete, empty.next) == (True, None)


def test_scores_of_something_else(run: RunFolder) -> None:
    """Scores in the folder of a run that has epochs to train, or scores of `camox eval`, do not make it complete."""
    write_last(run.last, 5, 0)
    write_results(run.path)
    early = status(run)
    write_last(run.last, 6, 0)
    run.results.write_text(json.dumps({"sets": []}))
    other = status(run)

    assert (early.complete, other.complete) == (False, False)


def test_a_longer_run(run: RunFolder) -> None:
    """One that was given more epochs and has not saved since then: its checkpoint still has the old number."""
    write_last(run.last, 6, 0)
    write_log(run.path, 6, 4)
    write_settings(run.path, settings(run.path, train__epochs=9))
    found = status(run)

    assert (found.complete, found.position, found.epochs) == (False, (6, 4), 9)
    assert found.next == f"camox resume {run.path} --epochs 9"


def test_nothing_saved(tmp_path: Path) -> None:
    """The command that started it is what there is to type; one that Python started has none."""
    command = ["/opt/camox/camoxpert_cli/__main__.py", "train", "--dataset-path", "my data"]
    begun = status(write_begun(tmp_path / "first", command=command))
    by_python = status(write_begun(tmp_path / "second", command=["train.py", "train"]))
    skipping = status(write_begun(tmp_path / "third", settings(tmp_path / "third", train__skip_stage1=True)))

    assert (begun.complete, begun.checkpoint, begun.position, begun.remaining) == (False, None, (0, 0), None)
    assert begun.next == "camox train --dataset-path 'my data'"
    assert by_python.next is None
    assert (skipping.position, skipping.stage) == ((3, 0), 2)


def test_limits_and_activity(run: RunFolder) -> None:
    """Limits are those of the last session; the last activity is of log or checkpoint."""
    write_settings(run.path, settings(run.path, run__time_limit="11h30m", run__session_limit="12h"))
    before = status(run)
    cut(run)
    os.utime(run.metrics, (1000, 1000))
    os.utime(run.last, (2000, 2000))
    later = status(run)
    os.utime(run.metrics, (3000, 3000))

    assert (before.time_limit, before.session_limit, before.last_activity) == ("11h30m", "12h", None)
    assert (later.last_activity, status(run).last_activity) == (2000, 3000)


def test_damaged_checkpoints(run: RunFolder) -> None:
    """The numbers are those of the one that a resume would use; where there is none, nothing is next."""
    cut(run)
    truncate(run.last)
    found = status(run)
    truncate(run.previous)
    best = status(run)
    truncate(run.best)
    none = status(run)

    assert (found.checkpoint, found.saved, found.position) == ("previous.pth", (2, 0), (2, 6))
    assert (best.checkpoint, best.saved, best.best_iou) == ("best_model.pth", (2, 0), 0.2)
    assert (none.checkpoint, none.saved, none.position, none.next) == (None, (0, 0), (2, 6), None)
    assert none.seconds == 20  # of history.json
    assert [each.intact for each in none.checkpoints.values()] == [False] * 3


def test_without_settings(run: RunFolder) -> None:
    """Those of a checkpoint stand in for config.yaml; without either, the number of epochs is unknown."""
    cut(run)
    (run.path / "config.yaml").write_text("{")
    from_checkpoint = status(run)
    write_last(run.last, 2, 4, {"train": {"epochs": "many"}})
    unknown = status(run)
    write_last(run.last, 2, 4, {"train": {"a_setting_of_a_later_version": 1}})

    assert (from_checkpoint.epochs, from_checkpoint.stage) == (6, 1)
    assert (unknown.epochs, unknown.stage, unknown.remaining, unknown.position) == (None, None, None, (2, 6))
    assert status(run).epochs is None


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    """camox 0.1 had other names for some settings and entries."""
    config = settings(tmp_path)
    config["data"]["generated_pictures"] = config["data"].pop("generated_images")
    run = write_begun(tmp_path / "run", config)
    write_last(run.last, 2, 4, config, pictures="digest")

    assert (status(run).epochs, status(run).saved) == (6, (2, 4))


def test_weights_of_another_program(run: RunFolder) -> None:
    """They say nothing of a run."""
    write_content(run.last, {**content_of(Stub()), "format": "other"})
    found = status(run)

    assert (found.checkpoint, found.saved, found.next) == ("last.pth", (0, 0), f"camox resume {run.path}")
    assert found.checkpoints["last.pth"].problem == "written by another program"


NAMES = ["config.yaml", "env.json", "metrics.jsonl", "history.json", "last.pth", "previous.pth", "best_model.pth"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_begun(tmp_path_factory.mktemp("whole") / "run")
    cut(run)
    write_results(run.path)
    return run.path


@hypothesis.settings(max_examples=20)
@given(
    files=st.dictionaries(st.sampled_from([*NAMES, "results.json"]), st.one_of(st.none(), st.binary(max_size=60))),
    more=st.sampled_from([b"", b"{", b"[[", b"null", b'{"command": 3, "versions": {"camox": 1}}', b"[1, {}]"]),
)
def test_any_damage(whole: Path, files: dict[str, bytes | None], more: bytes) -> None:
    """Whichever files are missing or have whatever content, there is a status."""
    folder = whole.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    for name, content in files.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(more + content)
    found = status(RunFolder(folder))

    assert found.complete is False or "results.json" not in files
    assert {name for name, each in found.checkpoints.items() if each.intact} == {
        name for name in NAMES[4:] if name not in files
    }


def test_json(run: RunFolder) -> None:
    """Its keys are documented, and stay."""
    cut(run)
    truncate(run.previous)
    found: dict[str, Any] = status(run).to_json()
    modified = {name: (run.path / name).stat().st_mtime for name in NAMES[4:]}
    problem = found["checkpoints"]["previous.pth"]["problem"]

    assert problem.startswith("corrupt")
    assert found == {
        **{"run_folder": str(run.path), "complete": False, "running": found["running"]},
        **{"early_stop": None, "epoch": 2, "epochs": 6, "samples": 6, "images": 8, "stage": 1},
        **{"best_epoch": 2, "best_iou": 0.2, "seconds": 25.0},
        **{"seconds_left": found["seconds_left"], "lower_bound": True, "time_limit": None, "session_limit": None},
        **{"last_activity": found["last_activity"], "checkpoint": "last.pth", "next": f"camox resume {run.path}"},
        "checkpoints": {
            name: {
                **{"bytes": (run.path / name).stat().st_size, "modified": modified[name], "intact": problem is None},
                **{"problem": problem, "epoch": epoch, "samples": samples},
            }
            for name, problem, epoch, samples in [
                ("last.pth", None, 2, 4),
                ("previous.pth", problem, None, None),
                ("best_model.pth", None, 2, None),
            ]
        },
    }
