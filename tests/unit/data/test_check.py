from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data.check import KINDS, Fault, Report, check
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.pairs import Pair, write_list
from camoxpert_cli.data.reading import read_mask, read_matching_image, read_scored_mask
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import jpeg, noise, scene, square_mask, touch, with_exif, write, write_pairs

HEIGHT, WIDTH = 96, 128
TRAIN, A, B = "train data", "test A", "test B"
VAL = "val data"
FOLDERS = {TRAIN: "TrainDataset", VAL: "val", A: "TestDataset/A", B: "TestDataset/B"}


def examine(*roots: Path, include_noncam: bool = False) -> Report:
    return check(roots, include_noncam=include_noncam, progress=lambda total: lambda count, note: None)


def kinds_of(report: Report) -> list[tuple[str, str, str]]:
    return [(fault.kind, fault.set, fault.path.name) for fault in report.faults]


def content_of(pixels: NDArray[Any] | bytes, suffix: str) -> bytes:
    return pixels if isinstance(pixels, bytes) else cv2.imencode(suffix, pixels)[1].tobytes()


class DataSetWithFaults:
    """Writes pairs, most of them clean, and remembers the faults that were planted.

    Images and masks are BGR, BGRA or grey pixels, or the contents of files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.planted: list[tuple[str, str, Path, bool]] = []
        self._count = 0

    def add(
        self,
        name: str,
        image: NDArray[Any] | bytes | None = None,
        mask: NDArray[Any] | bytes | None = None,
        *,
        to: str = TRAIN,
        suffixes: tuple[str, str] = (".jpg", ".png"),
        image_fault: str = "",
        mask_fault: str = "",
        trainable: bool = False,
    ) -> None:
        """One pair; a fault is that of the image's file or of the mask's."""
        self._count += 1
        image = scene(self._count, HEIGHT, WIDTH) if image is None else image
        mask = square_mask(self._count, HEIGHT, WIDTH) if mask is None else mask
        for folder, pixels, suffix, fault in (
            ("Imgs", image, suffixes[0], image_fault),
            ("GT", mask, suffixes[1], mask_fault),
        ):
            path = self.root / FOLDERS[to] / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_of(pixels, suffix))
            if fault:
                self.planted.append((fault, to, path, trainable))

    def remove(self, name: str, to: str = TRAIN) -> None:
        (self.root / FOLDERS[to] / name).unlink()


def blob(height: int = HEIGHT, width: int = WIDTH, line: int = cv2.LINE_8) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 4, height // 5), 20, 0, 360, 255, -1, line)
    return mask


def thin() -> NDArray[np.uint8]:
    """An object with six antialiased whiskers."""
    mask = blob(240, 320, cv2.LINE_AA)
    for angle in range(6):
        end = (160 + int(130 * np.cos(angle)), 120 + int(100 * np.sin(angle)))
        cv2.line(mask, (160, 120), end, 255, 1, cv2.LINE_AA)
    return mask


def coloured(mask: NDArray[np.uint8], bgr: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.asarray(np.where(mask[..., None] > 0, np.array(bgr, np.uint8), 0), dtype=np.uint8)


def saved(image: NDArray[np.uint8], quality: int) -> bytes:
    return jpeg(image, cv2.IMWRITE_JPEG_QUALITY, quality)


def add_clean_pairs(data: DataSetWithFaults) -> None:
    """What must not be reported, however strange it looks."""
    mask, full = blob(), np.full((HEIGHT, WIDTH), 255, np.uint8)
    for to in (TRAIN, A, B):
        for index in range(4):
            data.add(f"clean-{index}", to=to, suffixes=(".png", ".bmp") if index else (".JPG", ".PNG"))
    data.add("16-bit", mask=mask.astype(np.uint16) * 257)
    deep = mask.astype(np.uint16) * 257
    data.add("16-bit-channels-that-hardly-differ", mask=np.dstack([deep, np.minimum(deep, 65000), deep]))
    data.add("three-channels", mask=np.dstack([mask] * 3))
    data.add("alpha-alone", mask=np.dstack([full, full, full, mask]))
    data.add("alpha-alone-black", mask=np.dstack([0 * full, 0 * full, 0 * full, mask]))
    data.add("alpha-alone-grey", mask=np.dstack([full // 2, full // 2, full // 2, mask]))
    data.add("alpha-and-grey", mask=np.dstack([mask, mask, mask, full]))
    data.add("alpha-16-bit", mask=np.dstack([mask, mask, mask, full]).astype(np.uint16) * 257)
    soft_alpha = cv2.GaussianBlur(mask, (0, 0), 3)
    data.add("soft-alpha", mask=np.dstack([full, full, full, soft_alpha]))
    for quality in (50, 75, 95):
        data.add(f"mask-as-jpeg-{quality}", mask=saved(blob(), quality), suffixes=(".jpg", ".jpg"))
        data.add(
            f"mask-as-colour-jpeg-{quality}", mask=saved(np.dstack([blob()] * 3), quality), suffixes=(".jpg", ".jpeg")
        )
    data.add("thin", image=scene(1000, 240, 320), mask=thin())
    data.add("nearly-white", mask=np.where(mask > 0, 250, 5).astype(np.uint8))
    data.add("small", mask=(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == 5000).astype(np.uint8) * 255)
    large = 255 - np.zeros_like(mask)
    large[:, : WIDTH // 5] = 0
    data.add("large-to-three-edges", mask=large)
    frame = np.zeros_like(mask)
    frame[:6], frame[-6:], frame[:, :6], frame[:, -6:] = 255, 255, 255, 255
    data.add("frame", mask=frame)
    data.add("grey-picture", image=np.asarray(scene(1001, HEIGHT, WIDTH)[..., 0]), suffixes=(".png", ".png"))
    data.add("film-after-its-end", image=jpeg(scene(1002, HEIGHT, WIDTH)) + b"film" * 1000)
    data.add("upright", image=with_exif(jpeg(scene(1003, HEIGHT, WIDTH)), 1))
    data.add("out-of-range", image=with_exif(jpeg(scene(1004, HEIGHT, WIDTH)), 9))
    data.add("progressive", image=jpeg(scene(1005, HEIGHT, WIDTH), cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    for index, value in enumerate((0, 90)):
        data.add(f"flat-{index}", image=np.full((HEIGHT, WIDTH, 3), value, np.uint8))
    shared = scene(1006, HEIGHT, WIDTH)
    data.add("in-both-test-sets", image=shared, to=A)
    data.add("in-both-test-sets-under-another-name", image=saved(shared, 40), to=B)


def add_faulty_files(data: DataSetWithFaults) -> None:
    """Files without each other, that share a name, that cannot be read or whose end is missing."""
    data.add("lone-image", image_fault="no mask")
    data.remove("GT/lone-image.png")
    data.add("lone-image", to=B, suffixes=(".bmp", ".png"), image_fault="no mask")
    data.remove("GT/lone-image.png", B)
    data.add("lone-mask", mask_fault="no image")
    data.remove("Imgs/lone-mask.jpg")
    data.add("lone-mask", to=A, suffixes=(".jpg", ".jpeg"), mask_fault="no image")
    data.remove("Imgs/lone-mask.jpg", A)

    data.add("two-images")
    data.add("two-images", suffixes=(".png", ".png"), image_fault="same name", trainable=True)
    data.add("two-masks", to=A)
    data.add("two-masks", to=A, suffixes=(".jpg", ".webp"))
    data.remove("GT/two-masks.webp", A)  # no format that is looked for
    data.add("two-masks", to=A, suffixes=(".jpg", ".PNG"))
    data.planted.append(("same name", A, data.root / FOLDERS[A] / "GT" / "two-masks.png", True))

    whole, mask = jpeg(scene(2000, HEIGHT, WIDTH)), content_of(blob(), ".png")
    bmp = content_of(scene(2001, HEIGHT, WIDTH), ".bmp")
    data.add("image-of-text", image=b"<html>not found</html>", image_fault="unreadable")
    data.add("image-is-empty", image=b"", suffixes=(".png", ".png"), image_fault="unreadable", to=B)
    data.add("image-bmp-cut", image=bmp[:-500], suffixes=(".bmp", ".png"), image_fault="unreadable")
    data.add("mask-is-empty", mask=b"", mask_fault="unreadable")
    data.add("mask-of-text", mask=b"P5 2 2", mask_fault="unreadable", to=A)
    data.add("both-of-text", image=b"a", mask=b"b", image_fault="unreadable", mask_fault="unreadable")
    data.add("jpeg-cut", image=whole[:-300], image_fault="truncated")
    data.add("jpeg-cut-by-its-end", image=whole[:-2], image_fault="truncated", to=B)
    data.add("jpeg-cut-early", image=whole[:100], suffixes=(".png", ".png"), image_fault="truncated")
    data.add("png-cut", image=content_of(noise(1), ".png")[:-40], suffixes=(".png", ".png"), image_fault="truncated")
    data.add("mask-cut", mask=mask[:-20], mask_fault="truncated", to=A)
    data.add("mask-jpeg-cut", mask=saved(blob(), 75)[:-100], suffixes=(".jpg", ".jpg"), mask_fault="truncated")


def add_faulty_masks(data: DataSetWithFaults) -> None:
    """Masks that do not fit or hold something else than black and white, or no object, or nothing else."""
    mask, full = blob(), np.full((HEIGHT, WIDTH), 255, np.uint8)
    data.add("size-off-by-one", mask=blob(HEIGHT - 1), mask_fault="size")
    data.add("size-half", mask=blob(HEIGHT // 2, WIDTH // 2), mask_fault="size", to=A, trainable=True)
    data.add("size-of-another", mask=blob(HEIGHT // 2, WIDTH), mask_fault="size", to=A)
    data.add("size-turned", mask=blob(WIDTH, HEIGHT), mask_fault="size")
    exif = with_exif(jpeg(scene(3000, HEIGHT, WIDTH)), 6)
    data.add("size-of-a-turned-one", image=exif, mask=blob(HEIGHT, WIDTH - 1), mask_fault="size")

    data.add("zeros-and-ones", mask=mask // 255, mask_fault="not binary")
    data.add("black-and-grey", mask=mask // 2, mask_fault="not binary", to=B)
    data.add("grey-and-white", mask=np.maximum(mask, 100), mask_fault="not binary")
    data.add("blurred", mask=cv2.GaussianBlur(mask, (0, 0), 4), mask_fault="not binary")
    data.add(
        "three-levels", mask=np.where(blob(WIDTH, HEIGHT).T > 0, 128, mask).astype(np.uint8), mask_fault="not binary"
    )
    data.add(
        "slope",
        mask=np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8),
        mask_fault="not binary",
    )
    soft = cv2.GaussianBlur(mask, (0, 0), 4)
    data.add("blurred-16-bit", mask=soft.astype(np.uint16) * 257, mask_fault="not binary")
    data.add("blurred-opaque", mask=np.dstack([soft, soft, soft, full]), mask_fault="not binary")

    data.add("red", mask=coloured(mask, (0, 0, 255)), mask_fault="color")
    data.add("yellow-16-bit", mask=coloured(mask, (0, 255, 255)).astype(np.uint16) * 257, mask_fault="color", to=A)
    data.add(
        "several-objects",
        mask=coloured(mask, (0, 128, 0)) + coloured(np.rot90(mask, 2), (90, 0, 90)),
        mask_fault="color",
    )
    data.add("drawn-on-the-picture", mask=scene(3001, HEIGHT, WIDTH), mask_fault="color")
    data.add("red-as-jpeg", mask=saved(coloured(mask, (0, 0, 255)), 75), suffixes=(".jpg", ".jpg"), mask_fault="color")
    data.add("red-with-alpha", mask=np.dstack([coloured(mask, (0, 0, 255)), full]), mask_fault="color")

    data.add("black", mask=0 * mask, mask_fault="empty")
    data.add("black-16-bit", mask=np.zeros((HEIGHT, WIDTH), np.uint16), mask_fault="empty", to=B)
    data.add("black-as-jpeg", mask=saved(0 * mask, 75), suffixes=(".jpg", ".jpg"), mask_fault="empty")
    data.add("white", mask=full, mask_fault="full", to=A)
    data.add("white-channels", mask=np.dstack([full] * 3), mask_fault="full")

    data.add("inverted", mask=255 - mask, mask_fault="inverted")
    data.add("inverted-alpha", mask=np.dstack([full, full, full, 255 - mask]), mask_fault="inverted")
    data.add("inverted-as-jpeg", mask=saved(255 - mask, 75), suffixes=(".jpg", ".jpg"), mask_fault="inverted", to=B)


def add_turned_images(data: DataSetWithFaults) -> None:
    """EXIF orientations beside masks that tell how they were drawn, or do not."""
    for orientation in (5, 6, 7, 8):
        for name, mask in (("stored", blob()), ("turned", blob(WIDTH, HEIGHT))):
            image = with_exif(jpeg(scene(4000 + len(data.planted), HEIGHT, WIDTH)), orientation)
            data.add(f"{name}-{orientation}", image, mask, image_fault="rotation", trainable=True)
        image = with_exif(jpeg(scene(4100 + orientation, WIDTH, WIDTH)), orientation)
        data.add(f"square-{orientation}", image, blob(WIDTH, WIDTH), image_fault="rotation")
    for orientation in (2, 3, 4):
        image = with_exif(jpeg(scene(4200 + orientation, HEIGHT, WIDTH)), orientation)
        data.add(f"upside-down-{orientation}", image, image_fault="rotation", to=A)


def add_repeated_images(data: DataSetWithFaults) -> None:
    """Images that are twice in a set, or in the training set and a test set."""
    first = scene(5000, HEIGHT, WIDTH)
    half = np.asarray(cv2.resize(first, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    data.add("again-0", first)
    data.add("again-1", jpeg(first), image_fault="duplicate")
    data.add("again-2", saved(first, 20), image_fault="duplicate", trainable=True)
    data.add("again-3", half, blob(HEIGHT // 2, WIDTH // 2), image_fault="duplicate", trainable=True)
    brighter = np.clip(first * 1.2 + 10, 0, 255).astype(np.uint8)
    data.add("again-4", brighter, image_fault="duplicate", trainable=True)
    data.add("again-flat-0", np.full((HEIGHT, WIDTH, 3), 33, np.uint8), suffixes=(".png", ".png"))
    data.add(
        "again-flat-1", np.full((HEIGHT, WIDTH, 3), 33, np.uint8), suffixes=(".bmp", ".png"), image_fault="duplicate"
    )
    tested = scene(5001, HEIGHT, WIDTH)
    data.add("again-0", tested, to=B)
    data.add("again-1", saved(tested, 30), to=B, image_fault="duplicate", trainable=True)
    data.add("again-2", tested, to=B, image_fault="duplicate", trainable=True)

    secret, other = scene(5002, HEIGHT, WIDTH), scene(5003, HEIGHT, WIDTH)
    data.add("secret", secret, to=A)
    data.add("leaked", saved(secret, 40), image_fault="leak")
    data.add("other-secret", other, to=B)
    data.add("twice-leaked-0", other, image_fault="leak")
    data.add("twice-leaked-1", saved(other, 60), image_fault="leak")
    data.planted.append(("duplicate", TRAIN, data.root / "TrainDataset" / "Imgs" / "twice-leaked-1.jpg", True))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> DataSetWithFaults:
    """A data set with every kind of fault, several times each, among clean pairs."""
    data = DataSetWithFaults(tmp_path_factory.mktemp("faulty") / "data")
    parts: list[Callable[[DataSetWithFaults], None]] = [
        add_clean_pairs,
        add_faulty_files,
        add_faulty_masks,
        add_turned_images,
        add_repeated_images,
    ]
    for part in parts:
        part(data)
    return data


@pytest.fixture(scope="module")
def report(faulty: DataSetWithFaults) -> Report:
    return examine(faulty.root)


def test_every_planted_fault_is_found(faulty: DataSetWithFaults, report: Report) -> None:
    """What was planted is found, with its kind, set, file and whether it can be trained on, and nothing else is."""
    found = [(fault.kind, fault.set, fault.path, fault.trainable) for fault in report.faults]

    assert sorted(found) == sorted(faulty.planted)
    assert {fault.kind for fault in report.faults} == set(KINDS) - {"no pairs"}
    assert min(Counter(fault.kind for fault in report.faults).values()) >= 2


def test_faults_come_in_the_order_of_their_kinds(report: Report) -> None:
    """Faults of one kind stand together, then by set and path."""
    order = list(KINDS)

    assert report.faults == sorted(report.faults, key=lambda each: (order.index(each.kind), each.set, each.path))


def test_details_say_what_is_wrong(report: Report) -> None:
    """The words on a fault say by how much, beside what, or what to look at, without the file's own path."""
    details = {(fault.kind, fault.path.stem): fault.detail for fault in report.faults}

    assert all(details.values())
    assert not any(str(fault.path) in fault.detail or "\n" in fault.detail for fault in report.faults)
    assert details["same name", "two-images"] == "two-images.jpg has the same name"
    assert details["truncated", "jpeg-cut"] == "is truncated: the end of the JPEG is missing"
    assert details["unreadable", "image-of-text"] == "cannot be decoded as an image"
    assert details["size", "size-off-by-one"] == "128×95, but its image size-off-by-one.jpg is 128×96"
    assert details["size", "size-of-a-turned-one"] == "127×96, but its image size-of-a-turned-one.jpg is 96×128"
    assert details["not binary", "zeros-and-ones"] == (
        "contains no value high enough to mark an object, only 0 and 1; expected 0 and 255; "
        "small numbers are usually class indices"
    )
    assert "neither black nor white" in details["not binary", "blurred"]
    assert "in color" in details["color", "red"]
    assert "of the image and 100% of its border" in details["inverted", "inverted"]
    assert "the image as stored, which is how camox reads it" in details["rotation", "stored-6"]
    assert "fits the rotated image, which is how camox reads it" in details["rotation", "turned-6"]
    assert "check which one" in details["rotation", "square-6"]
    assert details["duplicate", "again-4"].endswith("Imgs/again-0.jpg")
    assert details["leak", "leaked"].startswith("also in test A: ")
    assert details["leak", "leaked"].endswith("A/Imgs/secret.jpg")


def test_clean_pairs(faulty: DataSetWithFaults, report: Report, tmp_path: Path) -> None:
    """What is left can be read and trained on; what is missing is what has a fault that forbids it."""
    train, tests, _ = report.clean
    faulty_files = {path for kind, _, path, trainable in faulty.planted if not trainable}
    all_files = {path for folder in FOLDERS.values() for path in (faulty.root / folder).glob("*/*")}
    images_of_faulty = {(path.parents[1], path.stem) for path in faulty_files}
    expected = {path for path in all_files if (path.parents[1], path.stem) not in images_of_faulty}
    # Of two files that share a name the first is kept.
    expected -= {path for kind, _, path, _ in faulty.planted if kind == "same name"}
    kept = [pair for pairs in (train, *tests.values()) for pair in pairs]

    assert {path for pair in kept for path in (pair.image, pair.mask)} == expected
    assert list(tests) == ["A", "B"]
    assert {pair.image.parents[1].name for pair in train} == {"TrainDataset"}
    assert all(pair.image.parents[1].name == name for name, pairs in tests.items() for pair in pairs)
    for pair in kept:
        mask = read_mask(pair.mask)
        read_matching_image(pair.image, mask.shape, pair.mask, None, resized=pair not in train)
        assert 0 < mask.mean() < 1

    write_list(tmp_path / "clean.json", train, tests)
    data = find_data([tmp_path / "clean.json"])
    assert (data.train, data.tests) == (tuple(train), {name: tuple(pairs) for name, pairs in tests.items()})
    again = examine_pairs(data.train, tmp_path / "again").faults
    assert {(fault.kind, fault.trainable) for fault in again} <= {("duplicate", True), ("rotation", True)}


def examine_pairs(pairs: Sequence[Pair], root: Path) -> Report:
    """The report on these pairs alone, linked into a folder; those that EXIF turns are known and left out."""
    for folder in ("Imgs", "GT"):
        (root / folder).mkdir(parents=True)
    for pair in pairs:
        if not pair.name.startswith(("stored-", "turned-")):
            (root / "Imgs" / pair.image.name).symlink_to(pair.image)
            (root / "GT" / pair.mask.name).symlink_to(pair.mask)
    return examine(root)


def test_files_are_counted(faulty: DataSetWithFaults, report: Report) -> None:
    """Each set tells what it is for and how many files it has; what cannot be read has neither size nor area."""
    planted = Counter((kind, where) for kind, where, _, _ in faulty.planted)
    unread = Counter(
        (where, path.parent.name) for kind, where, path, _ in faulty.planted if kind in ("unreadable", "truncated")
    )

    assert [(each.title, each.use) for each in report.sets] == [(TRAIN, "train"), (A, "test"), (B, "test")]
    for each in report.sets:
        assert each.images == len(each.pairs) + planted["no mask", each.title]
        assert each.masks == len(each.pairs) + planted["no image", each.title]
        assert len(each.sizes) == len(each.pairs) - unread[each.title, "Imgs"]
        unclear = sum(fault.repair != "" for fault in report.faults if fault.set == each.title)
        assert len(each.areas) == len(each.pairs) - unread[each.title, "GT"] - unclear
    assert unread.total() == 13


def test_clean_data_set(tmp_path: Path) -> None:
    """A data set without faults has none, and its sizes and areas are those of its images."""
    for part, count in (("TrainDataset", 3), ("TestDataset/A", 2)):
        write_pairs(tmp_path / part, count)
    write(tmp_path / "TestDataset" / "A" / "Imgs" / "000.png", scene(9, 24, 32))
    write(tmp_path / "TestDataset" / "A" / "Imgs" / "001.png", scene(8, 25, 32))

    report = examine(tmp_path)
    train, test = report.sets

    assert report.faults == []
    assert train.sizes == [(24, 32), (25, 32), (26, 32)]
    assert train.areas == pytest.approx([8 * 10 / (height * 32) for height in (24, 25, 26)])
    assert (test.images, test.masks, test.left_out, len(test.pairs)) == (2, 2, 0, 2)
    assert report.clean == (list(find_data([tmp_path]).train), {"A": test.pairs}, [])


def test_turned_images_are_measured_as_they_are_read(tmp_path: Path) -> None:
    """The size of an image is that in which it is shown."""
    data = DataSetWithFaults(tmp_path)
    data.add("turned", with_exif(jpeg(scene(0, HEIGHT, WIDTH)), 6), blob(WIDTH, HEIGHT))

    assert examine(tmp_path).sets[0].sizes == [(WIDTH, HEIGHT)]


def test_no_image_is_examined_twice(tmp_path: Path) -> None:
    """A root given twice counts once, and progress is told for every pair."""
    write_pairs(tmp_path / "data", 5)
    totals, told = [], []

    def progress(total: int) -> Callable[[int, str], None]:
        totals.append(total)
        return lambda count, note: told.append((count, note))

    report = check([tmp_path / "data", tmp_path / "data" / ".." / "data"], include_noncam=False, progress=progress)

    assert len(report.sets) == 1
    assert totals == [5]
    assert told == [(1, f"{index:03d}") for index in range(5)]


def test_roles(tmp_path: Path) -> None:
    """Folders that do not say what they are train alone, and are test sets beside others, as in `find_data`."""
    write_pairs(tmp_path / "NC4K", 3)
    write_pairs(tmp_path / "COD10K" / "Train", 2)

    assert [each.title for each in examine(tmp_path / "NC4K").sets] == ["train NC4K"]
    report = examine(tmp_path / "NC4K", tmp_path / "COD10K")
    assert [each.title for each in report.sets] == ["test NC4K", "train COD10K"]
    # The same images as those of the first two pairs.
    assert kinds_of(report) == [("leak", "train COD10K", "000.png"), ("leak", "train COD10K", "001.png")]


def test_leaks_go_by_content(tmp_path: Path) -> None:
    """A training image is found in a test set under another name and format; one of the same name is none."""
    tested = scene(0, HEIGHT, WIDTH)
    data = DataSetWithFaults(tmp_path / "data")
    data.add("a", tested, to=A)
    data.add("b", scene(1, HEIGHT, WIDTH), to=A)
    data.add("b", saved(tested, 30))
    data.add("a", scene(2, HEIGHT, WIDTH))

    report = examine(tmp_path / "data")
    (fault,) = report.faults

    assert fault == Fault(
        "leak",
        TRAIN,
        tmp_path / "data/TrainDataset/Imgs/b.jpg",
        f"also in test A: {report.sets[1].pairs[0].image}",
    )
    assert [pair.name for pair in report.clean[0]] == ["a"]
    assert [pair.name for pair in report.clean[1]["A"]] == ["a", "b"]


def test_leaks_between_roots(tmp_path: Path) -> None:
    """Leaks and duplicates are looked for over all roots, and test sets may share images."""
    images = [scene(seed, HEIGHT, WIDTH) for seed in range(100, 104)]
    x, y = DataSetWithFaults(tmp_path / "x"), DataSetWithFaults(tmp_path / "y")
    x.add("trained", images[0])
    x.add("tested", images[1], to=A)
    x.add("shared", images[2], to=A)
    y.add("trained-too", images[0])
    y.add("leaked", images[1])
    y.add("own", images[3])
    y.add("shared-too", images[2], to=B)

    assert kinds_of(examine(tmp_path / "x", tmp_path / "y")) == [
        ("duplicate", "train y", "trained-too.jpg"),
        ("leak", "train y", "leaked.jpg"),
    ]


def test_cod10k_names_are_counted(tmp_path: Path) -> None:
    """Images are counted by the super-class and class in COD10K's names, broken ones too, and others not at all."""
    data = DataSetWithFaults(tmp_path)
    names = ["1-Aquatic-3-Crab-1", "1-Aquatic-3-Crab-2", "1-Aquatic-13-Pipefish-3", "3-Flying-53-Bird-4"]
    for name in names:
        data.add(f"COD10K-CAM-{name}", to=A)
    data.add("COD10K-CAM-2-Terrestrial-23-Cat-5", b"broken", to=A)
    data.add("camourflage_00012", to=A)
    data.add("COD10K-CAM-4-Amphibian-67-Toad-6")

    train, test = examine(tmp_path).sets

    assert test.super_classes == {"Aquatic": 3, "Flying": 1, "Terrestrial": 1}
    assert test.classes == {"Crab": 2, "Pipefish": 1, "Bird": 1, "Cat": 1}
    assert train.super_classes == {"Amphibian": 1}
    assert len(test.pairs) == 6


def test_non_camouflaged_images(tmp_path: Path) -> None:
    """COD10K's NonCAM images are left out and counted; where they are asked for their masks may be empty."""
    data = DataSetWithFaults(tmp_path)
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    data.add("COD10K-CAM-1-Aquatic-3-Crab-1")
    data.add("COD10K-CAM-1-Aquatic-3-Crab-2", mask=empty)
    data.add("COD10K-NonCAM-1-Aquatic-3-Crab-3", mask=empty)
    data.add("COD10K-NonCAM-1-Aquatic-3-Crab-4", mask=empty)
    data.add("COD10K-NonCAM-1-Aquatic-3-Crab-5", mask=empty)
    data.add("COD10K-NonCAM-1-Aquatic-3-Crab-6", mask=255 - empty)
    data.remove("GT/COD10K-NonCAM-1-Aquatic-3-Crab-4.png")
    data.remove("Imgs/COD10K-NonCAM-1-Aquatic-3-Crab-5.jpg")

    without, included = examine(tmp_path), examine(tmp_path, include_noncam=True)

    title = f"train {tmp_path.name}"
    empty_one = ("empty", title, "COD10K-CAM-1-Aquatic-3-Crab-2.png")
    assert kinds_of(without) == [empty_one]
    assert (without.sets[0].images, without.sets[0].masks, without.sets[0].left_out) == (2, 2, 3)
    assert kinds_of(included) == [
        ("no mask", title, "COD10K-NonCAM-1-Aquatic-3-Crab-4.jpg"),
        ("no image", title, "COD10K-NonCAM-1-Aquatic-3-Crab-5.png"),
        empty_one,
        ("full", title, "COD10K-NonCAM-1-Aquatic-3-Crab-6.png"),
    ]
    assert (included.sets[0].images, included.sets[0].masks, included.sets[0].left_out) == (5, 5, 0)
    assert [pair.name[-1] for pair in included.clean[0]] == ["1", "3"]


def test_camo(tmp_path: Path) -> None:
    """CAMO's training and test masks lie in one folder, and only a mask of neither has no image."""
    for index, (part, name) in enumerate((("Train", "a"), ("Train", "b"), ("Test", "c"))):
        write(tmp_path / "CAMO" / "Images" / part / f"{name}.jpg", scene(index, HEIGHT, WIDTH))
        write(tmp_path / "CAMO" / "GT" / f"{name}.png", blob())
    assert examine(tmp_path / "CAMO").faults == []

    write(tmp_path / "CAMO" / "GT" / "d.png", blob())

    # It is missing on both sides.
    assert kinds_of(examine(tmp_path / "CAMO")) == [
        ("no image", "test CAMO", "d.png"),
        ("no image", "train CAMO", "d.png"),
    ]


def test_all_files_are_broken(tmp_path: Path) -> None:
    """Where nothing can be read there are faults, and no pairs are left."""
    touch(tmp_path / "Imgs", ["a.jpg", "b.jpg"])
    touch(tmp_path / "GT", ["a.png", "b.png"])

    report = examine(tmp_path)

    assert [fault.kind for fault in report.faults] == ["unreadable"] * 4
    assert (report.sets[0].sizes, report.sets[0].areas) == ([], [])
    assert report.clean == ([], {}, [])


def test_folder_of_no_known_layout(tmp_path: Path) -> None:
    """A folder that is no data set is an error, as for training."""
    touch(tmp_path / "frames", ["a.jpg"])

    with pytest.raises(DataError, match="does not have a known dataset layout"):
        examine(tmp_path)


def test_damaged_exif_and_xmp_are_no_rotation(tmp_path: Path) -> None:
    """An image that OpenCV does not turn is not reported, whatever its metadata say; nothing is printed about them."""
    content = with_exif(jpeg(scene(0, 48, 64)), 6)
    at = content.index(b"Exif\0\0") + 6
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="3" note="Exif"/>'
    plain = jpeg(scene(1, 48, 64))
    images = {
        "damaged": content[:at] + b"MM\0*\0\xff\0\x08" + content[at + 8 :],
        "xmp": plain[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + plain[2:],
    }
    (tmp_path / "Imgs").mkdir()
    for index, (name, image) in enumerate(images.items()):
        (tmp_path / "Imgs" / f"{name}.jpg").write_bytes(image)
        write(tmp_path / "GT" / f"{name}.png", square_mask(index, 48, 64))

    assert examine(tmp_path).faults == []


def test_sets_without_a_pair(tmp_path: Path) -> None:
    """Nothing that can be used is a fault, whether there is nothing at all or all of it is left out."""
    touch(tmp_path / "none" / "Imgs", ["a.heic"])
    touch(tmp_path / "none" / "GT", [])
    data = DataSetWithFaults(tmp_path / "left-out")
    data.add("COD10K-NonCAM-1-Aquatic-3-Crab-3")
    none, left_out = examine(tmp_path / "none"), examine(tmp_path / "left-out")

    assert [fault.kind for fault in none.faults + left_out.faults] == ["no pairs", "no pairs"]
    assert "Imgs contains 1 .heic file; " in none.faults[0].detail
    assert none.notes == ["train none: skipped 1 .heic file (not readable by OpenCV; convert images to PNG or JPEG)"]
    assert "skipped 1 NonCAM image (no camouflaged object)" in left_out.faults[0].detail


def test_leaks_of_what_is_validated_on(tmp_path: Path) -> None:
    """No image of a test set, in any form, may be validated on, and none that is validated on trained on."""
    first, second, third = (scene(seed, HEIGHT, WIDTH) for seed in (1, 2, 3))
    data = DataSetWithFaults(tmp_path / "data")
    for name, image, to in (
        *(("a", first, A), ("b", saved(first, 40), VAL), ("c", second, "val data")),
        *(("d", saved(second, 40), TRAIN), ("e", third, TRAIN), ("f", scene(4, HEIGHT, WIDTH), "val data")),
    ):
        data.add(name, image, to=to)
    report = examine(tmp_path / "data")

    assert kinds_of(report) == [("leak", TRAIN, "d.jpg"), ("leak", VAL, "b.jpg")]
    assert [[pair.name for pair in pairs] for pairs in (report.clean[0], report.clean[2])] == [["e"], ["c", "f"]]


def test_masks_that_are_refused_are_faults(tmp_path: Path) -> None:
    """Whatever training refuses of a mask's values is a fault, with the command that mends it; and so for scoring."""
    data = DataSetWithFaults(tmp_path / "data")
    mask = blob()
    odd: list[NDArray[Any]] = [
        mask // 255,
        mask // 255 * 128,
        mask.astype(np.uint16),
        coloured(mask, (0, 0, 128)),
        mask.astype(np.int32) - 9,
    ]
    for at, pixels in enumerate(odd):
        data.add(f"{at}", mask=pixels, suffixes=(".jpg", ".tif"), to=A if at % 2 else TRAIN)
    report = examine(tmp_path / "data")
    refused = set()
    for each in report.sets:
        for pair in each.pairs:
            try:
                read_scored_mask(pair.mask)
            except DataError:
                refused.add(pair.name)

    assert refused == {"0", "1", "3", "4"}
    assert {fault.path.stem: fault.repair.count("cp -r") for fault in report.faults} == dict.fromkeys(refused, 1)
