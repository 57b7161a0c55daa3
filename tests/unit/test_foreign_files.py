"""What a run writes over in the folder that it is given, and what it refuses to touch."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli import __version__
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.output import per_image_csv
from camoxpert_cli.report import page
from camoxpert_cli.run_folder import RunFolder

STATE = ["history.json", "last.pth", "previous.pth", "best_model.pth", "results.json"]
BEGUN = ["config.yaml", "env.json", "metrics.jsonl", "strategy.json"]
PAGES = ["per_image.csv", "report.html", "curves.png"]
FILES = [*STATE, *BEGUN, *PAGES]
FOLDERS = ["logs", "tensorboard", "wandb"]
PRESET = b"summary: mine\ntrain:\n  epochs: 3\nrun:\n  checkpoint_dir: here\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begin_run(folder: Path) -> None:
    """As a run leaves its folder that stops before its first epoch ends."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(Config())))
    (folder / "env.json").write_text(json.dumps({"command": ["camox"], "versions": {"camox": __version__}}))
    (folder / "metrics.jsonl").write_text(json.dumps({"event": "step", "epoch": 1, "samples": 4}) + "\n")


def save_run(folder: Path) -> None:
    """As it leaves it within a later epoch."""
    begin_run(folder)
    (folder / "history.json").write_text(json.dumps([{"epoch": 1}]))
    (folder / "last.pth").write_bytes(b"weights")


def refusal(folder: Path, resume_from: Path | None = None, inputs: list[str] | None = None) -> UsageError:
    """What is said, once, and that nothing was changed."""
    before = contents(folder)
    with pytest.raises(UsageError) as caught:
        RunFolder(folder).refuse_other_run(resume_from, inputs or [])

    assert contents(folder) == before
    assert "\n" not in caught.value.message
    assert "--checkpoint-dir" in caught.value.hint
    return caught.value


@settings(max_examples=50)
@given(st.sampled_from(FILES), st.one_of(st.binary(max_size=50), st.just(PRESET), st.just(b"[1, 2]"), st.just(b"{}")))
def test_a_new_run_replaces_nothing(name: str, content: bytes) -> None:
    """Whatever lies under a name that a run would write is refused by its name, and stays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        assert name in refusal(Path(folder)).message
        assert path.read_bytes() == content


@pytest.mark.parametrize("name", FOLDERS)
def test_a_new_run_fills_nobodys_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")

    assert name in refusal(tmp_path).message


def test_all_names_are_told(tmp_path: Path) -> None:
    """One sentence names all that is in the way."""
    for name in [*BEGUN, *PAGES]:
        (tmp_path / name).write_bytes(b"mine")

    assert all(name in refusal(tmp_path).message for name in [*BEGUN, *PAGES])


def test_what_an_early_end_left(tmp_path: Path) -> None:
    """A run that stopped before its first epoch ended has nothing to lose, whatever of it is there."""
    begin_run(tmp_path)
    RunFolder(tmp_path).refuse_other_run(None)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank1.log").touch()
    RunFolder(tmp_path).refuse_other_run(None)
    for name in BEGUN[:3]:
        (tmp_path / name).unlink()
    RunFolder(tmp_path).refuse_other_run(None)


def test_killed_between_its_first_two_files(tmp_path: Path) -> None:
    """config.yaml alone is that of a run here only where it says so; a copy of another run's is somebody's preset."""
    kept = to_mapping(Config())
    kept["run"]["checkpoint_dir"] = str(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))
    RunFolder(tmp_path).refuse_other_run(None)
    kept["run"]["checkpoint_dir"] = str(tmp_path / "other")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))

    assert "config.yaml" in refusal(tmp_path).message


@pytest.mark.parametrize("name", PAGES)
def test_a_page_beside_what_an_early_end_left(tmp_path: Path, name: str) -> None:
    """No run has written a report before its first epoch ended."""
    begin_run(tmp_path)
    (tmp_path / name).write_bytes(b"mine")
    message = refusal(tmp_path).message

    assert name in message
    assert "env.json" not in message


@pytest.mark.parametrize("name", ["config.yaml", "env.json"])
def test_a_preset_in_the_place_of_a_runs_file(tmp_path: Path, name: str) -> None:
    """A file that says something else than a run's is the user's, for a new run and for one that goes on."""
    save_run(tmp_path)
    (tmp_path / name).write_bytes(PRESET if name == "config.yaml" else b'{"versions": {"numpy": "2"}}')

    assert name in refusal(tmp_path, tmp_path / "last.pth").message


MAKERS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", FILES)
def test_no_regular_file(tmp_path: Path, name: str, kind: str) -> None:
    """It stays what it is, also where a run goes on."""
    MAKERS[kind](tmp_path / name)
    assert f"{tmp_path / name} is not a regular file" in refusal(tmp_path).message
    if name != "last.pth":
        save = tmp_path / "last.pth"
        save.write_bytes(b"weights")
        assert f"{tmp_path / name} is not a regular file" in refusal(tmp_path, save).message


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_runs_folder(tmp_path: Path, name: str) -> None:
    begin_run(tmp_path)
    (tmp_path / name).touch()

    assert f"{tmp_path / name} is not a folder" in refusal(tmp_path).message


@pytest.mark.parametrize("name", BEGUN[:3])
def test_what_a_run_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An input in the run folder is not written over, however its path is written, though a run had written it."""
    begin_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(name)
    for path in (name, str(tmp_path / name), f"../{tmp_path.name}/{name}", "link"):
        assert f"{path} is an input of this run" in refusal(Path(), inputs=[path]).message


def test_a_run_goes_on(tmp_path: Path) -> None:
    """All that a run wrote, of the last epoch too, may be replaced when it goes on."""
    save_run(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"checkpoint": "best_model.pth", "validation": {}}))
    (tmp_path / "per_image.csv").write_text(per_image_csv([]))
    (tmp_path / "report.html").write_bytes(Path(page.__file__).with_name("page.html").read_bytes())
    (tmp_path / "curves.png").write_bytes(b"\x89PNG")
    for name in ("previous.pth", "best_model.pth"):
        (tmp_path / name).write_bytes(b"weights")
    RunFolder(tmp_path).refuse_other_run(tmp_path / "last.pth")


@given(st.sampled_from(PAGES), st.binary(min_size=1, max_size=10).filter(lambda each: each.strip(b"\0")))
@settings(max_examples=30)
def test_pages_that_no_run_has_written(name: str, content: bytes) -> None:
    """A run that goes on takes away the pages of the shorter run, and no others."""
    with tempfile.TemporaryDirectory() as folder:
        save_run(Path(folder))
        (Path(folder) / name).write_bytes(content)
        assert name in refusal(Path(folder), Path(folder) / "last.pth").message


def test_results_of_another_program(tmp_path: Path) -> None:
    save_run(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"accuracy": 1}))

    assert "results.json" in refusal(tmp_path, tmp_path / "last.pth").message


@pytest.mark.parametrize("name", ["notes", *BEGUN, *PAGES])
def test_a_checkpoint_beside_somebodys_files(tmp_path: Path, name: str) -> None:
    """A checkpoint that was put into a folder does not make that the folder of a run."""
    (tmp_path / "last.pth").write_bytes(b"weights")
    (tmp_path / "best_model.pth").write_bytes(b"weights")
    RunFolder(tmp_path).refuse_other_run(tmp_path / "last.pth")
    (tmp_path / name).write_bytes(b"mine")
    if name == "notes":
        RunFolder(tmp_path).refuse_other_run(tmp_path / "last.pth")
    else:
        assert name in refusal(tmp_path, tmp_path / "last.pth").message


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda each: (
        st.lists(each, max_size=2) | st.dictionaries(st.sampled_from(["epoch", "event", "a"]), each, max_size=2)
    ),
    max_leaves=4,
)
DAMAGE = st.one_of(st.binary(max_size=20), st.just(b"\0" * 100), JSON.map(lambda each: json.dumps(each).encode()))


@settings(max_examples=25)
@given(st.sampled_from(["history.json", "metrics.jsonl", "strategy.json"]), DAMAGE)
def test_a_damaged_file_stops_no_run(name: str, content: bytes) -> None:
    """What a power cut or a hand has made of a run's file is in nobody's way, and no traceback."""
    with tempfile.TemporaryDirectory() as folder:
        save_run(Path(folder))
        (Path(folder) / name).write_bytes(content)
        RunFolder(Path(folder)).refuse_other_run(Path(folder) / "last.pth")


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"\xff\xfe", b"{", b"null", b"3", b"[]", b"[" * 1500])
@pytest.mark.parametrize("name", ["config.yaml", "env.json", "results.json"])
def test_damaged_settings_stop_no_run(tmp_path: Path, name: str, content: bytes) -> None:
    save_run(tmp_path)
    (tmp_path / name).write_bytes(content)
    RunFolder(tmp_path).refuse_other_run(tmp_path / "last.pth")


@pytest.mark.parametrize("section", ["data: 3", "run: [checkpoint_dir]", "run: its checkpoint_dir", "train:"])
def test_settings_without_their_sections(tmp_path: Path, section: str) -> None:
    """They say nothing, whoever asks."""
    settings = {name: f"{name}: {{a: 1}}" for name in ("model", "data", "train")}
    settings["run"] = f"run: {{checkpoint_dir: {tmp_path}}}"
    settings[section.partition(":")[0]] = section
    (tmp_path / "config.yaml").write_text("\n".join(settings.values()))

    assert RunFolder(tmp_path).settings == {}
    with pytest.raises(UsageError, match=r"config\.yaml"):
        RunFolder(tmp_path).refuse_other_run(None)


@pytest.mark.parametrize("kind", ["link to nothing", "pipe"])
def test_a_run_folder_that_is_none(tmp_path: Path, kind: str) -> None:
    """A link that leads nowhere, or a pipe, in the place of the run folder is said before anything is made."""
    path = tmp_path / "run"
    MAKERS[kind](path)
    with pytest.raises(UsageError, match="is a broken link or a special file, expected a run folder"):
        RunFolder(path).refuse_other_run(None)
    with (
        pytest.raises(UsageError, match="is a broken link or a special file, expected a run folder"),
        RunFolder(path).locked(),
    ):
        pass
