"""`camox predict`: what it prints, writes and exits with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.data.writing import note_in
from camoxpert_cli.errors import DataError
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predict import predict
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.image_files import noise, scene, write
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint


@pytest.fixture(scope="module")
def network(tiny_data: Path) -> CamoXpert:
    return vivid_network(tiny_data)


@pytest.fixture(scope="module")
def checkpoint(network: CamoXpert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vivid_checkpoint(network, tmp_path_factory.mktemp("checkpoint") / "best_model.pth")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three images in `photos` and one below it."""
    for index, name in enumerate(("a.png", "b.png", "c.png", "deep/d.png")):
        write(tmp_path / "photos" / name, noise(index))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(checkpoint: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["predict", str(checkpoint), *arguments])


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def values(path: Path) -> set[int]:
    map_ = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert map_ is not None
    return set(np.unique(map_).tolist())


def pixels(path: Path) -> list[Any]:
    map_ = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert map_ is not None
    return map_.tolist()


def test_maps_of_a_folder(checkpoint: Path, network: CamoXpert, folder: Path) -> None:
    """The images directly in it, one grey map each, of the average and at the size it was trained at, and one line."""
    outcome = run(checkpoint, "photos", "--out", "maps")
    predict(network, [Path("photos")], Outputs(Path("same")), device=None, img_size=64, overwrite=False)

    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == "3 predictions in maps\n"
    assert written(folder / "maps") == ["a.png", "b.png", "c.png"]
    assert len(values(folder / "maps" / "a.png")) > 2
    for name in ("a.png", "b.png", "c.png"):
        assert pixels(folder / "maps" / name) == pixels(folder / "same" / name)


def test_size(checkpoint: Path, network: CamoXpert, folder: Path) -> None:
    """The network sees images at the size asked for. A single map is counted as such."""
    outcome = run(checkpoint, "photos/a.png", "--out", "maps", "--img-size", "96")
    predict(network, [Path("photos", "a.png")], Outputs(Path("same")), device=None, img_size=96, overwrite=False)

    assert outcome.stdout == "1 prediction in maps\n"
    assert pixels(folder / "maps" / "a.png") == pixels(folder / "same" / "a.png")


def test_pattern_threshold_overlay_and_views(checkpoint: Path, folder: Path) -> None:
    """A pattern of any depth, binary maps, overlays in a folder of their own, and the mean over two views."""
    flags = "--out maps --threshold 0.5 --overlay --tta flip --device cpu".split()
    outcome = run(checkpoint, "photos/**/*.png", *flags)

    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == f"4 predictions in maps, overlays in {Path('maps', 'overlays')}\n"
    names = ["a", "b", "c", "d"]
    assert written(folder / "maps") == [f"{name}.png" for name in names] + [f"overlays/{name}.jpg" for name in names]
    assert all(values(folder / "maps" / f"{name}.png") <= {0, 255} for name in names)


def test_tiles(checkpoint: Path, folder: Path) -> None:
    """A larger image is predicted in tiles and noted as such, and one that a tile holds as without them."""
    write(folder / "photos" / "large.png", scene(0, 90, 150))
    for name, flags in (("whole", []), ("tiles", ["--tiles", "64", "--overlay"])):
        outcome = run(checkpoint, "photos/a.png", "photos/large.png", "--out", name, *flags)
        assert outcome.exit_code == 0, outcome.output
    large = np.array(pixels(folder / "tiles" / "large.png"))

    assert written(folder / "tiles") == ["a.png", "large.png", "overlays/a.jpg", "overlays/large.jpg"]
    assert pixels(folder / "tiles" / "a.png") == pixels(folder / "whole" / "a.png")
    assert large.shape == (90, 150)
    assert (large != pixels(folder / "whole" / "large.png")).mean() > 0.5
    assert [note_in(folder / name / "a.png")["tiles"] for name in ("whole", "tiles")] == [None, 64]


def test_one_broken_image(checkpoint: Path, folder: Path) -> None:
    """It is named, the others get maps and overlays, and the exit code is 3."""
    (folder / "photos" / "b.png").write_bytes((folder / "photos" / "b.png").read_bytes()[:500])
    outcome = run(checkpoint, "photos", "--out", "maps", "--overlay")

    assert outcome.exit_code == 3
    assert outcome.stdout == ""
    assert f"Warning: {Path('photos', 'b.png')} is truncated" in outcome.stderr
    assert "Error: prediction failed for 1 of 3 images" in outcome.stderr
    assert written(folder / "maps") == ["a.png", "c.png", "overlays/a.jpg", "overlays/c.jpg"]


@pytest.mark.parametrize("existed", [True, False])
def test_no_image_that_can_be_read(checkpoint: Path, folder: Path, existed: bool) -> None:
    """One alone is told without others, and no empty folder is left; one that was there stays."""
    (folder / "bad.png").write_text("no image")
    if existed:
        (folder / "new").mkdir()
    outcome = run(checkpoint, "bad.png", "--out", "new/maps", "--overlay")

    assert outcome.exit_code == 3
    assert "Error: prediction failed for bad.png\nTry:   fix the image and run camox predict again\n" in outcome.stderr
    assert (folder / "new").exists() == existed
    assert not (folder / "new" / "maps").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photos/*.tif"], 3, "no image matches photos/*.tif"),
        (["photos", "--tta", "rotate"], 2, "--tta is 'rotate', expected flip, scales or flip,scales"),
        (["photos", "--tiles", "32"], 2, "--tiles is '32', expected an integer from 64 to 1000000"),
        (["photos", "--threshold", "128"], 2, "--threshold is 128, expected above 0 and below 1"),
        (["photos", "--out", "photos", "--overwrite"], 2, "would overwrite"),
    ],
)
def test_refusals(checkpoint: Path, folder: Path, arguments: list[str], code: int, message: str) -> None:
    """What cannot be done is one message with a hint, before anything is written."""
    before = written(folder)
    outcome = run(checkpoint, "--out", "maps", *arguments)

    assert outcome.exit_code == code
    assert message in outcome.stderr
    assert "Try:" in outcome.stderr
    assert written(folder) == before


def test_odd_files_beside_good_ones(checkpoint: Path, folder: Path) -> None:
    """Each is named and counted, and the maps of all others are there, whatever is wrong with a file."""
    photos = folder / "photos"
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    (photos / "huge.png").write_bytes(whole[:16] + b"\0\0\x75\x30" * 2 + whole[24:])
    (photos / "lost.png").symlink_to("nowhere")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "none.bmp").write_text("no image")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(photos / "pipe.png")
    (photos / "folder.png").mkdir()
    (photos / "again").symlink_to(photos)
    for name, size in (("dot", (1, 1, 3)), ("line", (1, 10000, 3)), ("column", (10000, 1, 3))):
        write(photos / f"{name}.png", np.zeros(size, np.uint8))
    write(photos / "deep16.png", noise(5)[..., 0].astype(np.uint16) * 257)
    outcome = run(checkpoint, "photos/**/*", "--out", "maps")

    assert outcome.exit_code == 3, outcome.output
    assert written(folder / "maps") == [
        f"{name}.png" for name in ("a", "b", "c", "column", "d", "deep16", "dot", "line")
    ]
    for name in ("cut.png", "empty.jpg", "huge.png", "lost.png", "loop.png", "none.bmp", "zero.jpg", "pipe.png"):
        assert f"photos/{name}" in outcome.stderr
    assert "prediction failed for 8 of 16 images" in " ".join(outcome.stderr.split())


def test_an_image_that_vanishes(
    network: CamoXpert, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While others are predicted: before it is read, or before its overlay is drawn."""
    one, other = folder / "photos" / "a.png", folder / "photos" / "c.png"
    before = Outputs.write

    def write_and_lose(self: Outputs, image: Path, probability: Any, **options: Any) -> None:
        if image == other:
            other.unlink()
        before(self, image, probability, **options)

    monkeypatch.setattr(Outputs, "write", write_and_lose)
    make_folders = Outputs.make_folders

    def make_and_lose(self: Outputs) -> None:
        one.unlink()
        make_folders(self)

    monkeypatch.setattr(Outputs, "make_folders", make_and_lose)
    with pytest.raises(DataError, match="prediction failed for 2 of 3 images"):
        predict(
            network,
            [folder / "photos"],
            Outputs(folder / "maps", overlays=True),
            device=None,
            img_size=64,
            overwrite=False,
        )

    assert (folder / "maps" / "b.png").is_file()
    assert "a.png: No such file" in capsys.readouterr().err
