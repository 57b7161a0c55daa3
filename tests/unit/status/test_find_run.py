"""Which run is meant by a path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camoxpert_cli.errors import UsageError
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.status.find_run import find_run
from tests.helpers.written_runs import settings, write_begun


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        find_run(path)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_run(tmp_path: Path) -> None:
    """A folder in which a run began, one of its checkpoints, and a folder with one run somewhere below."""
    run = write_begun(tmp_path / "runs" / "deep" / "first")
    run.last.touch()

    assert find_run(run.path).path == find_run(run.last).path == find_run(tmp_path).path == run.path


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "metrics.jsonl", "history.json", "best_model.pth"])
def test_by_any_file(tmp_path: Path, name: str) -> None:
    """Each file that a run writes shows that it began."""
    run = write_begun(tmp_path / "run")
    run.metrics.write_text(json.dumps({"event": "step", "epoch": 1, "samples": 4}))
    run.history.write_text(json.dumps([{"epoch": 1}]))
    run.best.write_bytes(b"PK")
    for path in run.path.iterdir():
        if path.name != name:
            path.unlink()

    assert find_run(run.path).path == run.path


def test_no_run(tmp_path: Path) -> None:
    """A folder with other files, scores of `camox eval` among them, and an empty one; the hint starts a run there."""
    (tmp_path / "results.json").write_text(json.dumps({"sets": [], "validation": {}}))
    (tmp_path / "config.yaml").write_text("model: {}\n")
    (tmp_path / "env.json").write_text("{}")
    (tmp_path / "last.pth").mkdir()
    error = refusal(tmp_path)

    assert error.message.startswith(f"{tmp_path} contains no run, expected a run folder with config.yaml, ")
    assert error.hint == f"camox train --checkpoint-dir {tmp_path} --dataset-path DATA, which starts a run there"


def test_not_a_folder(tmp_path: Path) -> None:
    """A path that leads nowhere, one that is mistyped, and a file."""
    write_begun(tmp_path / "first")
    (tmp_path / "note.txt").touch()
    missing, mistyped, file = (refusal(tmp_path / name) for name in ("zzz/zzz", "frist", "note.txt"))

    assert missing.message == f"run folder not found: {tmp_path}/zzz/zzz"
    assert missing.hint.startswith(f"camox train --checkpoint-dir {tmp_path}/zzz/zzz")
    assert mistyped.hint == f"{tmp_path}/first, which has a similar name"
    assert file.message == f"{tmp_path}/note.txt is not a folder, expected a run folder"


def test_several(tmp_path: Path) -> None:
    """Of two runs none is taken."""
    for name in ("first run", "second"):
        write_begun(tmp_path / name, settings(tmp_path / name))
    error = refusal(tmp_path)

    assert "contains 2 runs: " in error.message
    assert error.hint == f"camox status '{tmp_path}/first run'"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")
def test_a_run_that_is_being_prepared(tmp_path: Path) -> None:
    """It has locked its folder and written nothing."""
    folder = tmp_path / "run"
    with RunFolder(folder).locked():
        found = find_run(folder)

    assert found.path == folder
    assert "not found" in refusal(folder).message
