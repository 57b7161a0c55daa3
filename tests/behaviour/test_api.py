"""camox from Python: what a notebook gets back, and what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli import evaluate, load_model, predict, train
from camoxpert_cli.config import eval_options
from camoxpert_cli.config.eval_options import Inference, Protocol
from camoxpert_cli.config.parse import parse_tta
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.errors import CamoxError, CheckpointError, ConfigError, DataError, UsageError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import content_of, save
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

# Of a run of seconds.
SMALL: dict[str, Any] = {
    "backbone": "test_resnet", "num_experts": 2, "pretrained": False, "img_size": 64, "val_fraction": 0.25,
    "num_workers": 0, "cache": "off", "epochs": 2, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 3,
    "device": "cpu", "report": False,
}  # fmt: skip


@pytest.fixture
def images(tiny_data: Path) -> list[Path]:
    return sorted((tiny_data / "TestDataset" / TEST_SET / "Imgs").iterdir())


def test_train(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run has ended, its scores are shown, and its folder knows where weights and scores are.

    Time limits count from the call: a notebook may be older than the limit.
    """
    monkeypatch.setattr("camoxpert_cli.engine.time_limit.process_start", lambda *_: 0.0)
    short = SMALL | {"epochs": 1, "stage1_epochs": 0, "stage2_batch_size": 8, "time_limit": "1h"}
    run = train(dataset_path=tiny_data, checkpoint_dir=tmp_path / "run", **short)

    assert run.best.exists()
    assert f"test {TEST_SET}" in capsys.readouterr().out
    assert json.loads(run.results.read_text())["tests"][TEST_SET]["images"] == TEST_IMAGES
    assert repr(run) == f"RunFolder({str(tmp_path / 'run')!r})"


def test_one_image_and_several(plain_run: RunFolder, images: list[Path]) -> None:
    """An image gives its map at its own size, a list a list in its order; arrays are as good as files."""
    arrays = [read_image(path)[0] for path in images]
    first = predict(plain_run.best, images[0])
    mixed: list[Any] = [images[1], arrays[0]]
    several = predict(str(plain_run.best), mixed, device="cpu")

    assert first.dtype == np.float32
    assert first.shape == arrays[0].shape[:2]
    assert 0 <= first.min() <= first.max() <= 1
    assert [each.shape for each in several] == [arrays[1].shape[:2], arrays[0].shape[:2]]
    assert np.allclose(several[1], first, atol=1e-6)  # in a batch, up to rounding
    assert predict(plain_run.best, []) == []


def test_a_network_gives_the_maps_of_its_checkpoint(plain_run: RunFolder, images: list[Path]) -> None:
    """`load_model` takes the weights and the size that `predict` takes; views and sizes are those asked for."""
    network = load_model(plain_run.best)

    assert np.array_equal(predict(network, images[0]), predict(plain_run.best, images[0]))
    assert np.array_equal(predict(network, images[0], img_size=96), predict(plain_run.best, images[0], img_size=96))
    mirrored = predict(network, np.ascontiguousarray(read_image(images[0])[0][:, ::-1]), tta="flip")
    assert np.allclose(mirrored[:, ::-1], predict(network, images[0], tta="flip"), atol=1e-6)


def test_files(tiny_data: Path, images: list[Path], tmp_path: Path) -> None:
    """With `out` the maps are files, as the command writes them, of folders too; size and views are those asked for."""
    best = write_vivid_checkpoint(vivid_network(tiny_data), tmp_path / "vivid.pth")
    written = predict(best, images[0].parent, out=tmp_path / "maps", overlay=True, tta="flip", img_size=96)
    map_ = cv2.imread(str(written[0]), cv2.IMREAD_UNCHANGED)
    values = predict(best, images[0], tta="flip", img_size=96)

    assert written == [tmp_path / "maps" / path.name for path in images]
    assert map_ is not None
    assert np.abs(map_ / 255 - values).max() <= 0.5 / 255 + 1e-6
    assert len(list((tmp_path / "maps" / "overlays").iterdir())) == TEST_IMAGES


def test_tiles(tiny_data: Path, images: list[Path], tmp_path: Path) -> None:
    """They are those of the command, for arrays too, and another map than of the whole image."""
    network = vivid_network(tiny_data)
    (written,) = predict(network, images[0], out=tmp_path / "maps", tiles=64)
    image = read_image(images[0])[0]
    values = predict(network, [image], tiles=64)[0]
    map_ = cv2.imread(str(written), cv2.IMREAD_UNCHANGED)

    assert map_ is not None
    assert values.shape == image.shape[:2]
    assert np.abs(map_ / 255 - values).max() <= 0.5 / 255 + 1e-6
    assert np.abs(predict(network, image) - values).max() > 0.1


def test_evaluate(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """Scores of each image and their means, equal to those that ended the run; files where they are asked for."""
    scored = evaluate(plain_run.best, dataset_path=[tiny_data], device="cpu", out=tmp_path / "scores")
    only = scored.sets[0]

    assert (only.name, len(only.scores)) == (TEST_SET, TEST_IMAGES)
    assert only.means.iou == pytest.approx(json.loads(plain_run.results.read_text())["tests"][TEST_SET]["iou"])
    assert json.loads((tmp_path / "scores" / "results.json").read_text()) == scored.to_json()
    assert (tmp_path / "scores" / "report.html").exists()
    folder = tiny_data / "TestDataset" / TEST_SET
    by_folders = evaluate(plain_run.best, images=folder / "Imgs", masks=str(folder / "GT"), device="cpu")
    assert by_folders.sets[0].means.iou == only.means.iou


def test_an_evaluation_is_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keyword arrives where it belongs, as the command's flag of its name does."""
    asked: list[Any] = []
    monkeypatch.setattr("camoxpert_cli.api.evaluate_checkpoint", lambda *given, **named: asked.extend([*given, named]))
    with pytest.raises(AssertionError):  # nothing was scored
        evaluate(
            "best.pth",
            dataset_path="DATA",
            sets="CAMO",
            negatives="sea",
            include_noncam=True,
            weights="model",
            img_size=96,
            batch_size=2,
            precision="bf16",
            tta="flip",
            stretch=False,
            empty_masks="exact",
            device="cpu",
            save_predictions="maps",
        )

    checkpoint, data, inference, protocol, run, destination, _ = asked
    assert (checkpoint, destination.predictions, run.device) == (Path("best.pth"), Path("maps"), "cpu")
    assert data == eval_options.TestData([Path("DATA")], [], ["CAMO"], include_noncam=True, negatives=[Path("sea")])
    assert inference == Inference(96, 2, "bf16", parse_tta("flip"), "model")
    assert protocol == Protocol(stretch=False, empty="exact")


GREY = np.zeros((70, 80), np.uint8)
REFUSALS: dict[str, tuple[Callable[[Path, Path], object], type[CamoxError], str]] = {
    "grey": (lambda best, _: predict(best, GREY), DataError, r"uint8 and shape \(70, 80\), expected RGB, uint8 of"),
    "float": (lambda best, _: predict(best, [np.zeros((9, 9, 3))]), DataError, "dtype float64 and shape"),  # type: ignore[type-var]
    "type": (lambda best, _: predict(best, 7), UsageError, "an image has type int"),  # type: ignore[call-overload]
    "folder": (lambda best, data: predict(best, data), DataError, r"is a folder, expected an image\nTry: .*glob"),
    "nowhere": (lambda best, _: predict(best, "no.jpg"), DataError, "cannot read no.jpg"),
    "nameless": (lambda best, _: predict(best, GREY[..., None].repeat(3, 2), out="maps"), UsageError, "no file name"),
    "no out": (lambda best, _: predict(best, "a.jpg", threshold=0.5), UsageError, "out= is missing"),  # type: ignore[call-overload]
    "overlay": (lambda best, _: predict(best, "a.jpg", overlay=True), UsageError, "out= is missing"),  # type: ignore[call-overload]
    "overwrite": (lambda best, _: predict(best, "a.jpg", overwrite=True), UsageError, "out= is missing"),  # type: ignore[call-overload]
    "size": (lambda best, _: predict(best, "a.jpg", img_size=32), UsageError, "img_size is 32, expected .* 64"),
    "views": (lambda best, _: predict(best, "a.jpg", tta="rotate"), UsageError, "expected flip, scales"),
    "tiles": (lambda best, _: predict(best, "a.jpg", tiles=32), UsageError, "tiles is 32, expected .* 64"),
    "checkpoint": (lambda *_: predict("no.pth", GREY[..., None].repeat(3, 2)), CheckpointError, "no.pth"),
    "training": (lambda best, _: predict(load_model(best).train(), []), UsageError, "training mode"),
    "moved": (lambda best, _: predict(load_model(best), [], device="cpu"), UsageError, "a network stays on its device"),
    "no data": (lambda best, _: evaluate(best), UsageError, "no test set was given"),
    "no masks": (lambda best, data: evaluate(best, images=data), UsageError, "belong together"),
    "precision": (
        lambda best, data: evaluate(best, dataset_path=data, precision="fp8"),  # type: ignore[arg-type]
        UsageError, "precision is 'fp8', expected one of 'fp32'",
    ),
    "batch": (lambda best, data: evaluate(best, dataset_path=data, batch_size=0), UsageError, "batch_size is 0"),
    "device": (lambda best, data: evaluate(best, dataset_path=data, device="tpu"), ConfigError, "--device is 'tpu'"),
    "set": (
        lambda best, data: evaluate(best, dataset_path=data, sets="CAMO", device="cpu"),
        UsageError, "unknown test set 'CAMO', expected one of TINY",
    ),
    "settings": (lambda *_: train(epoch=3, learning=1), ConfigError, "unknown setting epoch; did you mean epochs"),
    "value": (lambda *_: train(epochs=0, lr="abc"), ConfigError, r"epochs is 0[\s\S]*lr is 'abc'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Bad input is one error of its kind whose text says what was expected, before anything is written."""
    monkeypatch.chdir(tmp_path)
    call, kind, message = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call(plain_run.best, tiny_data)

    assert list(tmp_path.iterdir()) == []


def test_a_network_of_unknown_size(tmp_path: Path) -> None:
    """Where the file does not say at which size it was trained, the caller has to."""
    path = save(content_of(CamoXpert(create_backbone("test_resnet"), "test_resnet", 2)), tmp_path)
    image = np.zeros((70, 80, 3), np.uint8)
    with pytest.raises(UsageError, match="the network's training image size is unknown"):
        predict(load_model(path), image)

    assert predict(load_model(path), image, img_size=64).shape == (70, 80)
