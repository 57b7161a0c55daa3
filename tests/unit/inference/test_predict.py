from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.data.reading import read_image, read_mask
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.errors import CamoxError, DataError, UsageError
from camoxpert_cli.inference.batches import batches, to_compute
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.overlay import overlay
from camoxpert_cli.inference.predict import predict, probabilities
from camoxpert_cli.inference.predictions import grey_prediction, predict_probabilities
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.scoring import evaluate
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network


@pytest.fixture(scope="module")
def network(tiny_data: Path) -> CamoXpert:
    return vivid_network(tiny_data)


@pytest.fixture(scope="module")
def images(tiny_data: Path) -> Path:
    return tiny_data / "TestDataset" / TEST_SET / "Imgs"


@pytest.fixture(scope="module")
def maps(network: CamoXpert, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all images' maps, which did not exist before, nor did the one above it."""
    folder = tmp_path_factory.mktemp("deep") / "deep" / "maps"
    assert run(network, [images], folder) == TEST_IMAGES
    return folder


def run(
    network: CamoXpert,
    paths: Sequence[Path],
    out: Path | Outputs,
    img_size: int | None = None,
    overwrite: bool = False,
    tta: Tta = NO_TTA,
) -> int:
    """Number of maps; they are where it is said that they are."""
    outputs = out if isinstance(out, Outputs) else Outputs(out)
    predictions = predict(network, paths, outputs, device=None, img_size=img_size, overwrite=overwrite, tta=tta)
    assert all(path.exists() for path in predictions)
    return len(predictions)


def read(path: Path) -> NDArray[np.uint8]:
    map_ = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert map_ is not None
    return np.asarray(map_, dtype=np.uint8)


def nearly_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """But for rounding: by one gray level in a few pixels, since kernels depend on the size of a batch."""
    apart = np.abs(one.astype(np.float64) - other)
    return bool(apart.max() <= 1 and (apart > 0).mean() < 1e-3)


def refusal(network: CamoXpert, paths: Sequence[Path], out: Path) -> CamoxError:
    """The error of a prediction that must leave no map behind."""
    with pytest.raises(CamoxError) as caught:
        run(network, paths, out)
    assert not out.exists() or not list(out.glob("*.png"))
    return caught.value


def test_maps(network: CamoXpert, tiny_data: Path, maps: Path) -> None:
    """A map is grey, of its image's own size, and the network's probability times 255, rounded."""
    pairs = find_data([tiny_data]).tests[TEST_SET]
    samples = ScoringImages(pairs, 64)

    assert {path.name for path in maps.iterdir()} == {f"{pair.name}.png" for pair in pairs}
    for at, pair in enumerate(pairs):
        size = read_mask(pair.mask).shape
        probability = predict_probabilities(network, samples[at][0][None], [size], None)[0].numpy()
        written = read(maps / f"{pair.name}.png")
        assert written.shape == size
        assert nearly_equal(written, np.rint(probability * 255))
        assert written.min() < 64
        assert written.max() > 192


def test_written_maps_score_as_evaluated(network: CamoXpert, tiny_data: Path, maps: Path) -> None:
    """The IoU of the written maps, stretched to 0..1, is the one that `evaluate` gives the network, exactly."""
    pairs = find_data([tiny_data]).tests[TEST_SET]
    overlaps = []
    for pair in pairs:
        grey, truth = read(maps / f"{pair.name}.png").astype(np.float64), read_mask(pair.mask) > 0
        found = (grey - grey.min()) / (grey.max() - grey.min()) > 0.5
        overlaps.append((found & truth).sum() / (found | truth).sum())
    batches = scoring_loader(ScoringImages(pairs, 64), 1, 0)
    scores = evaluate(network, batches)

    assert scores.iou == pytest.approx(np.mean(overlaps), abs=1e-12)
    assert 0 < min(overlaps) < max(overlaps) < 1


def test_files_and_folders(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """Images and folders can be given together; what is no image, or hidden, is passed over in a folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    names = sorted(path.name for path in images.iterdir())
    shutil.copy(images / names[0], folder / "one.PNG")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    (folder / "._one.jpg").write_bytes(b"what macOS adds to archives")
    count = run(network, [folder, images / names[1], images / names[2]], tmp_path / "maps")

    assert count == 3
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"one.png", names[1], names[2]}


def test_size(network: CamoXpert, images: Path, maps: Path, tmp_path: Path) -> None:
    """The network sees images at the size it was trained at, unless another is asked for."""
    first = min(images.iterdir())
    predictions = []
    for size in (64, 96):
        run(network, [first], tmp_path / str(size), size)
        predictions.append(read(tmp_path / str(size) / first.name))

    assert nearly_equal(predictions[0], read(maps / first.name))
    assert not nearly_equal(predictions[1], read(maps / first.name))


def test_unreadable_image(network: CamoXpert, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that cannot be read is named, all others get their maps, and the exit code is 3."""
    folder = tmp_path / "folder"
    shutil.copytree(images, folder)
    (folder / "a-first.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"prediction failed for 1 of 4 images, the first is .*a-first\.jpg") as caught:
        run(network, [folder], tmp_path / "maps")

    assert caught.value.exit_code == 3
    assert str(folder / "a-first.jpg") in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {path.name for path in images.iterdir()}


def test_nothing_but_unreadable_images(network: CamoXpert, tmp_path: Path) -> None:
    """Where none is left, no folder with the maps of others is named."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^prediction failed for all 2 images, the first is .*a\.jpg\n"):
        run(network, [tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "maps")


def test_two_images_of_one_name(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """Two images whose maps would have one name are refused before any map is written."""
    other = tmp_path / "other"
    other.mkdir()
    name = sorted(path.name for path in images.iterdir())[-1]
    shutil.copy(images / name, (other / name).with_suffix(".jpg"))
    error = refusal(network, [images, other], tmp_path / "maps")

    assert (error.exit_code, f"would both be {name}" in error.message) == (3, True)


def test_missing_path(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """A path that is not there is named before anything is computed."""
    error = refusal(network, [images, tmp_path / "nowhere"], tmp_path / "maps")

    assert (error.exit_code, error.message) == (3, f"{tmp_path / 'nowhere'} not found, expected an image or a folder")


def test_an_image_named_twice(
    network: CamoXpert, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that a folder, a pattern and a relative path all give is done once."""
    monkeypatch.chdir(images)
    first = min(path.name for path in images.iterdir())
    count = run(network, [Path(first), images, Path("*.png"), Path("..", "Imgs", first)], tmp_path / "maps")

    assert count == TEST_IMAGES


def test_images_are_not_overwritten(
    network: CamoXpert, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps into the folder of their own PNG images would destroy these: refused, however the two are written."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    shutil.copytree(images, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for paths, out in ((folder, tmp_path / "maps" / ".." / "folder"), (Path("folder"), folder)):
        with pytest.raises(UsageError, match="would overwrite") as caught:
            run(network, [paths], out, overwrite=True)
        assert caught.value.exit_code == 2

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_folder_that_cannot_be_made(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """A file in the place of the folder for maps is refused with exit code 2 and kept."""
    (tmp_path / "file").write_bytes(b"mine")
    error = refusal(network, [images], tmp_path / "file")

    assert error.exit_code == 2
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_map_that_cannot_be_written(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """A map that the disk refuses is an error: OpenCV alone would say nothing."""
    name = sorted(path.name for path in images.iterdir())[0]
    (tmp_path / "maps" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{name} cannot be written: Is a directory"):
        run(network, [images], tmp_path / "maps", overwrite=True)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_binary_maps(network: CamoXpert, images: Path, maps: Path, tmp_path: Path, threshold: float) -> None:
    """With a threshold a map is 255 where the grey map reaches that part of 255, and 0 elsewhere."""
    first = min(images.iterdir())
    run(network, [first], Outputs(tmp_path / "binary", threshold))
    grey, binary = (read(folder / first.name) for folder in (maps, tmp_path / "binary"))

    assert np.array_equal(binary, np.where(grey >= threshold * 255, 255, 0))
    assert set(np.unique(binary)) == {0, 255}


def test_a_threshold_is_inclusive(tmp_path: Path) -> None:
    """A grey value of exactly that part of 255 counts as object, as in the overlay."""
    Outputs(tmp_path, 0.8).write(Path("photo.jpg"), torch.tensor([[203.0, 204.0, 205.0]]) / 255)

    assert read(tmp_path / "photo.png").tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 128.0, float("nan")])
def test_thresholds_are_between_0_and_1(tmp_path: Path, threshold: float) -> None:
    """Grey values such as 128 are refused, with the value and what to type."""
    with pytest.raises(UsageError, match=f"--threshold is {threshold:g}, expected above 0 and below 1") as caught:
        Outputs(tmp_path, threshold)

    assert (caught.value.exit_code, caught.value.hint) == (2, "--threshold 0.5")


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_overlays(network: CamoXpert, images: Path, maps: Path, tmp_path: Path, threshold: float | None) -> None:
    """An overlay is the whole image, drawn on where its map reaches the threshold, in a folder of its own."""
    first = min(images.iterdir())
    run(network, [first], Outputs(tmp_path / "maps", threshold, overlays=True))
    found = read(maps / first.name) >= 255 * (threshold or 0.5)
    expected = overlay(read_image(first)[0], found)

    assert {path.name for path in (tmp_path / "maps").iterdir()} == {first.name, "overlays"}
    assert [path.name for path in (tmp_path / "maps" / "overlays").iterdir()] == [f"{first.stem}.jpg"]
    drawn = cv2.imdecode(cv2.imencode(".jpg", expected[..., ::-1])[1], cv2.IMREAD_COLOR)
    assert drawn is not None
    assert np.array_equal(read(tmp_path / "maps" / "overlays" / f"{first.stem}.jpg"), drawn)


def test_overlays_are_not_overwritten(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """An overlay of an earlier call is kept, and so is an image in the overlays' own folder."""
    outputs = Outputs(tmp_path / "maps", overlays=True)
    name = min(path.stem for path in images.iterdir())
    kept = outputs.overlay_folder / f"{name}.jpg"
    kept.parent.mkdir(parents=True)
    cv2.imwrite(str(kept), np.zeros((80, 80, 3), np.uint8))
    before = kept.read_bytes()
    for paths, overwrite, words in (
        ([images], False, f"{name}.jpg already exists and was not written by camox"),
        ([outputs.overlay_folder], True, "would overwrite"),
    ):
        with pytest.raises(UsageError, match=words):
            run(network, paths, outputs, overwrite=overwrite)

    assert kept.read_bytes() == before
    assert not list(outputs.folder.glob("*.png"))


def test_an_image_too_long_for_an_overlay(
    network: CamoXpert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A JPEG cannot hold every image: one that is longer gets its map, and is named."""
    cv2.imwrite(str(tmp_path / "long.png"), np.zeros((2, 65501, 3), np.uint8))
    with pytest.raises(DataError, match=r"^prediction failed for .*long\.png\n"):
        run(network, [tmp_path / "long.png"], Outputs(tmp_path / "maps", overlays=True))

    assert "long.png is too large for an overlay" in capsys.readouterr().err
    assert read(tmp_path / "maps" / "long.png").shape == (2, 65501)


def test_views(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """With test-time augmentation the map is the grey map of the mean over views."""
    tta = Tta(flip=True, scales=(1.0, 1.5))
    first = min(images.iterdir())
    run(network, [first], tmp_path / "maps", tta=tta)
    image, size = read_image(first, 64)
    tensor = torch.from_numpy(resize_image(image, 64)).permute(2, 0, 1)[None]
    written = read(tmp_path / "maps" / f"{first.stem}.png")

    assert np.array_equal(written, grey_prediction(predict_probabilities(network, tensor, [size], None, tta)[0]))
    assert not np.array_equal(written, grey_prediction(predict_probabilities(network, tensor, [size], None)[0]))


def test_whatever_ends_it_leaves_whole_files(
    network: CamoXpert, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of writing leaves the maps written before, and nothing of the one being written."""
    original = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        if len(list((tmp_path / "maps").glob("*.png"))) == 2:
            original(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        return original(path, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(network, [images], tmp_path / "maps")

    names = sorted(path.name for path in images.iterdir())
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == names[:2]
    assert all(read(path).shape == read(images / path.name).shape[:2] for path in (tmp_path / "maps").iterdir())


def test_links_of_one_name_that_lead_nowhere(network: CamoXpert, tmp_path: Path) -> None:
    """They are different images as far as anybody knows."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").symlink_to("nowhere")

    with pytest.raises(DataError, match=r"would both be x\.png"):
        run(network, [tmp_path / "a", tmp_path / "b"], tmp_path / "maps")


@pytest.mark.parametrize(
    ("device", "size", "sizes"),
    [
        ("cpu", 64, [16, 16, 8]),
        ("cpu", 320, [2] * 20),
        ("cpu", 1024, [1] * 40),
        ("cuda", 320, [32, 8]),
        ("cuda", 1024, [4] * 10),
    ],
)
def test_batches_fit_memory(device: str, size: int, sizes: list[int]) -> None:
    """The larger the network's input, the fewer images at a time; a GPU takes more. None is left out."""
    found = list(batches(range(40), size, torch.device(device)))

    assert [len(each) for each in found] == sizes
    assert [number for each in found for number in each] == list(range(40))


def test_batches_are_computed_as_a_whole() -> None:
    """With --continue, those of which an image is missing; so it gets the bits of an uninterrupted command."""
    cpu = torch.device("cpu")

    assert to_compute(range(7), {0, 1, 3, 4}, 320, cpu) == [2, 3, 4, 5, 6]
    assert to_compute(range(7), set(range(7)), 320, cpu) == []


def test_images_are_predicted_in_batches(network: CamoXpert, images: Path, maps: Path, tmp_path: Path) -> None:
    """One that cannot be read leaves its batch, and the others their places."""
    folder = tmp_path / "folder"
    shutil.copytree(images, folder)
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[1]).write_bytes(b"no image")
    seen = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with hook, pytest.raises(DataError, match=r"^prediction failed for 1 of "):
        run(network, [folder], tmp_path / "maps")

    assert seen == [len(names) - 1]
    for name in names[:1] + names[2:]:
        assert nearly_equal(read(tmp_path / "maps" / name), read(maps / name))


class Short(nn.Module):
    """The network where memory lasts for so many images, and what it was asked for."""

    def __init__(self, network: CamoXpert, most: int, message: str) -> None:
        super().__init__()
        self.network, self.most, self.message = network, most, message
        self.normalization = network.normalization
        self.asked: list[int] = []
        self.failed: weakref.ref[Tensor] | None = None

    def forward(self, images: Tensor) -> object:
        self.asked.append(len(images))
        assert self.failed is None or self.failed() is None, "the memory of the pass that failed is still taken"
        features = images.clone()
        if len(images) > self.most:
            self.failed = weakref.ref(features)
            raise RuntimeError(self.message)
        return self.network(features)


def test_a_batch_too_large_for_the_gpu_is_halved(network: CamoXpert, images: Path) -> None:
    """As often as it takes; a single image that is too large is an error."""
    short: Any = Short(network, 2, "CUDA out of memory. Tried to allocate 2.00 GiB")
    paths = (2 * sorted(images.iterdir()))[:5]
    whole, halved = (list(probabilities(each, paths, 64)) for each in (network, short))

    assert short.asked == [5, 3, 2, 1, 2]
    for one, other in zip(whole, halved, strict=True):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        assert torch.allclose(one, other, atol=1e-5)
    short.most = 0
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        list(probabilities(short, paths[:1], 64))


def test_a_batch_too_large_for_the_cpu_is_computed_one_by_one(network: CamoXpert, images: Path) -> None:
    """And an image that does not fit alone is named."""
    short: Any = Short(network, 1, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    paths = sorted(images.iterdir())[:2]

    found = list(probabilities(short, [*paths, images / "none.png"], 64))
    assert [type(each) for each in found] == [Tensor, Tensor, DataError]
    assert short.asked == [2, 1, 1]
    short.most = 0
    (error, _) = probabilities(short, paths, 64)
    assert isinstance(error, DataError)
    assert error.message == f"not enough memory for {paths[0]}"


def test_half_precision_needs_a_gpu_or_is_refused(network: CamoXpert, images: Path, tmp_path: Path) -> None:
    """And nothing is written."""
    with pytest.raises(CamoxError, match="precision fp16 needs a GPU"):
        predict(
            network, [images], Outputs(tmp_path / "maps"), device=None, img_size=64, overwrite=False, precision="fp16"
        )
    assert not (tmp_path / "maps").exists()
