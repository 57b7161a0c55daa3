"""Presets and values that are huge, nested, no text, or no file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.config.presets import PRESET_FOLDER
from camoxpert_cli.config.resolve import from_mapping, resolve
from camoxpert_cli.config.schema import SETTINGS, Setting
from camoxpert_cli.config.values import convert
from camoxpert_cli.errors import ConfigError

MANY = "9" * 5000
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 8)}]\n" for level in range(1, 12)
)
CIRCLE = "train: &a\n  lr: *a\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LAUGHS, "p.yaml:2 is not valid YAML: *a0 is an alias, expected the value itself"),
        (CIRCLE, "p.yaml:2 is not valid YAML: *a is an alias"),
        ("a: &a {lr: 1}\ntrain:\n  <<: *a\n", "*a is an alias"),
        ("train:\n  <<: {lr: 1}\n", "unknown setting train.<< (given {'lr': '1'})"),
        ("[" * 400, "is nested too deeply"),
        ("a: " + "{a: " * 10000, "is nested too deeply"),
        ("? " * 10000, "is nested too deeply"),
        ("".join(f"{' ' * level}a:\n" for level in range(340)), "is nested too deeply"),
        ("train: {lr: 1, lr: 2}", "key 'lr' is duplicated"),
        ("train: {lr: 1}\0", "is not valid YAML: unacceptable character #x0000"),
        ("train: {lr: 1}".encode("utf-16"), "cannot be read: 'utf-8' codec can't decode"),
        ("#" * 70000, "cannot be read: it has 70000 bytes, expected at most 65536"),
        (f"train: {{lr: x{MANY}}}", "expected a number of at least 0"),
        (f"train: {{epochs: {MANY}}}", "expected an integer of at least 1"),
        (f"run: {{time_limit: {MANY}h}}", "expected a duration above zero, such as"),
        (f"run: {{save_every: {MANY}}}", "expected a duration such as"),
        (f"run: {{devices: {MANY}}}", "expected distinct GPU indices"),
        ("train: {epochs: 1:30}", "train.epochs is '1:30', expected an integer"),
        ("train: {epochs: 0x10}", "train.epochs is '0x10', expected an integer"),
        (f"run: {{checkpoint_dir: {'a' * 300}}}", "expected a valid path: file name too long"),
        (f"data: {{images: [{'a/' * 2100}]}}", "expected a valid path: file name too long"),
        ('data: {dataset_path: ["a\\0b"]}', "expected a valid path: invalid file name"),
        ("data: {cache: ~nobody-is-called-so/x}", "no home folder found for ~nobody-is-called-so"),
        (f"extends: {'x' * 5000}.yaml", "preset file 'xxx"),
        (f"extends: {'x' * 5000}", "unknown preset 'xxx"),
        ("".join(f"{number:x}:\n" for number in range(3000)), "and 2950 more"),
        ("train:\n" + "".join(f"  {number:x}:\n" for number in range(3000)), "and 2950 more"),
        ("data: {generated_images: 1000000000}", "expected an integer of at least 0; the maximum is 1000000"),
        (b"train: {lr: \xe9}", "expected text in UTF-8"),
    ],
)
def test_odd_contents(tmp_path: Path, content: str | bytes, words: str) -> None:
    """Each is refused in a sentence that stays short, with the value and what was expected."""
    path = tmp_path / "p.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigError) as caught:
        resolve(str(path), {})

    assert words in caught.value.message
    assert max(map(len, caught.value.message.splitlines())) < 800
    assert len(caught.value.message.splitlines()) <= 51


def test_bytes_that_windows_puts_first(tmp_path: Path) -> None:
    """A preset that Notepad saved is a preset."""
    path = tmp_path / "p.yaml"
    path.write_text("\ufefftrain: {lr: 0.01}\n", encoding="utf-8")

    assert resolve(str(path), {}).config.train.lr == 0.01


def test_files_that_are_none(tmp_path: Path) -> None:
    """Nothing is waited for, nor read without an end."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    reasons = {"pipe": "a named pipe", "zero": "a device", "folder": "Is a directory", "loop": "too many levels"}
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=reason):
            resolve(str(tmp_path / f"{name}.yaml"), {})


def test_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a preset, a flag and an assignment, alone and in lists; other paths stay as they were written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "p.yaml"
    path.write_text("data: {dataset_path: [~/a, b/], cache: ~/c}\nrun: {checkpoint_dir: ~/d}\n")

    config = resolve(str(path), {"data.images": ["~/e"]}, ["data.masks=~/f", "run.resume_from=./~"]).config

    assert config.data.dataset_path == (str(tmp_path / "a"), "b/")
    assert (config.data.cache, config.run.checkpoint_dir) == (str(tmp_path / "c"), str(tmp_path / "d"))
    assert (config.data.images, config.data.masks) == ((str(tmp_path / "e"),), (str(tmp_path / "f"),))
    assert convert(SETTINGS["data.cache"], "auto") == "auto"


ROWS = st.sampled_from(list(SETTINGS.values()))


@given(ROWS, st.integers(2**63, 2**80) | st.just(10**5000) | st.just(-(10**5000)))
def test_numbers_of_many_digits(row: Setting, number: int) -> None:
    """Python can neither write them nor make them floats; a checkpoint may hold them."""
    with pytest.raises(ConfigError) as caught:
        from_mapping({row.section: {row.name: number}}, "saved.pth")

    assert len(caught.value.message) < 600


@given(ROWS)
def test_lists_that_hold_themselves_many_times(row: Setting) -> None:
    """A checkpoint's settings may refer to one list a billion times; none is written out."""
    value: Any = ["x"] * 9
    for _ in range(12):
        value = [value] * 9
    with pytest.raises(ConfigError) as caught:
        from_mapping({row.section: {row.name: value}}, "saved.pth")

    assert len(caught.value.message) < 4000


TEXT = (PRESET_FOLDER / "kaggle-2xT4.yaml").read_bytes()


@settings(max_examples=50)
@given(st.data())
def test_damaged_presets(data: st.DataObject) -> None:
    """Bytes changed, left out or put in anywhere: a configuration, or an error of ours."""
    damaged = bytearray(TEXT)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"&a ", b"*a", b"[", b"{", b"? ", b"\n- ", b"|\n", b"!!x "])
        )
        damaged[at : at + data.draw(st.integers(0, 4))] = piece
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.yaml"
        path.write_bytes(damaged)
        try:
            resolve(str(path), {})
        except ConfigError as error:
            said = error.message
        else:
            said = ""
    assert len(said) < 20000
