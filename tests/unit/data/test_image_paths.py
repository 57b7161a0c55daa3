from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_cli.data.image_paths import find_images
from camoxpert_cli.errors import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: images in two depths, hidden ones, and files that are none."""
    names = (
        "photos/b.jpg photos/a.JPEG photos/c.png photos/notes.txt photos/.hidden.jpg photos/d.heic photos/README "
        "photos/deep/e.jpg photos/deep/er/f.bmp photos/folder.jpg/g.txt odd/x[1].jpg odd/x1.jpg"
    )
    for name in names.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found(*paths: str) -> list[str]:
    return [str(path) for path in find_images([Path(path) for path in paths])]


def test_a_file_is_taken_whatever_its_name() -> None:
    """Whoever names a file means it."""
    assert found("photos/d.heic", "photos/.hidden.jpg") == ["photos/d.heic", "photos/.hidden.jpg"]


def test_a_folder_gives_its_own_images() -> None:
    """In the order of their names, without hidden ones, other files and what lies deeper."""
    assert found("photos") == ["photos/a.JPEG", "photos/b.jpg", "photos/c.png"]


def test_what_is_passed_over_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder, the endings of what is no picture that can be read; of a pattern or a file nothing."""
    found("photos/*", "photos/b.jpg")
    assert capsys.readouterr().err == ""

    found("photos")
    assert capsys.readouterr().err == (
        "photos: skipped 1 README file, 1 .heic file, 1 .txt file "
        "(not readable by OpenCV; convert images to PNG or JPEG)\n"
    )


def test_paths_keep_their_order() -> None:
    """What was named first comes first."""
    assert found("photos/c.png", "photos/deep", "photos/b.jpg") == ["photos/c.png", "photos/deep/e.jpg", "photos/b.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/b.jpg"]),
        ("photos/[ab].*", ["photos/a.JPEG", "photos/b.jpg"]),
        ("photos/?.png", ["photos/c.png"]),
        ("photos/*", ["photos/a.JPEG", "photos/b.jpg", "photos/c.png"]),
        ("photos/*.heic", ["photos/d.heic"]),
        ("photos/**/*.jpg", ["photos/b.jpg", "photos/deep/e.jpg"]),
        ("**/*.bmp", ["photos/deep/er/f.bmp"]),
        ("photos/deep/**", ["photos/deep/e.jpg", "photos/deep/er/f.bmp"]),
        ("*/deep/../?.png", ["photos/deep/../c.png"]),
        ("~/photos/*.png", ["HOME/photos/c.png"]),
        ("HOME/photos/*.png", ["HOME/photos/c.png"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    """As in a shell, from any folder; other files than images are left out, unless the pattern says their suffix."""
    assert found(pattern.replace("HOME", str(folder))) == [name.replace("HOME", str(folder)) for name in expected]


def test_a_file_comes_before_a_pattern() -> None:
    """A name with brackets is that file where there is one, and not a pattern for another."""
    assert found("odd/x[1].jpg") == ["odd/x[1].jpg"]
    Path("odd/x[1].jpg").unlink()
    assert found("odd/x[1].jpg") == ["odd/x1.jpg"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("photos/*.tif", "no image matches photos/*.tif"),
        ("nowhere/**/*.jpg", "no image matches nowhere/**/*.jpg"),
        ("photos/fold*", "no image matches photos/fold*"),
        ("photos/READ*", "no image matches photos/READ*"),
        (
            "photos/folder.jpg",
            "no images in photos/folder.jpg: skipped 1 .txt file "
            "(not readable by OpenCV; convert images to PNG or JPEG)",
        ),
        ("photos/z.jpg", "photos/z.jpg not found, expected an image or a folder"),
    ],
)
def test_what_gives_no_image_is_named(path: str, message: str) -> None:
    """Beside others that do, too: nobody finds out next morning that a folder was misspelt."""
    with pytest.raises(DataError) as caught:
        found("photos", path)

    assert (caught.value.exit_code, caught.value.message) == (3, message)
    assert "photos/**/*.jpg" in caught.value.hint


def test_links_that_lead_in_circles(folder: Path) -> None:
    """Each folder is entered once: two links to the folder itself would double the work at each of 40 depths."""
    for name in ("photos/up", "photos/again", "photos/deep/up"):
        (folder / name).symlink_to(folder / "photos")
    (folder / "photos" / "self").symlink_to("self")
    (folder / "linked").symlink_to(folder / "odd")

    assert found("photos/**/*.jpg") == ["photos/b.jpg", "photos/deep/e.jpg"]
    assert found("linked/**/x1.*", "**/x1.jpg") == ["linked/x1.jpg", "linked/x1.jpg"]
    assert found("**/**/*.bmp") == ["photos/deep/er/f.bmp"]


def test_what_is_called_as_an_image_and_is_none(folder: Path) -> None:
    """It is handed on, so that whoever reads it names it; alone it is told before anything is computed."""
    os.mkfifo("photos/pipe.png")
    Path("photos/lost.png").symlink_to("nowhere")
    Path("photos/self.png").symlink_to("self.png")
    Path("photos/self").symlink_to("self")

    assert found("photos") == [
        f"photos/{name}" for name in ("a.JPEG", "b.jpg", "c.png", "lost.png", "pipe.png", "self.png")
    ]
    assert found("photos/**/[ls]*.png") == ["photos/lost.png", "photos/self.png"]
    with pytest.raises(DataError, match=r"photos/pipe\.png is neither a file nor a folder"):
        found("photos/pipe.png")
    with pytest.raises(DataError, match=r"photos/lost\.png not found, expected an image"):
        found("photos/lost.png")


def test_a_link_to_the_folder_itself(folder: Path) -> None:
    """It gives every image once, and not once more for each time that the system follows it."""
    (folder / "odd" / "up").symlink_to(folder / "odd")

    assert found("odd/**/x1.jpg") == ["odd/x1.jpg"]
