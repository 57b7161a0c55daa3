"""What README shows in Python runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import pytest

from camoxpert_cli.config.resolve import resolve
from tests.behaviour.test_api import SMALL
from tests.helpers.places import README
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET


def blocks(section: str) -> list[str]:
    """The Python blocks of a section."""
    text = README.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_from_python(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The section's code, word for word, on generated images; the preset is made small, and all else is as shown."""
    (code,) = blocks("From Python")
    shown = {"train.epochs": 6, "train.stage1_epochs": 2}
    assert resolve("quickstart", shown).config.train.epochs == 6  # these settings go with the preset itself
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
    names: dict[str, object] = {}
    exec(code.replace("epochs=6, stage1_epochs=2", "epochs=1, stage1_epochs=0"), names)

    assert len(list((tmp_path / "maps").iterdir())) == TEST_IMAGES + 1  # with the folder of overlays
    assert isinstance(names["maps"], list)
    assert f"{TEST_SET} {TEST_IMAGES} 0." in capsys.readouterr().out


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
