"""What a run leaves in its folder, whenever and however it ends."""

from __future__ import annotations

import io
import json
import shlex
import signal
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.commands.training_outcome import print_outcome
from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.saving import Saver
from camoxpert_cli.engine.train import train
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import Interrupted, UsageError
from camoxpert_cli.launch.start import start
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.metrics.measures import COLUMNS
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import write_content
from tests.helpers.compare import differences
from tests.helpers.run_files import events, read_json
from tests.helpers.scoring import evaluate
from tests.helpers.tiny_data import PLAIN, TEST_IMAGES, TEST_SET, tiny_plan, tiny_run

CPU = torch.device("cpu")


def test_files(plain_run: RunFolder) -> None:
    """A finished run has left exactly these files, and no temporary one."""
    names = "config.yaml env.json metrics.jsonl history.json last.pth previous.pth best_model.pth results.json"

    assert {path.name for path in plain_run.path.iterdir()} == {*names.split(), "per_image.csv"}


def test_history(plain_run: RunFolder) -> None:
    """history.json is a list with one object an epoch, of exactly these keys and types."""
    types = {
        "epoch": int,
        "stage": int,
        "train_loss": float,
        "iou": float,
        "dice": float,
        "mae": float,
        "lr": float,
        "seconds": float,
    }
    history = read_json(plain_run.history)

    assert [{key: type(value) for key, value in row.items()} for row in history] == [types, types]
    assert [(row["epoch"], row["stage"]) for row in history] == [(1, 1), (2, 2)]
    assert all(row["train_loss"] > 0 and row["seconds"] > 0 for row in history)


def test_settings_are_kept(plain_run: RunFolder, tiny_data: Path) -> None:
    """config.yaml is a preset that resolves to the settings of the run."""
    kept = resolve(str(plain_run.path / "config.yaml"), {}).config

    assert kept == tiny_run(tiny_data, plain_run.path, **PLAIN).config


def test_metrics_lines(plain_run: RunFolder) -> None:
    """metrics.jsonl has a line for each step, with rates, gradient and every loss term, and one for each epoch.

    Beside what the history has, an epoch's line says how fast it went, and how its images used the experts.
    """
    lines = [json.loads(line) for line in plain_run.metrics.read_text(encoding="utf-8").splitlines()]
    keys = "event time epoch samples lr group_lr gradient_norm total bce iou edge deep balance"
    steps = [line for line in lines if line["event"] == "step"]

    # 8 images in batches of 4, then of 3.
    assert [line["event"] for line in lines] == ["step"] * 2 + ["epoch"] + ["step"] * 3 + ["epoch"]
    assert [(line["epoch"], line["samples"]) for line in steps] == [(1, 4), (1, 8), (2, 3), (2, 6), (2, 8)]
    assert all(list(line) == keys.split() for line in steps)
    assert [list(line["group_lr"]) for line in steps] == [["network"]] * 2 + [["network", "backbone"]] * 3
    assert all(line["group_lr"]["network"] == line["lr"] for line in steps)
    rows = [{key: line[key] for key in line if key not in ("event", "time")} for line in events(plain_run, "epoch")]
    assert all(0 <= row.pop("data_wait") <= 1 for row in rows)
    assert all(row.pop("images_per_s") > 0 and row.pop("memory_bytes") > 0 for row in rows)
    assert all(row.pop("skipped_steps") == 0 for row in rows)
    # Two experts, both of which each image takes, in each of four layers.
    assert all(row.pop("expert_use") == [[1.0, 1.0]] * 4 for row in rows)
    assert all(row.pop("routing_entropy") == [1.0] * 4 and row.pop("dead_experts") == [0] * 4 for row in rows)
    assert rows == read_json(plain_run.history)


def test_train_loss_is_a_mean_over_images(plain_run: RunFolder) -> None:
    """The uneven last batch counts by its images, not as a batch."""
    losses = [line["total"] for line in events(plain_run, "step") if line["epoch"] == 2]
    expected = (3 * losses[0] + 3 * losses[1] + 2 * losses[2]) / 8

    assert read_json(plain_run.history)[1]["train_loss"] == pytest.approx(expected, rel=1e-12)


def test_total_is_the_weighted_sum(plain_run: RunFolder) -> None:
    """The terms in metrics.jsonl add up to the loss with the weights of the network's description (float32 sums)."""
    for line in events(plain_run, "step"):
        terms = 5 * line["bce"] + 3 * line["iou"] + 2 * line["edge"] + 0.4 * line["deep"] + 0.1 * line["balance"]
        assert line["total"] == pytest.approx(terms, rel=1e-6)


def assert_overlap(full: dict[str, Any], quick: dict[str, Any]) -> None:
    """All measures agree to the bit with those of every epoch, where those have them."""
    assert {name: full[name] for name in quick} == quick


def test_results(plain_run: RunFolder, tiny_data: Path) -> None:
    """results.json holds the best epoch's validation scores, and its weights' scores on the test set."""
    results, history = read_json(plain_run.results), read_json(plain_run.history)
    best = max(history, key=lambda row: row["iou"])
    dataset = ScoringImages(find_data([tiny_data]).tests[TEST_SET], 64)
    network = load_model(plain_run.best, ema=True)
    scores = evaluate(network, scoring_loader(dataset, 4, 0))

    assert results["checkpoint"] == "best_model.pth"
    assert results["epoch"] == best["epoch"]
    assert_overlap(results["validation"], {"images": 3, **{key: best[key] for key in ("iou", "dice", "mae")}})
    assert set(results["tests"]) == {TEST_SET}
    assert scores.images == TEST_IMAGES
    assert_overlap(results["tests"][TEST_SET], {"images": scores.images, **scores.measures})
    assert set(COLUMNS) < set(results["validation"]) == set(results["tests"][TEST_SET])
    assert results["baselines"] == {}
    assert results["seconds"] == pytest.approx(sum(row["seconds"] for row in history), abs=0.06)


def test_folder_of_another_run(plain_run: RunFolder, tiny_data: Path) -> None:
    """Training into the folder of another run is refused with exit code 2 before anything in it changes."""
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in plain_run.path.iterdir()}
    with pytest.raises(UsageError, match="already contains a run") as caught:
        train(tiny_plan(tiny_data, plain_run.path))

    assert caught.value.exit_code == 2
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in plain_run.path.iterdir()} == before


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_folder_that_is_a_file(tiny_data: Path, tmp_path: Path, below: str) -> None:
    """A run folder that is a file, or below one, is refused with exit code 2 before training."""
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        train(tiny_plan(tiny_data, tmp_path / "file" / below))

    assert caught.value.exit_code == 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


@dataclass(frozen=True)
class Ended:
    """A run, and what was printed by the time it had ended."""

    outcome: Outcome
    printed: str


def end(resolved: Resolved) -> Ended:
    with redirect_stdout(io.StringIO()) as printed:
        return Ended(start(resolved), printed.getvalue())


@pytest.fixture(scope="module")
def complete(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run of one epoch with a report, in the folder of a try that ended before its first epoch did."""
    folder = tmp_path_factory.mktemp("complete")
    (folder / "metrics.jsonl").write_text('{"event": "step", "epoch": 1}\n', encoding="utf-8")
    return end(tiny_run(tiny_data, folder, epochs=1, stage1_epochs=0, batch_size=8, stage2_batch_size=8, report=True))


@pytest.fixture(scope="module")
def early(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that the clock ends before its first step."""
    with pytest.MonkeyPatch.context() as patched:
        # No checkpoint is so small that a second suffices.
        patched.setattr("camoxpert_cli.engine.time_limit.process_start", lambda pid: 0.0)
        return end(tiny_run(tiny_data, tmp_path_factory.mktemp("early"), time_limit="1s"))


def test_report(complete: Ended) -> None:
    """A run asked for a report leaves a page with its epochs, sets and images, and its curves as PNG."""
    folder = complete.outcome.folder
    page = folder.report.read_text(encoding="utf-8")

    assert "validation" in page
    assert f"{TEST_SET}" in page
    assert "test-00" in page
    assert "stage1_epochs" in page
    assert folder.curves.read_bytes().startswith(b"\x89PNG")


def test_second_try(complete: Ended) -> None:
    """The steps of a run that ended before its first epoch did are not mistaken for those of the next one."""
    assert len(events(complete.outcome.folder, "step")) == 1


def test_training_itself_prints_no_result(complete: Ended, early: Ended) -> None:
    """What came out is returned, whether the run is complete or the clock ended it."""
    whole, cut = complete.outcome, early.outcome

    assert (complete.printed, early.printed) == ("", "")
    assert whole.results == read_json(whole.folder.results)
    assert (whole.stop, whole.epochs, whole.images) == (None, 1, 8)
    assert (cut.results, cut.epochs, cut.images) == (None, 0, 0)
    assert cut.stop is not None
    assert cut.stop.exit_code == 0


def test_json(complete: Ended, early: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    """`as_json` leaves the results and nothing else on stdout; a run that the clock ends says how to go on."""
    print_outcome(complete.outcome, as_json=True)
    whole = json.loads(capsys.readouterr().out)
    print_outcome(early.outcome, as_json=True)
    cut = json.loads(capsys.readouterr().out)
    folder, other = complete.outcome.folder, early.outcome.folder

    assert whole == {"complete": True, "run_folder": str(folder.path), **read_json(folder.results)}
    assert (cut["complete"], cut["epochs"], cut["next"]) == (False, 0, f"camox resume {other.path}")
    assert "the time limit of 1s" in cut["reason"]


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("train --set train.lr=0.5", "camoxpert_cli.launch.start.start"),
        ("resume RUN --set train.lr=0.5", "camoxpert_cli.launch.resume.resume"),
    ],
)
def test_commands_print_json(complete: Ended, monkeypatch: pytest.MonkeyPatch, command: str, place: str) -> None:
    """With `--json`, the outcome of `camox train` and `camox resume` is JSON and nothing else, and a table without."""
    monkeypatch.setattr(place, lambda *_: complete.outcome)
    as_json = CliRunner().invoke(app, [*command.split(), "--json"])
    as_table = CliRunner().invoke(app, command.split())

    assert json.loads(as_json.stdout)["run_folder"] == str(complete.outcome.folder.path)
    assert as_table.stdout.split()[:2] == ["images", "IoU"]


def test_best_weights(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """best_model.pth has weights, EMA and scores of the best epoch, the first of two equal ones; nothing later."""
    ious = iter([0.3, 0.5, 0.5])
    weights: list[dict[str, Any]] = []

    def validate(run: Run) -> Scores:
        assert run.state.ema is not None
        state = {"network": run.state.network.state_dict(), "ema": run.state.ema.network.state_dict()}
        weights.append({name: {key: value.clone() for key, value in each.items()} for name, each in state.items()})
        return Scores({"iou": next(ious), "dice": 0.1, "mae": 0.2})

    monkeypatch.setattr(train_module, "validate", validate)
    few = {"epochs": 3, "stage1_epochs": 3, "val_fraction": 0.75, "warmup_epochs": 0}
    folder = train(tiny_plan(tiny_data, tmp_path / "run", **few, target_iou=0.5)).folder
    best = read_checkpoint(folder.best)
    results = read_json(folder.results)

    assert differences(best["network"], weights[1]["network"]) == []
    assert differences(best["ema"], weights[1]["ema"]) == []
    assert differences(best["network"], weights[2]["network"]) != []
    assert (best["epoch"], best["scores"]["iou"], "training" in best) == (2, 0.5, False)
    assert results["epoch"] == 2
    seconds = [row["seconds"] for row in read_json(folder.history)]
    assert results["seconds_to_target"] == pytest.approx(sum(seconds[:2]))


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_between_two_files(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while an epoch is written down waits until all files tell of it, checkpoints whole; the exit code is 130.

    The hint is a command that goes on in the same folder, though the settings leave its name to the program.
    """

    save_behind = Saver.save_behind

    def pressing(saver: Saver, best_before: Best | None = None) -> None:
        signal.raise_signal(signal.SIGINT)
        save_behind(saver, best_before)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Saver, "save_behind", pressing)
    with pytest.raises(
        Interrupted, match=r"stopped by Ctrl-C in epoch 2 of 2, .*; saved to runs/.*/last\.pth"
    ) as caught:
        train(tiny_plan(tiny_data, tmp_path, checkpoint_dir=None, batch_size=8))
    (folder,) = [RunFolder(path) for path in Path("runs").iterdir()]
    dry = CliRunner().invoke(app, [*shlex.split(caught.value.hint)[1:], "--dry-run"])

    assert caught.value.exit_code == 130
    assert [read_checkpoint(path)["epoch"] for path in (folder.last, folder.best)] == [1, 1]
    assert [row["epoch"] for row in read_json(folder.history)] == [1]
    assert [row["epoch"] for row in events(folder, "epoch")] == [1]
    assert caught.value.hint == f"camox resume {folder.path}"
    assert dry.exit_code == 0, dry.output
    assert f"Run folder       {folder.path}\n" in dry.stdout
    assert "epoch 2 of 2" in dry.stdout


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a checkpoint is written leaves the file before it, and is no error of the disk."""
    path = tmp_path / "last.pth"
    write_content(path, {"network": {}, "epoch": 3})
    before, save = path.read_bytes(), torch.save

    def pressing(content: Any, file: Any) -> None:
        save(content, file)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch, "save", pressing)
    with pytest.raises(KeyboardInterrupt):
        write_content(path, {"network": {}, "epoch": 4})

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
