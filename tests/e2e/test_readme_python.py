"""What README and the guide show in Python runs as it stands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli import predict
from camoxpert_cli.commands.guide import FOLDER
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.inference.export import export
from tests.behaviour.test_api import SMALL
from tests.helpers.places import README
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

README_PYTHON = re.compile(r"^## Python\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def block(text: str) -> str:
    """The only Python block of a text."""
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(code)


def of_readme() -> str:
    (section,) = README_PYTHON.findall(README.read_text(encoding="utf-8"))
    return block(section)


def of_page(topic: str) -> str:
    return block((FOLDER / f"{topic}.md").read_text(encoding="utf-8"))


@pytest.fixture
def place(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the images and the dataset that the code names, and a small preset quickstart."""
    shutil.copytree(tiny_data, tmp_path / "DATA")
    images = sorted((tiny_data / "TestDataset" / TEST_SET / "Imgs").iterdir())
    shutil.copytree(images[0].parent, tmp_path / "FOLDER")
    for name, path in zip(("photo.jpg", "other.jpg"), images, strict=False):
        pixels = cv2.imread(str(path))
        assert pixels is not None
        cv2.imwrite(str(tmp_path / name), pixels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("camoxpert_cli.config.presets.PRESET_FOLDER", tmp_path / "presets")
    (tmp_path / "presets").mkdir()
    settings = {key: value for key, value in SMALL.items() if key not in ("epochs", "stage1_epochs")}
    (tmp_path / "presets" / "quickstart.yaml").write_text(preset(settings))
    return tmp_path


def run(code: str) -> dict[str, Any]:
    """What the code leaves, word for word as shown but for the epochs."""
    names: dict[str, Any] = {}
    exec(code.replace("epochs=6, stage1_epochs=2", "epochs=1, stage1_epochs=0"), names)
    return names


def test_the_settings_that_are_shown() -> None:
    """They go with the preset itself, before it is made small."""
    assert resolve("quickstart", {"train.epochs": 6, "train.stage1_epochs": 2}).config.train.epochs == 6


@pytest.mark.parametrize(
    ("code", "saves"), [(of_readme, False), (lambda: of_page("python"), True)], ids=["README", "guide"]
)
def test_from_python(place: Path, capsys: pytest.CaptureFixture[str], code: Callable[[], str], saves: bool) -> None:
    """The code on generated images, with a small preset; all else is as shown."""
    names = run(code())
    photo = cv2.imread(str(place / "photo.jpg"))

    assert photo is not None
    assert names["prediction"].shape == photo.shape[:2]
    assert isinstance(names["predictions"], list)
    assert re.search(rf"^{TEST_SET} .*\b0\.", capsys.readouterr().out, re.MULTILINE)
    # With the folder of overlays.
    assert len([*(place / "predictions").glob("*")]) == (TEST_IMAGES + 1 if saves else 0)


def test_export(place: Path) -> None:
    """The code that reads an exported file, without camox, gives what predict does."""
    pytest.importorskip("onnx", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    write_vivid_checkpoint(vivid_network(place / "DATA"), place / "best_model.pth")
    export(place / "best_model.pth", place / "camoxpert.onnx")
    names = run(of_page("export"))
    expected = predict(place / "best_model.pth", "photo.jpg")

    assert np.abs(names["prediction"] - expected).max() < 0.01
    assert names["mask"].any()
    assert not names["mask"].all()


def preset(settings: dict[str, object]) -> str:
    """The settings as a preset file, with images that it generates."""
    sections = {
        "model": ("backbone", "num_experts", "pretrained"),
        "train": ("batch_size", "stage2_batch_size"),
        "data": ("img_size", "val_fraction", "num_workers", "cache"),
        "run": ("device", "report"),
    }
    lines = ["summary: small"]
    for section, names in sections.items():
        lines += [f"{section}:", *(f"  {name}: {settings[name]}" for name in names)]
    return "\n".join([*lines, ""]).replace("data:\n", "data:\n  generated_images: 8\n")
