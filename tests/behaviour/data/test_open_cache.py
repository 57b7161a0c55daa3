from __future__ import annotations

import errno
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from camoxpert_cli.data import cache
from camoxpert_cli.data.cache import ImageCache, default_folder, open_cache
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.errors import DataError, UsageError
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_plan, write_tiny_data

SIDE = 16
# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def pairs(tiny_data: Path) -> tuple[Pair, ...]:
    return find_data([tiny_data]).train


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for caches, which is not there yet."""
    folder = tmp_path / "home" / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def opened(choice: str, pairs: tuple[Pair, ...]) -> ImageCache:
    cache = open_cache(choice, pairs, SIDE)
    assert cache is not None
    for pair in pairs:
        assert all(np.array_equal(a, b) for a, b in zip(cache.read(pair), read_resized(pair, SIDE), strict=True))
    return cache


def test_auto_goes_to_the_users_caches(home: Path, pairs: tuple[Pair, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """`auto` makes `camox` in the user's folder for caches, and says how much goes where."""
    cache = opened("auto", pairs)
    output = capsys.readouterr()

    assert cache.path.parent == home / "camox" == default_folder()
    assert [*cache.path.parent.iterdir()] == [cache.path]
    assert f"Cache: resizing {TRAINING_IMAGES} pairs to {SIDE} px once, 0 MiB in {home / 'camox'}\n" in output.err
    assert f"Cache: {cache.path}\n" in output.err
    assert output.out == ""


@pytest.mark.parametrize("value", [None, ""])
def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None) -> None:
    """Where no folder for caches is named it is `.cache` in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)

    assert default_folder() == tmp_path / ".cache" / "camox"


def test_off(home: Path, pairs: tuple[Pair, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """`off` gives no cache, writes nothing and says nothing."""
    assert open_cache("off", pairs, SIDE) is None
    assert not home.exists()
    assert capsys.readouterr().err == ""


def test_explicit_folder(home: Path, tmp_path: Path, pairs: tuple[Pair, ...]) -> None:
    """A folder that is named is made and used, and no other."""
    cache = opened(str(tmp_path / "some" / "where"), pairs)

    assert cache.path.parent == tmp_path / "some" / "where"
    assert not home.exists()


def test_second_call_reuses_the_file(
    pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache that is there is opened as it is, even where the disk has no room for another."""
    first = opened("auto", pairs)
    before = first.path.stat()
    capsys.readouterr()
    no_room(monkeypatch)
    second = opened("auto", pairs)

    assert second.path == first.path
    assert (second.path.stat().st_ino, second.path.stat().st_size) == (before.st_ino, before.st_size)
    assert capsys.readouterr().err == f"Cache: {first.path}\n"


def test_other_images_get_another_file(pairs: tuple[Pair, ...]) -> None:
    """Caches of several data sets lie side by side."""
    assert opened("auto", pairs).path != opened("auto", pairs[1:]).path
    assert len([*default_folder().iterdir()]) == 2


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which 2 GiB are free, which is what is kept."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, used=0, free=2**31))


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills while the cache is built."""

    def fail(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "build_cache", fail)


def file_in_the_way(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()


PROBLEMS: dict[str, tuple[Callable[[pytest.MonkeyPatch, Path], None], str]] = {
    "no room": (lambda patch, folder: no_room(patch), r"only 2\.0 GiB free, and 2 GiB must stay free for checkpoints"),
    "full disk": (
        lambda patch, folder: full_disk(patch),
        "cannot write the cache of 0 MiB to .*: No space left on device",
    ),
    "cannot be made": (file_in_the_way, "cannot write the cache of 0 MiB to .*: Not a directory"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_auto_goes_without_where_there_is_no_place(
    home: Path,
    pairs: tuple[Pair, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
) -> None:
    """Where `auto` finds no place, a warning says why and the run goes on without a cache."""
    happen, words = PROBLEMS[problem]
    happen(monkeypatch, home)

    assert open_cache("auto", pairs, SIDE) is None
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert "images are not cached and are decoded again in every epoch" in warning
    assert re.search(words, warning)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_explicit_folder_without_place(
    tmp_path: Path, pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    """A folder that was asked for and cannot hold the cache ends the run, with what else to choose."""
    happen, words = PROBLEMS[problem]
    happen(monkeypatch, tmp_path / "asked" / "for")

    with pytest.raises(UsageError) as caught:
        open_cache(str(tmp_path / "asked" / "for" / "cache"), pairs, SIDE)

    assert re.search(words, caught.value.message)
    assert "\n" not in caught.value.message
    assert "--cache off" in caught.value.hint


def test_just_enough_room(pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept on the disk, and the cache, are all that has to be free."""
    size = len(pairs) * 4 * SIDE * SIDE
    for free, expected in ((2**31 + size - 1, False), (2**31 + size, True)):
        usage = SimpleNamespace(total=2**40, used=0, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        assert (open_cache("auto", pairs, SIDE) is not None) == expected


@pytest.mark.parametrize("choice", ["auto", "explicit"])
def test_image_that_cannot_be_read(tmp_path: Path, home: Path, pairs: tuple[Pair, ...], choice: str) -> None:
    """A broken image is an error in either case: a run would stop at it later."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    folder = home / "camox" if choice == "auto" else tmp_path / "cache"

    with pytest.raises(DataError, match=r"broken\.png cannot be decoded"):
        open_cache("auto" if choice == "auto" else str(folder), (*pairs, Pair("broken", broken, pairs[0].mask)), SIDE)

    assert [*folder.iterdir()] == []


def batches(run: Run) -> list[Tensor]:
    """All tensors of an epoch of each stage, the second cut after three images, and of the held-out images."""
    first, second = run.phases[0].stage, run.phases[-1].stage
    found: list[Tensor] = []
    for stage, epoch, samples in ((first, 0, 0), (second, 1, 3)):
        found += itertools.chain.from_iterable(run.feed.training(stage, epoch, samples)[0])
    for images, masks, indices in run.feed.validation:
        found += [images, *masks, indices]
    return found


def test_run_with_a_cache(tmp_path: Path) -> None:
    """A run with a cache trains and validates on the very tensors of one without, and has no use for the images."""
    data = write_tiny_data(tmp_path / "data")
    cached, _ = prepare(tiny_plan(data, tmp_path / "cached", cache=str(tmp_path / "cache"), num_workers=2))
    plain, _ = prepare(tiny_plan(data, tmp_path / "plain"))
    expected = batches(plain)
    for image in (data / "TrainDataset" / "Imgs").iterdir():
        image.unlink()
    found = batches(cached)

    assert len([*(tmp_path / "cache").iterdir()]) == 1
    assert len(found) == len(expected) > 10
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_another_seed_takes_the_same_cache(tiny_data: Path, tmp_path: Path) -> None:
    """The cache holds what is held out too, so that a run with another seed, and another split, finds it there."""
    held_out = set()
    for seed in (1, 2):
        run, _ = prepare(tiny_plan(tiny_data, tmp_path / f"run{seed}", cache=str(tmp_path / "cache"), seed=seed))
        held_out.add(tuple(pair.name for pair in run.data.validation))

    assert len(held_out) == 2
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_generated_images_are_not_cached(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated images have the size of the network and are read as fast: no cache is made of them."""
    monkeypatch.setattr("camoxpert_cli.engine.build.GENERATED_VALIDATION", 2)
    prepare(tiny_plan(tmp_path, tmp_path / "run", dataset_path=[], generated_images=2, cache="auto"))

    assert not home.exists()


def test_auto_without_a_home(
    pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user without a home folder trains without a cache, and is told how to have one."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)

    assert open_cache("auto", pairs, SIDE) is None
    assert "XDG_CACHE_HOME" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["auto", "explicit"])
def test_folder_that_may_not_be_entered(
    tmp_path: Path, pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    """A place without permission is as good as none for auto, and an error where it was asked for."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "is_file", refuse)

    if choice == "auto":
        assert open_cache("auto", pairs, SIDE) is None
    else:
        with pytest.raises(UsageError, match="Permission denied"):
            open_cache(str(tmp_path / "cache"), pairs, SIDE)
