from __future__ import annotations

import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from camoxpert_cli.checkpoints.format import (
    Checkpoint,
    CheckpointContent,
    CheckpointNotWritten,
    Progress,
    TrainingContent,
    checkpoint_bytes,
    is_own_file,
    read_checkpoint,
    write_checkpoint,
    write_safetensors,
    write_verified,
)
from camoxpert_cli.errors import CheckpointError
from tests.helpers.checkpoints import Stub, flip_a_byte, original, refusal, save, write_content


@pytest.fixture(scope="module")
def network() -> Stub:
    return Stub()


LARGE = torch.arange(60_000.0)


def test_round_trip(tmp_path: Path, content: dict[str, Any]) -> None:
    """What was written is read: tensors, numbers, and the random states that resuming needs."""
    extra = {"training": {"rng": torch.get_rng_state(), "list": [1, 2.5, None, True, "text"]}, "scores": {"mae": 0.1}}
    path = tmp_path / "last.pth"
    write_content(path, {**content, **extra})
    read = read_checkpoint(path)

    assert (read["format"], read["version"]) == ("camox", 1)
    assert read["scores"] == {"mae": 0.1}
    assert read["training"]["list"] == [1, 2.5, None, True, "text"]
    assert torch.equal(read["training"]["rng"], torch.get_rng_state())
    for key in ("network", "ema"):
        assert read[key].keys() == content[key].keys()
        assert all(torch.equal(read[key][name], value) for name, value in content[key].items())
    assert list(tmp_path.iterdir()) == [path]


def test_numpy_1_format(tmp_path: Path, content: dict[str, Any], network: Stub) -> None:
    """A score stored under NumPy 1, which had its scalars in another module, is read too."""
    new = save(original(content, network), tmp_path)
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"cnumpy._core.multiarray\nscalar" in data
                data = data.replace(b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar")
            target.writestr(item, data)

    assert read_checkpoint(old)["best_iou"] == 0.25


def test_legacy_format(tmp_path: Path, content: dict[str, Any], network: Stub) -> None:
    """Files in torch's format from before version 1.6 are read too."""
    path = tmp_path / "legacy.pth"
    torch.save(original(content, network), path, _use_new_zipfile_serialization=False)

    assert read_checkpoint(path)["epoch"] == 2


@pytest.mark.parametrize("value", [np.float32(0.5), np.zeros(3), np.array([None])[0:1], Path("x")])
def test_more_than_plain_types(tmp_path: Path, content: dict[str, Any], value: Any) -> None:
    """Beside one kind of NumPy scalar, only plain types are read."""
    assert "contains pickled objects" in refusal(save({**content, "scores": value}, tmp_path)).message


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there and a folder are refused by their path."""
    assert "file not found" in refusal(tmp_path / "last.pth").message
    assert "is a folder" in refusal(tmp_path).message


@pytest.mark.parametrize("part", [0, 1e-4, 0.1, 0.5, 0.99, 0.9999])
def test_truncated_file(tmp_path: Path, content: dict[str, Any], part: float) -> None:
    """A file that was cut off anywhere, to nothing even, is refused."""
    path = tmp_path / "last.pth"
    write_content(path, {**content, "more": LARGE})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])

    refusal(path)


@pytest.mark.parametrize(
    "garbage", [b"<html>404</html>", b"\x00" * 1000, b"PK\x03\x04" + b"x" * 100, b"\x80\x02}q\x00."]
)
def test_garbage(tmp_path: Path, garbage: bytes) -> None:
    """A file of anything else is refused."""
    path = tmp_path / "last.pth"
    path.write_bytes(garbage)

    refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        3,
        {"conv1.weight": torch.ones(3)},
        {"network": "test_resnet", "backbone": "test_resnet", "num_experts": 2},
        {"network": {"weight": 3}},
        {"network": {1: torch.ones(3)}},
        {"model_state_dict": None},
        {"network": {"weight": torch.ones(3)}, "ema": {"weight": "w"}},
        torch.ones(3),
    ],
    ids=repr,
)
def test_something_else(tmp_path: Path, content: Any) -> None:
    """A bare state dict and other plain contents are refused: they do not say what they are."""
    assert "contains no CamoXpert weights" in refusal(save(content, tmp_path)).message


@pytest.mark.parametrize("version", [2, 99, "2.0", None])
def test_other_version(tmp_path: Path, content: dict[str, Any], version: Any) -> None:
    """A file of a later camox is refused with its version and what to do."""
    error = refusal(save({**content, "format": "camox", "version": version}, tmp_path))

    assert f"has format version {version!r}, but this camox reads versions up to 1" in error.message
    assert error.hint == "install a newer camox"


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writing more than `limit` bytes into a file fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def open_files() -> set[tuple[int, int]]:
    """Device and inode of each file that this process has open, on Linux and macOS."""
    found = set()
    for number in os.listdir("/dev/fd"):  # noqa: PTH208  # they are numbers, and no files
        with suppress(OSError):  # what listed them is closed again
            status = os.fstat(int(number))
            found.add((status.st_dev, status.st_ino))
    return found


@pytest.mark.parametrize("limit", [0, 10_000, 200_000])
def test_full_disk(tmp_path: Path, content: dict[str, Any], limit: int) -> None:
    """Where the disk is full, the file before it is kept, no other is left, and the message says so.

    Nothing holds on to the space of the one that was being written, though the error is still at hand.
    """
    path = tmp_path / "last.pth"
    write_content(path, content)
    before = path.read_bytes()
    held = open_files()
    with file_size_limit(limit), pytest.raises(CheckpointError) as caught:
        write_content(path, {**content, "more": LARGE})

    assert open_files() <= held
    assert f"{path} cannot be written" in caught.value.message
    assert "free some disk space" in caught.value.hint
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_disk_error(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where flushing or renaming fails, the file before it is kept and no other is left."""
    path = tmp_path / "last.pth"
    write_content(path, content)
    before = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        write_content(path, {**content, "epoch": 4})

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a write goes through as it is; the file before it is kept and no other is left."""
    path = tmp_path / "last.pth"
    write_content(path, content)
    before = path.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_content(path, content)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_never_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """What the disk did not keep as it was written is noticed at once: the file before it stays."""
    path, kept = tmp_path / f"last{suffix}", tmp_path / "previous.pth"

    def write(content: dict[str, Tensor]) -> None:
        if suffix == ".pth":
            write_verified(path, content, kept)
        else:
            write_safetensors(path, content, {})

    def damaging(save: Any) -> Any:
        def save_damaged(content: Any, target: Path, **more: Any) -> None:
            save(content, target, **more)
            flip_a_byte(target)

        return save_damaged

    write({"more": LARGE})
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", damaging(torch.save))
    monkeypatch.setattr("camoxpert_cli.checkpoints.format.save_file", damaging(save_file))
    with pytest.raises(CheckpointNotWritten, match=f"last{suffix} cannot be written: .* is corrupt"):
        write({"more": LARGE + 1})

    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {path.name: before}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_file_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Under the second name lies the file that was replaced, whole, and under no other; a first file keeps none."""
    path, kept = tmp_path / "last.pth", tmp_path / "previous.pth"

    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    found = []
    for epoch in (1, 2, 3):
        write_verified(path, {"epoch": epoch}, kept)
        found.append({each.name: torch.load(each)["epoch"] for each in sorted(tmp_path.iterdir())})

    assert found == [
        {"last.pth": 1},
        {"last.pth": 2, "previous.pth": 1},
        {"last.pth": 3, "previous.pth": 2},
    ]


def test_two_names_of_one_file(tmp_path: Path) -> None:
    """A process died between the second name and the new file: the old one is kept, and nothing else is left."""
    path, kept = tmp_path / "last.pth", tmp_path / "previous.pth"
    write_verified(path, {"epoch": 1})
    os.link(path, kept)
    write_verified(path, {"epoch": 2}, kept)

    assert {each.name: torch.load(each)["epoch"] for each in tmp_path.iterdir()} == {"last.pth": 2, "previous.pth": 1}


def test_estimated_size(tmp_path: Path) -> None:
    """Weights, their average where there is one, and two moments of each parameter, as last.pth will have them."""
    network = nn.Linear(300, 300)
    average, moments = nn.Linear(300, 300), [torch.zeros(300, 301), torch.zeros(300, 301)]
    for ema in (None, average.state_dict()):
        write_verified(tmp_path / "last.pth", {"network": network.state_dict(), "ema": ema, "moments": moments})
        size = (tmp_path / "last.pth").stat().st_size
        assert checkpoint_bytes(network, ema is not None) == pytest.approx(size, rel=0.01)


def training_state() -> TrainingContent:
    return TrainingContent(Progress(epoch=3), 0, "digest", {"state": {}, "param_groups": []}, {}, 7)


def test_fields_of_a_file(tmp_path: Path, network: Stub) -> None:
    """A file has these entries in this order, whatever the class behind them becomes; weights alone have no state."""
    weights = CheckpointContent(
        "test_resnet", 2, dict(network.state_dict()), None, 3, None, [], {"train": {}}, {"camox": "0"}
    )
    paths = [tmp_path / name for name in ("best_model.pth", "last.pth")]
    write_checkpoint(paths[0], weights)
    write_checkpoint(paths[1], replace(weights, training=replace(training_state(), computed_with={"device": "CPU"})))
    best, last = map(read_checkpoint, paths)

    assert (
        " ".join(best) == "format version backbone num_experts network ema epoch scores history config versions images"
    )
    assert list(last) == [*best, "training"]
    assert " ".join(last["training"]) == (
        "progress backbone_stages training_images optimizer scaler ema_updates computed_with"
    )


def test_a_file_of_camox_0_1(content: dict[str, Any]) -> None:
    """Its digests of images have other names; those of today win if a file has both."""
    training = training_state().to_dict()
    digest = training.pop("training_images")
    old = {**content, "pictures": "both", "training": {**training, "training_pictures": digest}}
    own = Checkpoint(Path("last.pth"), old).own

    assert own is not None
    assert own.training is not None
    assert (own.images, own.training.training_images) == ("both", digest)
    both = CheckpointContent.from_dict({**content, "images": "today's", "pictures": "old"})
    assert both.images == "today's"


def test_a_file_as_typed_content(content: dict[str, Any]) -> None:
    """Entries that a file lacks are None, unknown ones are passed over, and other programs' files are not ours."""
    training = {**training_state().to_dict(), "of a later camox": 1}
    checkpoint = Checkpoint(Path("last.pth"), {**content, "training": training})
    foreign = {"state_dict": content["network"], "metadata": {}, "training": training}

    assert checkpoint.own is not None
    assert (checkpoint.own.epoch, checkpoint.own.config) == (3, None)
    assert checkpoint.training == training_state()
    assert Checkpoint(Path("best_model.pth"), content).training is None
    assert Checkpoint(Path("foreign.safetensors"), foreign).training is None


def test_a_training_state_that_lacks_a_field(content: dict[str, Any]) -> None:
    """The error names the file and the field."""
    training = training_state().to_dict()
    del training["optimizer"]
    checkpoint = Checkpoint(Path("last.pth"), {**content, "training": training})
    with pytest.raises(
        CheckpointError, match=r"last\.pth is not a valid camox checkpoint: training\.optimizer is missing"
    ):
        _ = checkpoint.training


@pytest.mark.parametrize("name", ["a.pth", "ä.pth", "a", f"{'x' * 250}.pth"])
def test_files_of_ours_are_known(tmp_path: Path, name: str) -> None:
    """Whatever is in them and whatever they are called; torch reads them as any other, mapped or not."""
    ours, theirs = tmp_path / name, tmp_path / "theirs.pth"
    write_verified(ours, {"anything": torch.arange(3.0)})
    torch.save({"anything": torch.arange(3.0)}, theirs)

    assert (is_own_file(ours), is_own_file(theirs), is_own_file(tmp_path / "gone.pth")) == (True, False, False)
    for mmap in (False, True):
        assert torch.load(ours, mmap=mmap)["anything"].tolist() == [0, 1, 2]


def test_safetensors_of_ours_are_known(tmp_path: Path) -> None:
    """By their metadata."""
    write_safetensors(tmp_path / "ours.safetensors", {"a": torch.zeros(1)}, {"camox": "1.2.0"})
    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"precious")

    assert [is_own_file(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs", "none")] == [
        True,
        False,
        False,
    ]


def test_archives_of_before_the_comment(tmp_path: Path) -> None:
    """They were written under a hidden name, which torch gave them."""
    torch.save({"a": 1}, tmp_path / ".out.pth.tmp0123456789ab")
    (tmp_path / ".out.pth.tmp0123456789ab").rename(tmp_path / "out.pth")

    assert is_own_file(tmp_path / "out.pth")
