from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.pairs import Pair, read_list, write_list
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import touch

# Letters of some scripts, and whatever else a file may be called but separators; no more than a file system takes.
FILE_NAMES = st.text(" .'\"\\\n\r\t\x01\x7f\u2028\u200faZ0-_,:*?<>|&%#~äßжأ中😀\u0301", min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)


def pair_of(folder: Path, name: str) -> Pair:
    """A pair of empty files."""
    touch(folder / "Imgs", [f"{name}.jpg"])
    touch(folder / "GT", [f"{name}.png"])
    return Pair(name, folder / "Imgs" / f"{name}.jpg", folder / "GT" / f"{name}.png")


def test_round_trip(tmp_path: Path) -> None:
    """A list is read back: pairs with their names, in their order, and the test sets that have any, in theirs."""
    a, b, c, d = (pair_of(tmp_path, name) for name in ("a", "b.1", "c c", "d"))
    write_list(tmp_path / "list.json", [b, a], {"NC4K": [c], "CAMO": [d, c], "none": []})

    train, tests, _ = read_list(tmp_path / "list.json")

    assert train == (b, a)
    assert tests == {"NC4K": (c,), "CAMO": (d, c)}
    assert list(tests) == ["NC4K", "CAMO"]


@settings(max_examples=20)
@given(st.lists(FILE_NAMES, unique=True, min_size=1, max_size=3), FILE_NAMES)
def test_round_trip_of_odd_names(names: list[str], test_set: str) -> None:
    """Names may have any characters: spaces, quotes, line breaks, dots, letters of any script."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pairs = []
        for name in names:
            (root / f"{name}.jpg").touch()
            (root / f"{name}.png").touch()
            pairs.append(Pair(Path(f"{name}.jpg").stem, root / f"{name}.jpg", root / f"{name}.png"))
        write_list(root / "list.json", pairs, {test_set: pairs[:1]})

        assert read_list(root / "list.json") == (tuple(pairs), {test_set: tuple(pairs[:1])}, ())


def test_list_and_images_move_together(tmp_path: Path) -> None:
    """What lies below the list's folder is named relative to it, and is found where both are moved."""
    pairs = [pair_of(tmp_path / "before" / "data", name) for name in "ab"]
    write_list(tmp_path / "before" / "list.json", pairs[:1], {"CAMO": pairs[1:]})
    content = json.loads((tmp_path / "before" / "list.json").read_text())
    (tmp_path / "before").rename(tmp_path / "after")

    assert content == {
        "camox_list": 1,
        "train": [["data/Imgs/a.jpg", "data/GT/a.png"]],
        "tests": {"CAMO": [["data/Imgs/b.jpg", "data/GT/b.png"]]},
    }
    assert read_list(tmp_path / "after" / "list.json")[0] == (pair_of(tmp_path / "after" / "data", "a"),)


def test_list_is_moved_away_from_the_images(tmp_path: Path) -> None:
    """What lies elsewhere is named by its absolute path, and is found where the list alone is moved."""
    pair = pair_of(tmp_path / "data", "a")
    for name in ("lists", "other"):
        (tmp_path / name).mkdir()
    write_list(tmp_path / "lists" / "list.json", [pair], {})
    (tmp_path / "lists" / "list.json").rename(tmp_path / "other" / "list.json")

    assert read_list(tmp_path / "other" / "list.json")[0] == (pair,)


def test_paths_relative_to_where_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and list may be given relative to the working folder, and are found from any other."""
    pair_of(tmp_path / "data", "a")
    monkeypatch.chdir(tmp_path)
    write_list(Path("list.json"), [Pair("a", Path("data/Imgs/a.jpg"), Path("data/GT/a.png"))], {})
    monkeypatch.chdir("/")

    assert read_list(tmp_path / "list.json")[0] == (pair_of(tmp_path / "data", "a"),)


def test_folder_of_links(tmp_path: Path) -> None:
    """Links are named as they are, not as what they lead to, so that a folder of links can be moved."""
    pair = pair_of(tmp_path / "real", "a")
    for link, target in ((tmp_path / "links" / "b.jpg", pair.image), (tmp_path / "links" / "b.png", pair.mask)):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
    linked = Pair("b", tmp_path / "links" / "b.jpg", tmp_path / "links" / "b.png")
    write_list(tmp_path / "links" / "list.json", [linked], {})

    assert read_list(tmp_path / "links" / "list.json")[0] == (linked,)


def test_no_list_is_left_half_written(tmp_path: Path) -> None:
    """Writing replaces a list as a whole: beside it nothing is left."""
    pair = pair_of(tmp_path, "a")
    write_list(tmp_path / "list.json", [pair], {})
    write_list(tmp_path / "list.json", [], {"CAMO": [pair]})

    assert read_list(tmp_path / "list.json") == ((), {"CAMO": (pair,)}, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GT", "Imgs", "list.json"]


def refusal(path: Path) -> DataError:
    """Why a list is not read: one sentence that names it, and what writes one."""
    with pytest.raises(DataError) as caught:
        read_list(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert "--write-clean" in caught.value.hint
    return caught.value


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"{", b"\xff\xfe{}", b"\x89PNG\r\n\x1a\n", b'{"camox_list": 1'])
def test_file_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    """A file that is no JSON is refused."""
    (tmp_path / "list.json").write_bytes(content)

    assert "is not a list of pairs: " in refusal(tmp_path / "list.json").message


@pytest.mark.parametrize(
    "content", [[], 3, None, "camox_list", {}, {"camox_list": 2}, {"camox_list": "1"}, {"train": [], "tests": {}}]
)
def test_file_of_another_program_or_version(tmp_path: Path, content: Any) -> None:
    """JSON that is no list of this version is refused."""
    (tmp_path / "list.json").write_text(json.dumps(content))

    assert 'is not a list of pairs: expected "camox_list": 1' in refusal(tmp_path / "list.json").message


@pytest.mark.parametrize("tests", [None, [], [["a.jpg", "a.png"]], "CAMO", 3])
def test_test_sets_without_names(tmp_path: Path, tests: Any) -> None:
    """Test sets that are not given by name are refused, and so is a list without any word on them."""
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"camox_list": 1, "train": [], "tests": tests}))
    assert f"tests is {tests!r}, expected lists of pairs by name" in refusal(path).message

    path.write_text(json.dumps({"camox_list": 1, "train": []}))
    assert "tests is None" in refusal(path).message


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "a.jpg",
        {"a.jpg": "a.png"},
        ["a.jpg", "a.png"],
        [["a.jpg"]],
        [["a.jpg", "a.png", "a"]],
        [["a.jpg", None]],
        [["a.jpg", ""]],
        [["", "a.png"]],
        [[1, 2]],
        [{"image": "a.jpg", "mask": "a.png"}],
        [["a.jpg", "a.png"], []],
    ],
)
@pytest.mark.parametrize("where", ["train", "tests"])
def test_rows_of_another_shape(tmp_path: Path, rows: Any, where: str) -> None:
    """Rows that are no pairs of two paths are refused, in training pairs and test sets alike."""
    touch(tmp_path, ["a.jpg", "a.png"])
    content = {"camox_list": 1, "train": rows if where == "train" else [], "tests": {"CAMO": rows}}
    (tmp_path / "list.json").write_text(json.dumps(content))

    assert "expected [IMAGE, MASK] pairs of paths" in refusal(tmp_path / "list.json").message


def test_list_without_training_pairs(tmp_path: Path) -> None:
    """A list that says nothing about training pairs is refused."""
    (tmp_path / "list.json").write_text(json.dumps({"camox_list": 1, "tests": {}}))

    assert "expected [IMAGE, MASK] pairs" in refusal(tmp_path / "list.json").message


@pytest.mark.parametrize("gone", ["Imgs/b.jpg", "GT/c.png"])
def test_missing_files(tmp_path: Path, gone: str) -> None:
    """A list whose images or masks are no longer there is refused: how many of how many, and the first."""
    a, b, c = (pair_of(tmp_path, name) for name in "abc")
    write_list(tmp_path / "list.json", [a, b], {"CAMO": [c]})
    (tmp_path / gone).unlink()

    message = refusal(tmp_path / "list.json").message
    assert message == f"{tmp_path / 'list.json'} lists 6 files, of which 1 is missing: {tmp_path / gone}"


def test_folder_in_place_of_an_image(tmp_path: Path) -> None:
    """A folder is no image."""
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "list.json").write_text(json.dumps({"camox_list": 1, "train": [["a.jpg", "a.jpg"]], "tests": {}}))

    assert "lists 2 files, of which 2 are missing: " in refusal(tmp_path / "list.json").message


def test_list_that_cannot_be_opened(tmp_path: Path) -> None:
    """A list that is not there is refused with the system's reason."""
    assert "No such file or directory" in refusal(tmp_path / "list.json").message


def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    """Names that older systems wrote, in no valid UTF-8, come back as they are."""
    pair = pair_of(tmp_path, b"caf\xe9".decode(errors="surrogateescape"))
    write_list(tmp_path / "list.json", [pair], {})

    assert read_list(tmp_path / "list.json")[0] == (pair,)


def test_images_beside_the_folder_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that were named by a way up and down again are found where the list is moved."""
    pair_of(tmp_path / "data", "a")
    for name in ("lists", "deeper/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lists")
    write_list(Path("list.json"), [Pair("a", Path("../data/Imgs/a.jpg"), Path("../data/GT/a.png"))], {})
    Path("list.json").rename(tmp_path / "deeper" / "elsewhere" / "list.json")

    assert (
        read_list(tmp_path / "deeper" / "elsewhere" / "list.json")[0][0].image == tmp_path / "data" / "Imgs" / "a.jpg"
    )


def test_list_of_nothing(tmp_path: Path) -> None:
    """A list without a pair is an error of its own."""
    write_list(tmp_path / "list.json", [], {"CAMO": []})

    with pytest.raises(DataError, match="lists no image-mask pairs"):
        read_list(tmp_path / "list.json")


def test_deeply_nested_list(tmp_path: Path) -> None:
    """Brackets without end are no list, and no crash."""
    (tmp_path / "list.json").write_text("[" * 20_000)

    with pytest.raises(DataError, match="is not a list of pairs"):
        read_list(tmp_path / "list.json")


# Names that lead out of a folder, or that no folder has.
WRONG_NAMES = st.one_of(
    st.sampled_from(["", ".", "..", "/", "/tmp/evil", "../evil", "a/../../evil", "a/", "a\0b", "\ud800", "a/\udcff"]),
    st.tuples(st.text(max_size=5), st.sampled_from("/\0\ud800"), st.text(max_size=5)).map("".join),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WRONG_NAMES)
def test_set_that_is_called_like_a_path(tmp_path: Path, name: str) -> None:
    """A test set's name becomes a folder's: one that would lie elsewhere, or nowhere, is refused as it is read."""
    write_list(tmp_path / "list.json", [], {name: [pair_of(tmp_path, "a")]})

    assert "names a test set" in refusal(tmp_path / "list.json").message


def test_validation_pairs(tmp_path: Path) -> None:
    """They are read back, and a list without any says nothing of them."""
    a, b = pair_of(tmp_path, "a"), pair_of(tmp_path, "b")
    write_list(tmp_path / "list.json", [a], {}, [b])
    assert read_list(tmp_path / "list.json") == ((a,), {}, (b,))

    write_list(tmp_path / "list.json", [a], {})
    assert "validation" not in json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))


@settings(max_examples=8)
@given(st.sampled_from([".jpg", ".png", ".bmp"]), st.sampled_from(["x", "y/z"]), FILE_NAMES)
def test_two_pictures_of_one_name(suffix: str, place: str, name: str) -> None:
    """A test set has one map and one row of scores a name: two are refused, with both files; training pairs are not."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first, second = root / f"{name}.jpg", root / place / f"{name}{suffix}"
        second.parent.mkdir(parents=True)
        for path in (first, second):
            path.touch()
        pairs = [Pair(first.stem, first, first), Pair(second.stem, second, second)]
        write_list(root / "list.json", pairs, {})
        assert len(read_list(root / "list.json")[0]) == 2

        write_list(root / "list.json", [], {"CAMO": pairs})
        with pytest.raises(DataError, match="two images of the test set CAMO are named") as caught:
            read_list(root / "list.json")
        assert str(first) in caught.value.message
        assert str(second) in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"camox_list": 1, "train": ' + "[" * 10**5, "is not a list of pairs: maximum recursion depth"),
        ('{"camox_list": NaN}', 'expected "camox_list": 1'),
        ('{"camox_list": 1, "tests": {}, "train": ' + "9" * 5000 + "}", "is not a list of pairs: Exceeds the limit"),
        ('{"camox_list": 1, "tests": {}, "train": [["a", NaN]]}', "contains ['a', nan], expected [IMAGE, MASK] pairs"),
        ('{"camox_list": 1, "tests": {}, "train": [["' + "a" * 10**6 + '", 1]]}', "expected [IMAGE, MASK] pairs"),
        (
            '{"camox_list": 1, "tests": {}, "train": [["' + "a" * 10**6 + '", "b"]]}',
            "lists 2 files, of which 2 are missing: ",
        ),
        (
            '{"camox_list": 1, "tests": {}, "train": [["a\\u0000", "\\ud800"]]}',
            "lists 2 files, of which 2 are missing: ",
        ),
        (
            '{"camox_list": 1, "train": [], "tests": ' + json.dumps(["x"] * 10**5) + "}",
            "expected lists of pairs by name",
        ),
    ],
)
def test_lists_that_are_deep_or_long(tmp_path: Path, content: str, words: str) -> None:
    """Each is refused in a sentence that stays short."""
    path = tmp_path / "list.json"
    path.write_text(content)

    with pytest.raises(DataError) as caught:
        read_list(path)

    assert words in caught.value.message
    assert len(caught.value.message) < 800


def test_lists_that_are_no_files(tmp_path: Path) -> None:
    """Nothing is waited for, nor read without an end."""
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 2**40)
    for name, reason in (("pipe", "a named pipe"), ("zero", "a device"), ("large", "expected at most 67108864")):
        with pytest.raises(DataError, match=reason):
            read_list(tmp_path / f"{name}.json")
