from __future__ import annotations

from pathlib import Path

from camoxpert_cli.config.catalogue import Entry, catalogue
from camoxpert_cli.config.presets import preset_names, read_preset


def users() -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue() if not entry.built_in}


def test_every_preset_that_comes_with_camox_has_what_the_list_shows(own: Path) -> None:
    """All are there with their own summary and hardware, and all can be used."""
    entries = catalogue()

    assert [entry.name for entry in entries] == preset_names()
    for entry in entries:
        preset = read_preset(entry.name)
        assert (entry.summary, entry.hardware, entry.path) == (preset.summary, preset.hardware, preset.path)
        assert entry.summary
        assert entry.hardware
        assert (entry.problem, entry.built_in) == ("", True)


def test_the_users_own_come_after(own: Path) -> None:
    """They are sorted; without a summary the parent is named."""
    (own / "b.yaml").write_text("summary: Small pictures\nhardware: my desk\n")
    (own / "a.yaml").write_text("extends: baseline\n")
    (own / "notes.txt").write_text("no preset\n")
    entries = catalogue()

    assert [entry.name for entry in entries] == [*preset_names(), "a", "b"]
    assert entries[-2] == Entry("a", "extends baseline", "", own / "a.yaml", built_in=False)
    assert entries[-1] == Entry("b", "Small pictures", "my desk", own / "b.yaml", built_in=False)


def test_a_broken_one_does_not_hide_the_others(own: Path) -> None:
    """What is wrong with a preset stands in its entry, be it the file, a value or its name."""
    (own / "baseline.yaml").write_text("extends: kaggle-1xT4\n")
    (own / "file.yaml").write_text("train:\n\tlr: 3\n")
    (own / "value.yaml").write_text("train:\n  lr: fast\n")
    (own / "whole.yaml").write_text("train:\n  lr: 1e-4\n")
    found = users()

    assert [name for name, entry in found.items() if not entry.problem] == ["whole"]
    assert "is not valid YAML" in found["file"].problem
    assert "train.lr is 'fast'" in found["value"].problem
    assert found["baseline"].problem.startswith("there are two presets 'baseline'")
    assert all(not entry.problem for entry in catalogue() if entry.built_in)
