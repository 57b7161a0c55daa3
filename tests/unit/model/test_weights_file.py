"""Files of tensors that are whole, damaged, or hostile."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model import weights_archive, weights_file
from camoxpert_cli.model.weights_file import CHECKSUM, checksum, read_weights_file

STATE = {f"layer{number}.weight": torch.arange(300.0).reshape(10, 30) + number for number in range(4)}


class Hostile:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path, call: Any = os.system) -> None:
        self.marker, self.call = marker, call

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (f"touch {self.marker}",)


def saved(folder: Path, content: Any = STATE, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def same(found: Any, expected: dict[str, Tensor] = STATE) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], value) for key, value in expected.items())


def loads_the_same_or_is_refused(path: Path) -> bool:
    """True where the file was refused, False where it gave the very tensors; anything else fails the test."""
    try:
        content = read_weights_file(path)
    except CheckpointError as error:
        return error.exit_code == 4 and str(path) in error.message
    assert same(content.get("state_dict", content))
    return False


def test_whole_files(tmp_path: Path) -> None:
    """Both formats give back what was written, from the memory and from the file."""
    save_file(STATE, tmp_path / "weights.safetensors", metadata={"backbone": "x"})
    read = read_weights_file(tmp_path / "weights.safetensors")

    assert same(read_weights_file(saved(tmp_path)))
    assert same(read_weights_file(saved(tmp_path), mmap=True))
    assert same(read["state_dict"])
    assert read["metadata"] == {"backbone": "x"}


@pytest.mark.parametrize("seed", range(120))
def test_a_flipped_bit(tmp_path: Path, seed: int) -> None:
    """One bit anywhere in the file, tensors, names, directory and padding: refused, or the tensors are the same."""
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    draw = np.random.default_rng(seed)
    data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
    path.write_bytes(data)

    loads_the_same_or_is_refused(path)


def test_flipped_tensors_are_noticed(tmp_path: Path) -> None:
    """torch itself loads a flipped bit within a tensor without a word; here every one is refused."""
    path = saved(tmp_path)
    whole = path.read_bytes()
    at = whole.index(STATE["layer2.weight"].numpy().tobytes())
    for offset in range(0, 1200, 97):
        data = bytearray(whole)
        data[at + offset] ^= 16
        path.write_bytes(data)
        assert torch.load(path, weights_only=True).keys() == STATE.keys()
        with pytest.raises(CheckpointError, match=r"is corrupt: .*data/2 in the archive is damaged"):
            read_weights_file(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_cut_file(tmp_path: Path, seed: int) -> None:
    """A file cut off anywhere is refused."""
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(np.random.default_rng(seed).integers(len(data)))])

    assert loads_the_same_or_is_refused(path)


@pytest.mark.parametrize("seed", range(30))
def test_zeroed_blocks(tmp_path: Path, seed: int) -> None:
    """A block of zeros, as a disk leaves it that lost power: refused, or nothing of the tensors was in it."""
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    draw = np.random.default_rng(seed)
    start = int(draw.integers(len(data)))
    length = int(draw.integers(1, 600))
    data[start : start + length] = bytes(len(data[start : start + length]))
    path.write_bytes(data)

    loads_the_same_or_is_refused(path)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_safetensors(tmp_path: Path, seed: int) -> None:
    """A .safetensors file of ours carries a checksum: a flipped bit or a cut is refused, or harms no tensor."""
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path, metadata={CHECKSUM: checksum(STATE)})
    data = bytearray(path.read_bytes())
    draw = np.random.default_rng(seed)
    if seed % 3:
        data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
    else:
        data = data[: int(draw.integers(len(data)))]
    path.write_bytes(data)

    loads_the_same_or_is_refused(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"<html>404</html>", b"PK\x03\x04" + b"x" * 99])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_other_files(tmp_path: Path, content: bytes, name: str) -> None:
    """Empty files, zeros, web pages and stubs of archives are refused by name."""
    (tmp_path / name).write_bytes(content)

    assert loads_the_same_or_is_refused(tmp_path / name)


@pytest.mark.parametrize("start", ["hello\n", "<!DOCTYPE html>", "0123"])
def test_text_under_a_checkpoints_name(tmp_path: Path, start: str) -> None:
    """A web page or a note that was saved as weights is told as such, by how it begins."""
    path = tmp_path / "weights.pth"
    path.write_text(start)
    with pytest.raises(CheckpointError) as caught:
        read_weights_file(path)

    assert caught.value.message.startswith(f"{path} is not a weights file: it starts with {start.encode()[:9]!r}")
    assert ("like a web page" in caught.value.message) == start.startswith("<")
    assert ("download it again" if start.startswith("<") else "best_model.pth") in caught.value.hint


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle", "in a list", "as a key's value", "stored under eval"])
def test_hostile_files(tmp_path: Path, kind: str) -> None:
    """A file that would run code is refused, by the name of what it wanted, and nothing has run."""
    marker, path = tmp_path / "marker", tmp_path / "hostile.pth"
    hostile = Hostile(marker, eval if kind == "stored under eval" else os.system)
    content: Any = {"a": [hostile]} if kind == "in a list" else {"weights": STATE, "epoch": hostile}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(CheckpointError, match="contains pickled objects") as caught:
        read_weights_file(path)

    assert not marker.exists()
    assert caught.value.exit_code == 4
    if kind != "bare pickle":
        assert ("eval" if kind == "stored under eval" else "system") in caught.value.message


def test_a_list_of_what_is_refused(tmp_path: Path) -> None:
    """All names beyond plain types are told at once, so that a user need not try them one by one."""
    path = saved(tmp_path, {"path": Path("x"), "array": np.zeros(3), "weights": STATE})
    with pytest.raises(CheckpointError) as caught:
        read_weights_file(path)

    assert "pathlib" in caught.value.message
    assert "_reconstruct" in caught.value.message


def test_numpy_scalar(tmp_path: Path) -> None:
    """The one NumPy type that the original program stores is read; others of the same call are not."""
    assert read_weights_file(saved(tmp_path, {"best_iou": np.float64(0.5)}))["best_iou"] == 0.5
    with pytest.raises(CheckpointError, match="contains pickled objects"):
        read_weights_file(saved(tmp_path, {"best_iou": np.float32(0.5)}))


def test_legacy_files_are_unverifiable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in torch's old format is read, and it is said that nobody can tell whether it is whole."""
    path = tmp_path / "old.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)

    assert same(read_weights_file(path, mmap=True))
    assert "no checksums, so its integrity cannot be verified" in capsys.readouterr().err


def test_old_torch_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below torch 2.10 the safe reader has a known hole, which is said once, not for every file."""
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    weights_file._warn_of_old_torch.cache_clear()
    for _ in range(2):
        read_weights_file(saved(tmp_path))
    said = capsys.readouterr().err
    monkeypatch.undo()
    weights_file._warn_of_old_torch.cache_clear()
    read_weights_file(saved(tmp_path))

    assert said.count("CVE-2026-24747") == 1
    assert "torch 2.9.1+cu128 has a known vulnerability" in said
    assert "CVE" not in capsys.readouterr().err


def test_checksum_sees_everything() -> None:
    """Names, shapes, dtypes and values all count; the order in the dict does not."""
    state = {"a": torch.ones(2, 3), "b": torch.zeros(4)}
    others = [
        {"a": torch.ones(3, 2), "b": torch.zeros(4)},
        {"a": torch.ones(2, 3), "c": torch.zeros(4)},
        {"a": torch.ones(2, 3).double(), "b": torch.zeros(4)},
        {"a": torch.ones(2, 3), "b": torch.tensor([0.0, 0.0, 0.0, 1e-30])},
    ]

    assert checksum(dict(reversed(state.items()))) == checksum(state)
    assert all(checksum(other) != checksum(state) for other in others)


def test_folder(tmp_path: Path) -> None:
    """A folder is no checkpoint; a weights file in it is proposed."""
    saved(tmp_path, name="model.bin")
    with pytest.raises(CheckpointError, match="is a folder, not a weights file") as caught:
        read_weights_file(tmp_path)

    assert str(tmp_path / "model.bin") in caught.value.hint


def test_safetensors_without_a_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file that cannot be verified, that is said."""
    save_file(STATE, tmp_path / "weights.safetensors")
    read_weights_file(tmp_path / "weights.safetensors")
    save_file(STATE, tmp_path / "weights.safetensors", metadata={CHECKSUM: checksum(STATE)})
    said = capsys.readouterr().err
    read_weights_file(tmp_path / "weights.safetensors")

    assert "has no checksum" in said
    assert capsys.readouterr().err == ""


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    """A .safetensors header that claims more than the file holds is an error, not an allocation."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + json.dumps({}).encode())

    assert loads_the_same_or_is_refused(path)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    """A zip file without tensors is refused by name."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")

    assert loads_the_same_or_is_refused(path)


def test_an_archive_that_would_unpack_to_much_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that would fill the memory is refused by its sizes, before anything is unpacked."""
    monkeypatch.setattr(weights_archive, "_MOST_UNPACKED", 2**20)
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"")
        archive.writestr("bomb/data/0", bytes(2**21))
    with pytest.raises(CheckpointError, match=r"would unpack to .*, which is implausible for weights") as caught:
        read_weights_file(path)

    assert "save its tensors again" in caught.value.hint


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("start", "said", "hint"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a Git LFS pointer", "git lfs pull"),
        ("\n <!DOCTYPE html><title>Sign in</title>", "like a web page", "download it again"),
    ],
)
def test_what_a_download_left(tmp_path: Path, name: str, start: str, said: str, hint: str) -> None:
    """A pointer and a web page in a file's place are told as such, and how to get the file."""
    (tmp_path / name).write_text(start)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_weights_file(tmp_path / name)

    assert hint in caught.value.hint


def test_neither_file_nor_folder(tmp_path: Path) -> None:
    """A pipe is not waited for, a device not read for ever, and a link that leads nowhere is told with where it led."""
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    (tmp_path / "ring.pth").symlink_to(tmp_path / "ring.pth")
    for path in (tmp_path / "pipe.pth", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="is a pipe or a device"):
            read_weights_file(path)
    for name, target in (("link.pth", "gone.pth"), ("ring.pth", "ring.pth")):
        with pytest.raises(
            CheckpointError, match=rf"file not found: .*{name} \(a link to .*{target}, which does not exist"
        ):
            read_weights_file(tmp_path / name)


def test_very_many_tensors(tmp_path: Path) -> None:
    """A file with names by the thousand is read as any other."""
    names = {f"layers.{at}.weight": torch.zeros(0) for at in range(3_000)}
    save_file(names, tmp_path / "many.safetensors")

    assert read_weights_file(tmp_path / "many.safetensors")["state_dict"].keys() == names.keys()


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    """The hint is a file with a similar name where there is one."""
    (tmp_path / "best_model.pth").touch()
    with pytest.raises(CheckpointError, match="file not found") as near:
        read_weights_file(tmp_path / "best_modl.pth")
    with pytest.raises(CheckpointError, match="file not found") as far:
        read_weights_file(tmp_path / "gone" / "x")

    assert near.value.hint == f"{tmp_path / 'best_model.pth'}, which has a similar name"
    assert far.value.hint == "check the path for typos"
