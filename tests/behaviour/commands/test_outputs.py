"""What every command leaves alone, and what it says where it cannot write."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli import console
from camoxpert_cli.app import app
from camoxpert_cli.inference import onnx
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

# Where each command writes, in a folder that holds best.pth and a test set; the first file is looked at.
OUTPUTS = {
    "eval": (["eval", "best.pth", "--dataset-path", "data", "--device", "cpu", "--out", "out"], "out/results.json"),
    "maps": (
        ["eval", "best.pth", "--dataset-path", "data", "--device", "cpu", "--save-predictions", "out"],
        f"out/{TEST_SET}/test-00.png",
    ),
    "predict": (["predict", "best.pth", f"data/{TEST_SET}/Imgs", "--out", "out"], "out/test-00.png"),
    "overlays": (
        ["predict", "best.pth", f"data/{TEST_SET}/Imgs", "--overlay", "--out", "out"],
        "out/overlays/test-00.jpg",
    ),
    "export": (["export", "best.pth", "out.safetensors", "--img-size", "64"], "out.safetensors"),
    "convert": (["convert-ckpt", "best.pth", "out.pth", "--to", "camoxpert"], "out.pth"),
    "convert to safetensors": (["convert-ckpt", "best.pth", "out.safetensors"], "out.safetensors"),
    "benchmark": (["benchmark", "--device", "cpu", "--out", "out.md"], "out.md"),
}
ANY_OUTPUT = pytest.mark.parametrize(("command", "target"), OUTPUTS.values(), ids=OUTPUTS)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def refused(*arguments: object) -> str:
    """What is said of a command that ends with 2 before it prints any result."""
    outcome = run(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (2, ""), outcome.output
    assert "Try:" in outcome.stderr
    assert "Traceback" not in outcome.output
    return str(outcome.stderr)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def vivid(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vivid_checkpoint(vivid_network(tiny_data), tmp_path_factory.mktemp("vivid") / "vivid.pth")


@pytest.fixture
def place(vivid: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with best.pth and the folder data."""
    shutil.copytree(tiny_data / "TestDataset", tmp_path / "data" / "TestDataset")
    (tmp_path / "data" / TEST_SET).symlink_to(Path("TestDataset", TEST_SET))
    shutil.copy(vivid, tmp_path / "best.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@ANY_OUTPUT
def test_files_of_others_survive(place: Path, command: list[str], target: str) -> None:
    """A file of the same name stays byte for byte, whatever is asked for."""
    mine = place / "data" / "TestDataset" / TEST_SET / "GT" / "test-00.png"
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(mine, target)
    before = files(place)

    refused(*command)
    assert "was not written by camox" in refused(*command, "--overwrite")
    assert files(place) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_no_file_survives(place: Path, name: str) -> None:
    """Nothing is put in the place of a pipe or a device."""
    command, target = OUTPUTS[name]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if name in ("convert", "benchmark"):
        Path(target).symlink_to("/dev/null")
    else:
        os.mkfifo(target)
    before = os.lstat(target)

    assert "a device, a pipe or a socket" in refused(*command, "--overwrite")
    after = os.lstat(target)
    assert (after.st_ino, stat.S_IFMT(after.st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "benchmark"])
def test_own_files_are_replaced_where_that_is_meant(place: Path, name: str) -> None:
    """What a command wrote before takes --overwrite; what one that was killed left half-written goes."""
    command, target = OUTPUTS[name]
    assert run(*command).exit_code == 0
    before = files(place)
    left = Path(target).with_name(f".{Path(target).name}.tmp0123456789ab")
    left.write_bytes(b"half")

    refused(*command)
    assert files(place).keys() - before.keys() == {str(left)}
    again = run(*command, "--overwrite")
    assert again.exit_code == 0, again.output
    assert files(place).keys() == before.keys()


def test_masks_survive_their_own_scoring(place: Path) -> None:
    """Maps whose folder is that of the masks they are scored by, by another name, also where camox wrote these."""
    masks = place / "masks" / TEST_SET
    assert run("predict", "best.pth", f"data/{TEST_SET}/Imgs", "--threshold", 0.5, "--out", masks).exit_code == 0
    (place / "link").symlink_to("masks")
    (place / "hard" / TEST_SET).mkdir(parents=True)
    for mask in masks.iterdir():
        os.link(mask, place / "hard" / TEST_SET / mask.name)
    before = files(place)

    for folder in ("masks", "link", "hard", "masks/../link"):
        command = [
            "eval",
            "best.pth",
            "--images",
            f"data/{TEST_SET}/Imgs",
            "--masks",
            masks,
            "--save-predictions",
            folder,
        ]
        assert "would overwrite" in refused(*command, "--device", "cpu", "--overwrite")
    assert files(place) == before


@pytest.mark.parametrize("command", [["convert-ckpt", "best.pth"], ["export", "best.pth"]])
@pytest.mark.parametrize("target", ["new/", "-", "best.pth/x.safetensors", f"{'x' * 250}.safetensors"])
def test_names_that_no_file_can_have(place: Path, command: list[str], target: str) -> None:
    """A folder's name, stdout, a file for a folder, and one that is too long."""
    before = files(place)
    refused(*command, target)

    assert files(place) == before


def test_a_picture_whose_maps_name_would_be_too_long(place: Path) -> None:
    """It is told before any map is made; one whose map's name has every byte that a name may have is fine."""
    photos = place / "photos"
    photos.mkdir()
    source = f"data/{TEST_SET}/Imgs/test-00.png"
    shutil.copy(source, photos / f"{'a' * 251}.png")
    assert run("predict", "best.pth", "photos", "--out", "maps").exit_code == 0
    assert [path.name for path in Path("maps").iterdir()] == [f"{'a' * 251}.png"]
    shutil.copy(source, photos / ("b" * 255))

    assert "has 259 bytes, more than the 255" in refused("predict", "best.pth", photos / ("b" * 255), "--out", "no")
    assert not Path("no").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "", "a/b"])
def test_a_list_leads_nowhere_else(place: Path, name: str) -> None:
    """A test set in a list of pairs is called like a folder, or not taken at all."""
    row = [f"data/{TEST_SET}/{folder}/test-00.png" for folder in ("Imgs", "GT")]
    Path("list.json").write_text(json.dumps({"camox_list": 1, "train": [], "tests": {name: [row]}}), encoding="utf-8")
    outcome = run(
        "eval", "best.pth", "--dataset-path", "list.json", "--device", "cpu", "--save-predictions", "maps/deep"
    )

    assert (outcome.exit_code, "names a test set" in outcome.stderr) == (3, True)
    assert not Path("maps").exists()


@pytest.mark.parametrize("images", ["../Imgs", "."])
def test_folders_lead_nowhere_else(place: Path, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair of folders is a set of the name of the folder above, which is never `..`."""
    folder = place / "data" / "TestDataset" / TEST_SET / "Imgs"
    monkeypatch.chdir(folder)
    maps = place / "maps"
    command = ["--images", images, "--masks", folder.parent / "GT", "--save-predictions", maps / "deep"]
    outcome = run("eval", place / "best.pth", *command, "--device", "cpu")

    assert outcome.exit_code == 0, outcome.output
    assert {path.parent.relative_to(maps) for path in maps.rglob("*.png")} == {Path("deep", TEST_SET)}


def full_disk(monkeypatch: pytest.MonkeyPatch, method: str, part: str) -> None:
    """Have the disk refuse files with `part` in their names."""
    original = getattr(Path, method)

    def write(path: Path, *arguments: Any, **options: Any) -> int:
        if part in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(original(path, *arguments, **options))

    monkeypatch.setattr(Path, method, write)


def test_scores_are_printed_whatever_the_disk_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while maps are written, or before the scores are, costs files; the scores are on stdout."""
    monkeypatch.setattr("camoxpert_cli.report.page.render", lambda _: "the page, whose drawing takes seconds")
    command, _ = OUTPUTS["eval"]
    whole = run(*command, "--json")
    full_disk(monkeypatch, "write_bytes", "test-01.png")
    maps = run(*command[:-2], "--json", "--save-predictions", "maps", "--out", "scores")
    full_disk(monkeypatch, "write_text", "per_image.csv")
    scores = run(*command[:-1], "more", "--json")

    assert (whole.exit_code, maps.exit_code, scores.exit_code) == (0, 2, 2)
    assert whole.stdout == maps.stdout == scores.stdout != ""
    assert "test-01.png cannot be written: No space left on device" in maps.stderr
    assert len(list(Path("maps", TEST_SET).iterdir())) == TEST_IMAGES - 1
    assert len(list(Path("scores").iterdir())) == 3
    assert "the scores cannot be written to more: No space left on device" in scores.stderr
    assert list(Path("more").iterdir()) == []


def test_scores_are_written_whoever_listens(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of stdout that has gone costs what would have been printed; two evaluations at once share no folder."""

    def gone(_: str) -> None:
        raise console.NotTold(errno.EPIPE, "gone")

    monkeypatch.setattr("camoxpert_cli.report.page.render", lambda _: "the page, whose drawing takes seconds")
    command, _ = OUTPUTS["eval"]
    monkeypatch.setattr(console, "result", gone)
    assert run(*command[:-1], "scores").exit_code == 141
    assert len(list(Path("scores").iterdir())) == 3

    theirs = Path("scores", "per_image.csv").read_text() + "theirs"

    def faster(_: str) -> None:
        Path("more", "per_image.csv").write_text(theirs)

    monkeypatch.setattr(console, "result", faster)
    assert "more already contains per_image.csv" in refused(*command[:-1], "more")
    assert [(each.name, each.read_text()) for each in Path("more").iterdir()] == [("per_image.csv", theirs)]


def test_permissions_are_kept(place: Path) -> None:
    """A checkpoint that nobody else may read stays so."""
    Path("best.pth").chmod(0o600)
    assert run("convert-ckpt", "best.pth", "--in-place", "--add").exit_code == 0

    assert stat.S_IMODE(Path("best.pth").stat().st_mode) == 0o600


def test_names_that_are_no_text(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be called anything: maps, scores and an export carry the name, or say it in ASCII."""
    odd = os.fsdecode(b"\xff\xe4")
    test_set = place / "data" / "TestDataset" / TEST_SET
    for folder in ("Imgs", "GT"):
        (test_set / folder / "test-00.png").rename(test_set / folder / f"{odd}.png")
    test_set.rename(test_set.with_name(odd))
    Path("best.pth").rename(f"{odd}.pth")
    command = [
        "eval",
        f"{odd}.pth",
        "--dataset-path",
        "data",
        "--device",
        "cpu",
        "--out",
        "out",
        "--save-predictions",
        "maps",
    ]
    said: list[str] = []
    monkeypatch.setattr(console, "result", said.append)  # stdout of a test, unlike the program's, takes text alone
    for each in (
        [*command, "--json"],
        ["predict", f"{odd}.pth", f"data/TestDataset/{odd}/Imgs", "--overlay", "--out", odd],
        ["export", f"{odd}.pth", "out.safetensors", "--img-size", "64"],
        ["convert-ckpt", f"{odd}.pth", f"{odd}2.pth"],
    ):
        outcome = run(*each)
        assert outcome.exit_code == 0, outcome.output

    assert [*json.loads(Path("out", "results.json").read_text(encoding="utf-8"))["sets"]] == [odd]
    assert [*json.loads(said[0])["sets"]] == [odd]
    rows = [*csv.DictReader(Path("out", "per_image.csv").read_text(encoding="utf-8").splitlines())]
    assert r"\udcff\udce4" in {row["name"] for row in rows} & {row["dataset"] for row in rows}
    assert r"\udcff\udce4" in Path("out", "report.html").read_text(encoding="utf-8")
    for path in (Path("maps", odd, f"{odd}.png"), Path(odd, f"{odd}.png"), Path(odd, "overlays", f"{odd}.jpg")):
        assert path.is_file()


def test_onnx_of_ours_is_known(tmp_path: Path) -> None:
    """By its metadata; nothing else is taken for one."""
    helper = pytest.importorskip("onnx").helper
    model = helper.make_model(helper.make_graph([], "empty", [], []))
    (tmp_path / "theirs.onnx").write_bytes(model.SerializeToString())
    helper.set_model_props(model, {"backbone": "x", "camox": "1.2.0"})
    (tmp_path / "ours.onnx").write_bytes(model.SerializeToString())

    assert onnx.is_own_onnx(tmp_path / "ours.onnx")
    assert not onnx.is_own_onnx(tmp_path / "theirs.onnx")
