from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.data.cache import ImageCache, build_cache, cache_bytes, cache_path, is_complete
from camoxpert_cli.data.layouts import pair_folders
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import build, jpeg, noise, scene, square_mask, with_exif, write, write_pairs
from tests.helpers.processes import finish, start, wait_for

SIDE = 16


def quiet(count: int, note: str) -> None:
    """Nobody looks at the progress."""


def same_as_files(cache: ImageCache, pairs: Sequence[Pair]) -> bool:
    """Whether the cache holds what is read without one."""
    return all(
        np.array_equal(stored, fresh)
        for pair in pairs
        for stored, fresh in zip(cache.read(pair), read_resized(pair, cache.img_size), strict=True)
    )


@pytest.fixture
def mixed_pairs(tmp_path: Path) -> tuple[Pair, ...]:
    """PNG and JPEG images, small and large, turned by EXIF or not, with masks drawn on either."""
    folder = tmp_path / "mixed"
    write(folder / "Imgs" / "lossless.png", noise(0))
    write(folder / "GT" / "lossless.png", square_mask(0))
    for name, pixels in {"small": noise(1), "large": scene(2, 100, 150)}.items():
        for orientation in (1, 3, 6):
            for drawn_on in ("turned", "stored"):
                stem = f"{name}-{orientation}-{drawn_on}"
                (folder / "Imgs" / f"{stem}.jpg").write_bytes(with_exif(jpeg(pixels), orientation))
                mask = square_mask(0, *pixels.shape[:2])
                write(folder / "GT" / f"{stem}.png", mask.T if orientation == 6 and drawn_on == "turned" else mask)
    return pair_folders(folder / "Imgs", folder / "GT")


def test_same_pixels_as_the_files(tmp_path: Path, mixed_pairs: tuple[Pair, ...]) -> None:
    """The cache holds what is read without it: image (S, S, 3) and mask (S, S) of 0 and 1, in uint8."""
    cache = build(tmp_path, mixed_pairs, SIDE)
    image, mask = cache.read(mixed_pairs[0])

    assert len(mixed_pairs) == 13
    assert image.shape == (SIDE, SIDE, 3)
    assert mask.shape == (SIDE, SIDE)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert same_as_files(cache, mixed_pairs)


def test_pairs_of_the_cache_in_any_order(tmp_path: Path) -> None:
    """A pair is found by what it is, not by where it stands."""
    pairs = write_pairs(tmp_path, 5)

    assert same_as_files(build(tmp_path / "cache", pairs, SIDE), pairs[::-2])


def test_file(tmp_path: Path) -> None:
    """The file has the size that was promised, tells the side in its name, and is the only one."""
    pairs = write_pairs(tmp_path, 3)
    cache = build(tmp_path / "deep" / "cache", pairs, SIDE)

    assert [*(tmp_path / "deep" / "cache").iterdir()] == [cache.path]
    assert cache.path.name.startswith(f"images-{SIDE}px-")
    assert cache.path.stat().st_size == cache_bytes(3, SIDE) == 3 * 4 * SIDE * SIDE


def rewritten(path: Path, content: bytes) -> None:
    """Write the file, and set its times back; again where the clock that files are stamped by has not moved on."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_content(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    content = bytearray(pairs[1].image.read_bytes())
    content[-20] ^= 1
    rewritten(pairs[1].image, bytes(content))
    return pairs


def change_mask(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    rewritten(pairs[2].mask, pairs[2].mask.read_bytes()[::-1])
    return pairs


def change_time(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    os.utime(pairs[0].image, ns=(0, pairs[0].image.stat().st_mtime_ns + 1))
    return pairs


def change_size(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    rewritten(pairs[0].image, pairs[0].image.read_bytes() + b"more")
    return pairs


def change_place(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    moved = pairs[0].image.parents[2] / "moved"
    pairs[0].image.parents[1].rename(moved)
    return pair_folders(moved / "Imgs", moved / "GT")


CHANGES: dict[str, Callable[[tuple[Pair, ...]], tuple[Pair, ...]]] = {
    "content of the same size and time": change_content,
    "content of a mask": change_mask,
    "time": change_time,
    "size": change_size,
    "place": change_place,
    "order": lambda pairs: pairs[::-1],
    "one pair less": lambda pairs: pairs[:-1],
    "masks of each other": lambda pairs: (
        replace(pairs[0], mask=pairs[1].mask),
        replace(pairs[1], mask=pairs[0].mask),
        *pairs[2:],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_makes_another_file(tmp_path: Path, change: str) -> None:
    """Where a file of the pairs changed in any way, or their order did, the cache is another file."""
    pairs = write_pairs(tmp_path / "data", 3)
    before = cache_path(tmp_path, pairs, SIDE)
    assert cache_path(tmp_path, pairs, SIDE) == before

    changed = CHANGES[change](pairs)

    assert len(changed) >= 2
    assert cache_path(tmp_path, changed, SIDE) != before


def test_another_side_or_version_makes_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The side, and the version of OpenCV, which may resize otherwise, are in the file's name."""
    pairs = write_pairs(tmp_path, 2)
    paths = {cache_path(tmp_path, pairs, SIDE), cache_path(tmp_path, pairs, SIDE + 1)}
    monkeypatch.setattr(cv2, "__version__", "0.0.0")
    paths.add(cache_path(tmp_path, pairs, SIDE))

    assert len(paths) == 3


def test_complete_file_is_not_built_again(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    pairs = write_pairs(tmp_path, 3)
    path = build(tmp_path / "cache", pairs, SIDE).path
    path.write_bytes(bytes(cache_bytes(3, SIDE)))
    told: list[int] = []
    build_cache(path, pairs, SIDE, lambda count, note: told.append(count))

    assert told == []
    assert path.read_bytes() == bytes(cache_bytes(3, SIDE))


def test_progress(tmp_path: Path) -> None:
    """Each pair is told as done once."""
    pairs = write_pairs(tmp_path, 3)
    told: list[int] = []
    build_cache(tmp_path / "cache.u8", pairs, SIDE, lambda count, note: told.append(count))

    assert told == [1, 1, 1]


@pytest.mark.parametrize("off", [-1, 1])
def test_file_of_another_length_is_built_again(tmp_path: Path, off: int) -> None:
    """A file that is too short or too long is not taken for the cache, and is replaced."""
    pairs = write_pairs(tmp_path, 3)
    path = build(tmp_path / "cache", pairs, SIDE).path
    content = path.read_bytes()
    path.write_bytes((content + b"\0")[: len(content) + off])

    assert not is_complete(path, 3, SIDE)
    assert same_as_files(build(tmp_path / "cache", pairs, SIDE), pairs)
    assert is_complete(path, 3, SIDE)


def test_what_is_no_complete_file(tmp_path: Path) -> None:
    """Nothing and a folder are no complete cache."""
    assert not is_complete(tmp_path / "gone", 0, SIDE)
    assert not is_complete(tmp_path, 0, SIDE)


@pytest.mark.parametrize("broken", ["image", "mask", "fit"])
def test_broken_image_leaves_no_file(tmp_path: Path, broken: str) -> None:
    """A pair that cannot be read ends the building with its error, and leaves nothing in the folder."""
    pairs = write_pairs(tmp_path / "data", 5)
    if broken == "fit":
        write(pairs[3].mask, square_mask(0, 9, 9))
    else:
        getattr(pairs[3], broken).write_bytes(b"not a picture")

    with pytest.raises(DataError, match=r"003\.png"):
        build(tmp_path / "cache", pairs, SIDE)

    assert [*(tmp_path / "cache").iterdir()] == []


def test_written_arrays_leave_the_file_alone(tmp_path: Path) -> None:
    """What is read may be written to, and neither the file nor another reader of it sees that."""
    pairs = write_pairs(tmp_path, 2)
    cache = build(tmp_path / "cache", pairs, SIDE)
    before = cache.path.read_bytes()
    image, mask = cache.read(pairs[0])
    image[:], mask[:] = 255 - image, 1 - mask
    other = ImageCache(cache.path, pairs, SIDE)

    assert cache.path.read_bytes() == before
    assert same_as_files(other, pairs)


def test_pickling(tmp_path: Path) -> None:
    """A copy through pickle, as workers that are not forked get it, reads the same and carries no pixels."""
    pairs = write_pairs(tmp_path, 4)
    cache = build(tmp_path / "cache", pairs, 200)
    content = pickle.dumps(cache)
    copy = pickle.loads(content)  # noqa: S301  # written on this line

    assert same_as_files(copy, pairs)
    assert len(content) < 10_000 < cache.path.stat().st_size


# Builds the cache of a folder once the file `go` is there, and notes each image that it reads. From the seventh on it
# waits while the file `hold` is there; it never outlives a test that failed by much.
BUILDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from camoxpert_cli.data import cache
from camoxpert_cli.data.layouts import pair_folders
from camoxpert_cli.data.resizing import read_resized

root, log = (Path(each) for each in sys.argv[1:3])
end = time.monotonic() + 120

def wait(condition):
    while condition() and time.monotonic() < end:
        time.sleep(0.001)

def noted(pair, img_size):
    with log.open("a") as file:
        file.write(pair.name + "\\n")
    wait(lambda: pair.name >= "006" and (root / "hold").exists())
    return read_resized(pair, img_size)

cache.read_resized = noted
pairs = pair_folders(root / "data" / "Imgs", root / "data" / "GT")
path = cache.cache_path(root / "cache", pairs, 16)
print("ready", flush=True)
wait(lambda: not (root / "go").exists())
cache.build_cache(path, pairs, 16, lambda count, note: None, waiting=lambda: print("waiting", flush=True))
print("complete" if cache.is_complete(path, len(pairs), 16) else "missing")
"""


def builder(root: Path, log: str) -> subprocess.Popen[str]:
    """A process that builds the cache of the pairs in `root / "data"` in `root / "cache"`."""
    return start([sys.executable, "-c", BUILDER, str(root), str(root / log)])


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    """Two processes that want the same cache at once make it once, and both have it."""
    pairs = write_pairs(tmp_path / "data", 20)
    processes = [builder(tmp_path, "log") for _ in range(2)]
    assert [said(process) for process in processes] == ["ready\n"] * 2
    (tmp_path / "go").touch()
    ends = [finish(process) for process in processes]
    path = cache_path(tmp_path / "cache", pairs, 16)

    assert [(code, output.splitlines()[-1]) for code, output in ends] == [(0, "complete")] * 2
    assert sorted(lines(tmp_path / "log")) == [pair.name for pair in pairs]
    assert [*(tmp_path / "cache").iterdir()] == [path]
    assert same_as_files(ImageCache(path, pairs, 16), pairs)


def one_builds_another_waits(root: Path) -> tuple[tuple[Pair, ...], subprocess.Popen[str], subprocess.Popen[str]]:
    """The pairs, the process in the middle of building, until `hold` is gone, and the one that has said it waits."""
    pairs = write_pairs(root / "data", 20)
    for name in ("go", "hold"):
        (root / name).touch()
    first = builder(root, "first")
    wait_for(lambda: len(lines(root / "first")) > 6, first)
    second = builder(root, "second")
    assert [said(second) for _ in range(2)] == ["ready\n", "waiting\n"]
    return pairs, first, second


def test_one_waits_for_another(tmp_path: Path) -> None:
    """A process that finds another one building says so, waits, and reads no image itself."""
    pairs, first, second = one_builds_another_waits(tmp_path)
    (tmp_path / "hold").unlink()

    assert finish(first) == (0, "ready\ncomplete\n")
    assert finish(second) == (0, "complete\n")
    assert lines(tmp_path / "second") == []
    assert same_as_files(ImageCache(cache_path(tmp_path / "cache", pairs, 16), pairs, 16), pairs)


def test_killed_while_building(tmp_path: Path) -> None:
    """A process that is killed leaves no cache that would be taken for one; the next one builds it and clears up."""
    pairs = write_pairs(tmp_path / "data", 20)
    for name in ("go", "hold"):
        (tmp_path / name).touch()
    process, folder = builder(tmp_path, "log"), tmp_path / "cache"
    wait_for(lambda: len(lines(tmp_path / "log")) > 6, process)
    process.send_signal(signal.SIGKILL)
    code, _ = finish(process)
    path = cache_path(folder, pairs, 16)

    assert code == -signal.SIGKILL
    assert [file.name.startswith(f".{path.name}.tmp") for file in folder.iterdir()] == [True]
    assert not is_complete(path, 20, 16)

    assert same_as_files(build(folder, pairs, 16), pairs)
    assert [*folder.iterdir()] == [path]


def test_one_is_killed_while_another_waits(tmp_path: Path) -> None:
    """Where the process that builds is killed, the one that waited for it builds in its place."""
    pairs, first, second = one_builds_another_waits(tmp_path)
    first.send_signal(signal.SIGKILL)
    assert finish(first)[0] == -signal.SIGKILL
    (tmp_path / "hold").unlink()
    path = cache_path(tmp_path / "cache", pairs, 16)

    assert finish(second) == (0, "complete\n")
    assert [*(tmp_path / "cache").iterdir()] == [path]
    assert same_as_files(ImageCache(path, pairs, 16), pairs)


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder cannot be locked the cache is built all the same, and what others write is left alone."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    pairs = write_pairs(tmp_path, 3)
    (tmp_path / "cache").mkdir()
    others = tmp_path / "cache" / ".images-16px-0.u8.tmp0"
    others.touch()

    assert same_as_files(build(tmp_path / "cache", pairs, SIDE), pairs)
    assert others.exists()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder that cannot be written is an OSError, which the caller turns into words."""
    pairs = write_pairs(tmp_path, 2)
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        build(tmp_path / "file" / "cache", pairs, SIDE)


def test_turned_image_is_turned(tmp_path: Path, mixed_pairs: tuple[Pair, ...]) -> None:
    """The pixels are those of the image as it is turned: the comparison with the files above has something to see."""
    by_name = {pair.name: pair for pair in mixed_pairs}
    cache = build(tmp_path, mixed_pairs, SIDE)
    turned, stored = (cache.read(by_name[f"large-6-{name}"])[0] for name in ("turned", "stored"))

    assert read_image(by_name["large-6-turned"].image)[1] == (150, 100)
    assert np.abs(np.rot90(turned).astype(int) - stored).mean() < 4
    assert np.abs(turned.astype(int) - stored).mean() > 20


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left on the disk must not fall below the reserve; what a killed process left there counts as room."""
    pairs = write_pairs(tmp_path / "data", 2)
    size, path = cache_bytes(2, SIDE), tmp_path / "cache" / "images-16px-new.u8"
    stale = tmp_path / "cache" / f".images-16px-{32 * '0'}.u8.tmp0a1b2c3d-1-00"
    stale.parent.mkdir()
    stale.write_bytes(b"half")

    def usage(folder: Path) -> Any:
        return SimpleNamespace(free=size + 100 - stale.exists())

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(OSError, match=r"only 0\.0 GiB free, and 0 GiB must stay free for checkpoints"):
        build_cache(path, pairs, SIDE, lambda count, note: None, reserve=101)
    assert not path.exists()
    stale.write_bytes(b"half")
    build_cache(path, pairs, SIDE, lambda count, note: None, reserve=100)

    assert path.exists()


def test_unused_files_are_removed(tmp_path: Path) -> None:
    """A new file replaces those of any version not used for a month; reading counts as use. Other files stay."""
    pairs = write_pairs(tmp_path / "data", 3)
    old, used = (build(tmp_path / "cache", pairs[:count], SIDE).path for count in (1, 2))
    of_0_1 = old.with_name(old.name.replace("images", "pictures"))
    of_0_1.touch()
    of_others = [tmp_path / "cache" / name for name in ("images-of-mine.u8", ".images-mine.u8.tmp-copy")]
    for path in of_others:
        path.touch()
    for path in (old, of_0_1, used, *of_others):
        os.utime(path, (time.time() - 31 * 24 * 3600,) * 2)
    ImageCache(used, pairs[:2], SIDE)
    new = build(tmp_path / "cache", pairs, SIDE).path

    assert sorted((tmp_path / "cache").iterdir()) == sorted([used, new, *of_others])


def test_missing_image(tmp_path: Path) -> None:
    """An image that is gone is an error of the data, not of the cache."""
    pairs = write_pairs(tmp_path / "data", 2)
    pairs[1].image.unlink()

    with pytest.raises(DataError, match=r"cannot read .*001\.png"):
        cache_path(tmp_path, pairs, SIDE)
