"""What protects a user's files and nights: resuming with other settings, broken images, memory."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine import training_steps as steps_module
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import CheckpointError, DeviceError, PeerLostError, TrainingError, UsageError
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predict import predict
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import PLAIN, TEST_IMAGES, TEST_SET, TRAINING_IMAGES, tiny_plan, tiny_run


def test_a_broken_test_image_does_not_cost_the_results(run_copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    """After hours of training, a test set with a broken image is left out, and everything else is written."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    image = next((data / "TestDataset" / TEST_SET / "Imgs").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    (run_copy / "results.json").unlink()
    before = (run_copy / "best_model.pth").read_bytes()
    train(tiny_plan(data, run_copy, resume_from=str(run_copy / "last.pth"), **PLAIN))
    results = json.loads((run_copy / "results.json").read_text())

    assert results["tests"] == {}
    assert 0 <= results["validation"]["iou"] <= 1
    assert (run_copy / "best_model.pth").read_bytes() == before


def test_pictures_and_test_sets_of_every_kind(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run validates on a folder for that, and scores a test set of that name and one with a mask of another size."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    tests = data / "TestDataset"
    shutil.copytree(tests / TEST_SET, data / "val")
    shutil.copytree(tests / TEST_SET, tests / "validation")
    for path in list((data / "val").rglob("*.png")):
        path.rename(path.with_stem(f"v{path.stem}"))
    path = next((tests / TEST_SET / "GT").iterdir())
    mask = cv2.imread(str(path), 0)
    assert mask is not None
    cv2.imwrite(str(path), mask[:-2])
    short = {"epochs": 1, "stage1_epochs": 0, "stage2_batch_size": 8}
    folder = train(tiny_plan(data, tmp_path / "run", **short)).folder
    results = json.loads(folder.results.read_text())
    rows = list(csv.DictReader(folder.per_image.read_text(encoding="utf-8").splitlines()))
    said = capsys.readouterr().err

    assert f"{TRAINING_IMAGES} for training, {TEST_IMAGES} for validation" in said
    assert f"{TEST_SET}: image and mask differ in size for 1 of {TEST_IMAGES} pairs, the first is {path.stem}" in said
    assert results["tests"].keys() == {TEST_SET, "validation-test"}
    assert results["tests"]["validation-test"]["images"] == TEST_IMAGES
    sets = {TEST_SET, "validation-test", "validation"}
    assert Counter(row["dataset"] for row in rows) == dict.fromkeys(sets, TEST_IMAGES)
    assert {row["name"][0] for row in rows if row["dataset"] == "validation"} == {"v"}


def test_foreign_weights_are_not_replaced_by_the_run_that_starts_from_them(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path
) -> None:
    """A file of the original program must lie outside the new run's folder, whose best_model.pth it may be."""
    path = tmp_path / "best_model.pth"
    torch.save({"epoch": 1, "model_state_dict": read_checkpoint(plain_run.last)["network"]}, path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="was written by another program"):
        train(tiny_plan(tiny_data, tmp_path, resume_from=str(path)))

    assert path.read_bytes() == before


def test_a_run_folder_is_no_file_of_weights(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """`--resume-from` takes a file; which of a folder's checkpoints it is to be is for `camox resume` to find."""
    with pytest.raises(CheckpointError, match="is a folder"):
        decide(tiny_run(tiny_data, tmp_path / "run", resume_from=str(plain_run.path)))


@pytest.mark.parametrize("changed", [{"seed": 7}, {"val_fraction": 0.5}])
def test_another_hold_out_is_refused(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Resuming with settings that would validate on images trained on before is refused with exit code 4."""
    with pytest.raises(CheckpointError, match="was trained on different images"):
        train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(plain_run.last), epochs=3, **changed))


def test_a_finished_run_can_be_extended(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """More epochs, another weight decay and backbone rate take effect, though phases begin at other epochs then."""
    settings = {"epochs": 3, "weight_decay": 0.25, "backbone_lr_factor": 0.5, "progressive_unfreeze": False}
    folder = train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(plain_run.last), **settings)).folder
    content = read_checkpoint(folder.last)
    groups = content["training"]["optimizer"]["param_groups"]

    assert content["epoch"] == 3
    assert {group["weight_decay"] for group in groups} == {0.25}
    assert {group["name"]: group["lr_factor"] for group in groups} == {"network": 1.0, "backbone": 0.5}
    assert content["config"]["run"]["resume_from"] is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=["torch", "cuDNN"],
)
def test_a_full_gpu_is_one_sentence(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    """Out of memory ends with what to make smaller, exit code 6, not with a traceback."""

    def full(*_: object, **__: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(steps_module, "backward", full)
    with pytest.raises(TrainingError, match="ran out of memory in epoch 1") as caught:
        train(tiny_plan(tiny_data, tmp_path / "run"))

    assert "--gradient-checkpointing" in caught.value.hint


def test_a_faulty_gpu_is_one_sentence(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it happened and what is kept, with doctor as the next thing to type and exit code 5."""

    def faulty(*_: object, **__: object) -> torch.Tensor:
        raise torch.AcceleratorError(
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"
        )

    monkeypatch.setattr(steps_module, "backward", faulty)
    with pytest.raises(DeviceError) as caught:
        train(tiny_plan(tiny_data, tmp_path / "run"))

    assert caught.value.message == (
        "the GPU cannot be used: CUDA error: an illegal memory access was encountered, in epoch 1; "
        "no weights had been saved"
    )
    assert caught.value.hint == "camox doctor"


def test_a_collective_of_torchs_own_that_fails(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in SyncBatchNorm: the rank lost the others, which is not a mistake of its own."""

    def lost(*_: object, **__: object) -> torch.Tensor:
        raise torch.distributed.DistBackendError("NCCL error: remote process exited\nncclRemoteError")

    monkeypatch.setattr(steps_module, "backward", lost)
    with pytest.raises(
        PeerLostError, match="this process lost the connection to the other ranks: NCCL error: remote process exited"
    ):
        train(tiny_plan(tiny_data, tmp_path / "run"))


def test_a_failed_first_try_does_not_lock_its_folder(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stopped before its first epoch ended leaves nothing to lose: the same folder works again."""
    monkeypatch.setattr(train_module, "train_epoch", lambda *_: (_ for _ in ()).throw(TrainingError("stop")))
    for _ in range(2):
        with pytest.raises(TrainingError, match="stop"):
            train(tiny_plan(tiny_data, tmp_path / "run"))

    assert (tmp_path / "run" / "config.yaml").exists()


def test_masks_are_not_overwritten_by_predictions(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """`--out` on a folder with other files of the same names is refused; earlier predictions are replaced if asked."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    images, masks = data / "TestDataset" / TEST_SET / "Imgs", data / "TestDataset" / TEST_SET / "GT"
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    checkpoint = plain_run.best
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="was not written by camox"):
            predict(checkpoint, [images], Outputs(masks), device="cpu", img_size=None, overwrite=overwrite)
    predict(checkpoint, [images], Outputs(tmp_path / "predictions", 0.5), device="cpu", img_size=None, overwrite=False)
    binary = {path.name: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    written = predict(
        checkpoint, [images], Outputs(tmp_path / "predictions"), device="cpu", img_size=None, overwrite=True
    )

    assert {path.name: path.read_bytes() for path in masks.iterdir()} == before
    assert {path.name for path in written} == before.keys()
    assert {path.name: path.read_bytes() for path in written} != binary
