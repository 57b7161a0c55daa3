"""`predict --continue` and `eval --continue`: a command that was killed is run again, and does what it had not done."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli import console
from camoxpert_cli.app import app
from camoxpert_cli.data import reading
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.evaluation import saving, test_sets
from camoxpert_cli.inference.outputs import Outputs
from tests.helpers.image_files import noise, write
from tests.helpers.places import ROOT
from tests.helpers.processes import camox
from tests.helpers.processes import run as run_process
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

PREDICT = ["predict", "best.pth", "photos", "--out", "maps", "--device", "cpu"]
EVAL = ["eval", "best.pth", "--dataset-path", "data", "--device", "cpu", "--batch-size", "1"]
SAVED = [*EVAL, "--save-predictions", "maps"]
SCORED = [*SAVED, "--out", "scores"]
# What camox knows its own pages by.
_PAGE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
# Kills the process when it is about to put file number {at} in place, half of which is written; -1 for none.
_DEADLY = """
import os, signal, sys
os.chdir({folder!r})
from pathlib import Path
from camoxpert_cli import app

original, calls = Path.replace, 0

def deadly(path, target):
    global calls
    calls += target.suffix in (".png", ".jpg")
    if calls == {at}:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, target)

Path.replace = deadly
sys.argv = ["camox", *{arguments!r}]
app.main()
"""


@pytest.fixture(scope="module")
def vivid(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vivid_checkpoint(vivid_network(tiny_data), tmp_path_factory.mktemp("vivid") / "vivid.pth")


@pytest.fixture(autouse=True)
def place(vivid: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with best.pth, the folder data, and as many images in photos."""
    shutil.copytree(tiny_data / "TestDataset", tmp_path / "data" / "TestDataset")
    shutil.copy(vivid, tmp_path / "best.pth")
    for index in range(TEST_IMAGES):
        write(tmp_path / "photos" / f"{index}.bmp", noise(index))
    monkeypatch.chdir(tmp_path)
    # The page, whose drawing takes seconds.
    monkeypatch.setattr("camoxpert_cli.report.page.render", lambda _: f"<!-- {_PAGE} -->")
    return tmp_path


def run(arguments: list[str], *more: str, code: int = 0) -> Any:
    outcome = CliRunner().invoke(app, [*arguments, *more])
    assert outcome.exit_code == code, outcome.output
    return outcome


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def identities(folder: str) -> dict[str, tuple[int, int]]:
    """What changes of a file that is written again, even with the same content."""
    found = {path: path.stat() for path in Path(folder).rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (each.st_ino, each.st_mtime_ns) for path, each in found.items()}


def in_process(arguments: list[str], at: int = -1) -> tuple[int, str]:
    script = _DEADLY.format(folder=str(Path.cwd()), at=at, arguments=arguments)
    return run_process([camox()[0], "-c", script], PYTHONPATH=str(ROOT))


def killed(arguments: list[str], at: int) -> None:
    code, output = in_process(arguments, at)
    assert code == -signal.SIGKILL, output


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_killed_prediction(at: int) -> None:
    """Killed within an image's files or between two, the same command writes the rest, and what it wrote before stays.

    All files are in the end those of an uninterrupted command, byte for byte, and nothing else is there.
    """
    command = [*PREDICT, "--overlay", "--tta", "flip"]
    run(command)
    whole = files("maps")
    shutil.rmtree("maps")
    killed(command, at)
    before = identities("maps")
    assert len(before) == at  # one of which is a temporary file
    outcome = run(command, "--continue")

    done = (at - 1) // 2
    assert (f"Kept {done} of {TEST_IMAGES} predictions in maps" in outcome.stderr) == (done > 0)
    assert outcome.stdout == f"{TEST_IMAGES} predictions in maps, overlays in {Path('maps', 'overlays')}\n"
    assert files("maps") == whole
    after = identities("maps")
    assert sum(after.get(name) == each for name, each in before.items()) == at - 1


def test_nothing_is_left_to_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images whose predictions are there are not even decoded, and nothing is written."""
    run(PREDICT)
    before = identities("maps")
    monkeypatch.setattr(reading, "decode", lambda *_: pytest.fail("an image is decoded"))
    outcome = run(PREDICT, "--continue")

    assert f"Kept {TEST_IMAGES} of {TEST_IMAGES} predictions in maps" in outcome.stderr
    assert outcome.stdout == f"{TEST_IMAGES} predictions in maps\n"
    assert identities("maps") == before


def another_checkpoint() -> None:
    content = torch.load("best.pth", weights_only=True)
    content["ema"]["final_conv.0.weight"] += 1
    torch.save(content, "best.pth")


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--threshold", "0.5"], "was made with no threshold"),
        (["--tta", "flip"], "was made with no tta"),
        (["--tiles", "64"], "was made with no tiles"),
        (["--img-size", "96"], "was made with img_size 64"),
        (["--tta", "scales", "--img-size", "96"], "was made with no tta and img_size 64"),
        ([], "was made with another checkpoint"),
    ],
)
def test_predictions_of_two_kinds_are_not_mixed(options: list[str], difference: str) -> None:
    """Nothing is computed where some are there of other options, and they are replaced where that is asked for."""
    run(PREDICT)
    Path("maps", "1.png").unlink()
    before = files("maps")
    if not options:
        another_checkpoint()
    refused = run([*PREDICT, *options], "--continue", code=2)

    assert "2 files in maps are from other images, another checkpoint or other options: maps/0.png" in refused.stderr
    assert difference in refused.stderr
    assert "--overwrite" in refused.stderr
    assert files("maps") == before
    outcome = run([*PREDICT, *options], "--continue", "--overwrite")
    assert "Kept" not in outcome.stderr
    assert run([*PREDICT, *options], "--continue").stderr.startswith(f"Kept {TEST_IMAGES} of {TEST_IMAGES}")


def test_predictions_to_keep_are_kept_where_others_are_replaced() -> None:
    """A command with --overwrite that was killed replaces the others alone."""
    run([*PREDICT, "--img-size", "96"])
    killed([*PREDICT, "--overwrite"], 2)
    before = identities("maps")
    outcome = run([*PREDICT, "--overwrite"], "--continue")

    assert f"Kept 1 of {TEST_IMAGES} predictions" in outcome.stderr
    kept = [name for name, each in identities("maps").items() if before.get(name) == each]
    assert kept == ["0.png"]


def test_predictions_that_say_nothing() -> None:
    """Those of an earlier version may be of any checkpoint: they are refused, and replaced where that is asked for."""
    run(PREDICT)
    path = Path("maps", "0.png")
    content = path.read_bytes()
    at = content.index(b"tEXtComment") - 4
    path.write_bytes(content[:at] + content[at + 12 + int.from_bytes(content[at : at + 4], "big") :])
    refused = run(PREDICT, "--continue", code=2)

    assert (
        "1 file in maps is from other images, another checkpoint or other options: maps/0.png does not"
        in refused.stderr
    )
    run(PREDICT, "--continue", "--overwrite")
    assert path.read_bytes() == content


def test_files_of_others_are_not_kept() -> None:
    """What camox did not write is neither kept nor replaced."""
    run(PREDICT)
    write(Path("maps", "1.png"), noise(7))
    before = files("maps")

    for more in ([], ["--overwrite"]):
        assert (
            "maps/1.png already exists and was not written by camox" in run(PREDICT, "--continue", *more, code=2).stderr
        )
    assert files("maps") == before


def test_an_image_that_was_replaced() -> None:
    """By one of the same size, name and time: its prediction is replaced on request; one that was cut off always is."""
    run(PREDICT)
    whole = files("maps")
    photo, cut = Path("photos", "0.bmp"), Path("maps", "1.png")
    cut.write_bytes(cut.read_bytes()[:-20])
    run(PREDICT, "--continue")
    assert files("maps") == whole
    before, status = photo.read_bytes(), photo.stat()
    photo.write_bytes(before[:-300] + bytes(300))
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    cut.write_bytes(cut.read_bytes()[:-20])
    refused = run(PREDICT, "--continue", code=2)
    assert "maps/0.png was made with another image" in " ".join(refused.stderr.split())
    outcome = run(PREDICT, "--continue", "--overwrite")

    assert photo.stat().st_size == status.st_size
    assert f"Kept 1 of {TEST_IMAGES} predictions" in outcome.stderr
    changed = files("maps")
    assert {name for name in whole if changed[name] != whole[name]} == {"0.png"}
    photo.write_bytes(before)
    run(PREDICT, "--continue", "--overwrite")
    assert files("maps") == whole


def test_overlays_that_were_not_asked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is done when all its files are there; the prediction that was there stays."""
    run(PREDICT)
    before = identities("maps")
    run([*PREDICT, "--overlay"], "--continue")

    after = identities("maps")
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"overlays/{index}.jpg" for index in range(TEST_IMAGES)}


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX"])
def test_schedulers_continue(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where a scheduler may run the command again, it continues, unless it is told not to."""
    monkeypatch.setenv(name, "1")
    run(PREDICT)
    before = identities("maps")
    run(PREDICT)

    assert identities("maps") == before
    assert "would overwrite" in run(PREDICT, "--no-continue", code=2).stderr


def test_another_process_with_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote in the meantime is what would be written; what another command wrote is not replaced."""
    run(PREDICT)
    whole = files("maps")
    shutil.rmtree("maps")
    make_folders = Outputs.make_folders

    def faster(self: Outputs) -> None:
        make_folders(self)
        Path("maps", "1.png").write_bytes(whole["1.png"])

    monkeypatch.setattr(Outputs, "make_folders", faster)
    run(PREDICT, "--continue")
    assert files("maps") == whole
    shutil.rmtree("maps")
    refused = run([*PREDICT, "--threshold", "0.5"], "--continue", code=2)
    assert "another process wrote maps/1.png in the meantime" in refused.stderr


def never_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((test_sets, "score_images"), (saving, "score_files")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("something is scored"))


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_evaluation_that_is_complete(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    """Its scores are printed as they were, without any image that is scored, and no file is written."""
    first = run(SCORED, *more)
    before = {**identities("scores"), **identities("maps")}
    never_scored(monkeypatch)
    again = run(SCORED, "--continue", *more)

    assert again.stdout == first.stdout != ""
    assert "Nothing to do: scores already contains these scores" in again.stderr
    assert {**identities("scores"), **identities("maps")} == before
    assert "already contains results.json" in run(SCORED, code=2).stderr


@pytest.mark.parametrize("lost", ["per_image.csv", "report.html", "results.json", None])
def test_scores_that_are_incomplete(lost: str | None) -> None:
    """They are computed again where a file is missing, or results.json has no scores; files of ours are replaced."""
    run(SCORED)
    whole = files("scores")
    results = Path("scores", "results.json")
    if lost is None:
        content = json.loads(results.read_text())
        del content["sets"][TEST_SET]["slices"]
        results.write_text(json.dumps(content))
    elif lost == "results.json":
        shutil.rmtree("scores")
    else:
        Path("scores", lost).unlink()
    outcome = run(SCORED, "--continue")

    assert "Written: scores/report.html" in outcome.stderr
    assert files("scores") == whole


def test_scores_of_another_evaluation() -> None:
    """They are refused before anything is scored, with what they differ in, and replaced where that is asked for."""
    command = [*EVAL, "--out", "scores"]
    run(command)
    before = files("scores")
    for more, difference in (
        (["--img-size", "96"], "was made with img_size 64"),
        (["--weights", "model", "--no-stretch"], "was made with weights ema and stretch True"),
    ):
        refused = run(command, *more, "--continue", code=2)
        assert f"scores already contains results.json, which {difference}" in refused.stderr
    mask = next(Path("data", "TestDataset", TEST_SET, "GT").iterdir())
    shutil.copy(mask, "mask.png")
    shutil.copy(mask.with_name("test-02.png"), "other.png")
    write(mask, noise(3, 60, 90)[..., 0] // 128 * 255)
    assert "which was made with other images or masks" in run(command, "--continue", code=2).stderr
    shutil.copy("mask.png", mask)
    another_checkpoint()
    assert "which was made with another checkpoint" in run(command, "--continue", code=2).stderr
    assert files("scores") == before
    run(command, "--continue", "--overwrite")
    assert "Nothing to do" in run(command, "--continue").stderr


def test_scores_that_do_not_say_of_what() -> None:
    """Those of an earlier version have no digests; a page or a table alone may be of any evaluation."""
    command = [*EVAL, "--out", "scores"]
    run(command)
    results = Path("scores", "results.json")
    content = json.loads(results.read_text())
    results.write_text(json.dumps({name: content[name] for name in content if not name.endswith("sha256")}))
    assert "results.json, which does not say how it was made" in run(command, "--continue", code=2).stderr
    results.unlink()
    assert "per_image.csv, which does not say how it was made" in run(command, "--continue", code=2).stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """Its predictions are kept, and scored as they were; the network predicts the others alone.

    Scores and predictions are those of an uninterrupted evaluation, byte for byte, also where two processes share them.
    """
    run(SCORED)
    whole, maps = files("scores"), files("maps")
    for folder in ("scores", "maps"):
        shutil.rmtree(folder)
    killed(SCORED, 3)
    before = identities(f"maps/{TEST_SET}")
    assert len(before) == 3  # one of which is a temporary file
    if processes == 1:
        predicted: list[int] = []

        def images(pairs: Sequence[Pair], size: int) -> ScoringImages:
            predicted.append(len(pairs))
            return ScoringImages(pairs, size)

        monkeypatch.setattr(test_sets, "ScoringImages", images)
        output = run(SCORED, "--continue").stderr
        assert predicted == [TEST_IMAGES - 2]
    else:
        code, output = in_process([*SCORED, "--continue", "--gpus", "2"])
        assert code == 0, output

    assert f"Kept 2 of {TEST_IMAGES} predictions in maps" in output
    after = identities(f"maps/{TEST_SET}")
    assert sum(before.get(name) == each for name, each in after.items()) == 2
    assert files("maps") == maps
    for name in ("results.json", "per_image.csv"):
        assert files("scores")[name] == whole[name]


def test_a_batch_of_which_some_are_there() -> None:
    """It is computed as a whole, and the predictions that are there stay."""
    command = [*SAVED, "--batch-size", "2", "--json"]
    first = run(command)
    before = identities("maps")
    Path("maps", TEST_SET, "test-01.png").unlink()
    again = run(command, "--continue")

    assert again.stdout == first.stdout
    after = identities("maps")
    assert {name for name in before if after[name] != before[name]} == {f"{TEST_SET}/test-01.png"}


def test_a_batch_that_is_missing_first() -> None:
    """Scores are in the order of the images, whether these were predicted now or before."""
    command = [*SCORED, "--overwrite"]
    run(command)
    whole = files("scores")
    Path("maps", TEST_SET, "test-00.png").unlink()
    shutil.rmtree("scores")
    run(command, "--continue")

    assert files("scores") == whole


def test_an_evaluation_whose_predictions_are_incomplete() -> None:
    """Scores that are complete are not all that was asked for."""
    run(SCORED)
    maps, scores = files("maps"), files("scores")
    Path("maps", TEST_SET, "test-01.png").unlink()
    outcome = run(SCORED, "--continue")

    assert f"Kept 2 of {TEST_IMAGES} predictions in maps" in outcome.stderr
    assert (files("maps"), files("scores")) == (maps, scores)


def test_another_evaluation_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with other options that wrote its scores in the meantime keeps them."""
    command = [*EVAL, "--out", "scores"]
    run(command, "--img-size", "96")
    theirs = files("scores")
    Path("scores").rename("theirs")
    monkeypatch.setattr(console, "result", lambda _: shutil.copytree("theirs", "scores", dirs_exist_ok=True))
    refused = run(command, "--continue", code=2)

    assert "scores already contains results.json, which was made with img_size 96" in refused.stderr
    assert files("scores") == theirs


def test_saved_predictions_of_two_kinds_are_not_mixed() -> None:
    """Those of `predict` are of another kind too: `eval` predicts at the size of the mask."""
    run(["predict", "best.pth", f"data/TestDataset/{TEST_SET}/Imgs", "--out", f"maps/{TEST_SET}", "--device", "cpu"])
    before = files("maps")
    refused = run(SAVED, "--continue", code=2)

    assert (
        f"{TEST_IMAGES} files in maps/{TEST_SET} are from other images, another checkpoint or other options"
        in refused.stderr
    )
    assert "was made with another command" in refused.stderr
    assert files("maps") == before
    run(SAVED, "--continue", "--overwrite")
    assert f"Kept {TEST_IMAGES} of {TEST_IMAGES} predictions in maps" in run(SAVED, "--continue").stderr


def test_given_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of the same predictions and masks are printed as they were; those of others are refused."""
    masks = Path("data", "TestDataset", TEST_SET, "GT")
    shutil.copytree(masks, "theirs")
    command = ["eval", "--predictions", "theirs", "--masks", str(masks), "--out", "scores"]
    first = run(command)
    before = identities("scores")
    again = run(command, "--continue")

    assert again.stdout == first.stdout
    assert identities("scores") == before
    shutil.copy("theirs/test-00.png", "theirs/test-01.png")
    assert "which was made with other images or masks" in run(command, "--continue", code=2).stderr
