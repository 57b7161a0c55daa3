"""What going on with a run takes from its checkpoint, and what may be asked for on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from camoxpert_cli.checkpoints.format import FORMAT, VERSION, Checkpoint, CheckpointContent, Progress, TrainingContent
from camoxpert_cli.config.resolve import resolve, to_mapping
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.epochs import rate_at
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.errors import ConfigError, UsageError
from camoxpert_cli.launch import resume
from camoxpert_cli.launch.decide import name_for
from camoxpert_cli.launch.resume import rehearse, settings_to_go_on
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_run


def checkpoint_of(folder: Path, **settings: Any) -> Checkpoint:
    """Of a run of three epochs in `folder`; steps of 4 and 2 images."""
    folder.mkdir()
    config = tiny_run(Path("/images"), folder, epochs=3, stage2_batch_size=2, gpus=1, **settings).config
    (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    content = {"format": FORMAT, "version": VERSION, "network": {"weight": torch.ones(1)}, "config": to_mapping(config)}
    return Checkpoint(folder / "last.pth", content)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return checkpoint_of(tmp_path / "run")


def batches(config: Any) -> tuple[int, int, int]:
    return config.train.batch_size, config.train.stage2_batch_size, config.train.accumulation_steps


def test_settings_come_from_the_checkpoint(checkpoint: Checkpoint) -> None:
    """Nothing given, nothing changes; the folder is the run's own."""
    config = settings_to_go_on(checkpoint, {}, []).config

    assert to_mapping(config) == checkpoint.content["config"]


def test_batch_size_keeps_the_steps(checkpoint: Checkpoint) -> None:
    """`--batch-size` is one GPU's: accumulation makes up for it, in both stages."""
    with pytest.raises(ConfigError, match="cannot be kept on 1 GPU with per-GPU batch size 3;"):
        settings_to_go_on(checkpoint, {"train.batch_size": "3"}, [])

    assert batches(settings_to_go_on(checkpoint, {"train.batch_size": "2"}, []).config) == (2, 1, 2)


def test_another_number_of_processes_keeps_the_steps(checkpoint: Checkpoint) -> None:
    """Two share the images of a step that one had, with no batch size asked for."""
    config = settings_to_go_on(checkpoint, {"run.gpus": "2"}, []).config

    assert batches(config) == (2, 1, 1)
    assert config.run.gpus == 2


def test_named_gpus_take_the_place_of_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one GPU goes on on the two that `--devices` names, without `--gpus 2` beside it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    checkpoint = checkpoint_of(tmp_path / "run", device="auto")
    config = settings_to_go_on(checkpoint, {"run.devices": "1,2"}, []).config

    assert (config.run.devices, config.run.gpus) == ("1,2", 2)
    assert batches(config) == (2, 1, 1)


def test_auto_keeps_the_steps(checkpoint: Checkpoint) -> None:
    """The saved numbers say how many images a step has until memory was measured."""
    found = settings_to_go_on(checkpoint, {"train.batch_size": "auto"}, [])

    assert found.auto == {"train.batch_size"}
    assert found.config == settings_to_go_on(checkpoint, {}, []).config


def test_assigned_batch_size_is_another_run(checkpoint: Checkpoint) -> None:
    """With `--set` batch sizes and accumulation are taken as they are."""
    alone = settings_to_go_on(checkpoint, {}, ["train.batch_size=3"]).config
    beside = settings_to_go_on(checkpoint, {"train.batch_size": "2"}, ["train.accumulation_steps=1"]).config

    assert batches(alone) == (3, 2, 1)
    assert batches(beside) == (2, 2, 1)


def test_fewer_epochs(checkpoint: Checkpoint) -> None:
    """`--epochs` extends; ending earlier changes the schedule and takes `--set`."""
    with pytest.raises(UsageError, match="--epochs can only extend a run") as caught:
        settings_to_go_on(checkpoint, {"train.epochs": "2"}, [])

    assert "--set train.epochs=2" in caught.value.hint
    assert settings_to_go_on(checkpoint, {}, ["train.epochs=2"]).config.train.epochs == 2
    assert settings_to_go_on(checkpoint, {"train.epochs": "3"}, []).config.train.epochs == 3


def test_another_number_of_epochs_has_whole_ones(tmp_path: Path) -> None:
    """A last epoch that ends early is that of the old number; whoever wants one again has to say so."""
    checkpoint = checkpoint_of(tmp_path / "run", last_epoch_images=5)

    def images(flags: dict[str, str], *assignments: str) -> int | None:
        return settings_to_go_on(checkpoint, flags, assignments).config.train.last_epoch_images

    assert images({}) == images({"train.epochs": "3"}) == 5
    assert images({"train.epochs": "4"}) is images({}, "train.epochs=2") is None
    assert images({"train.epochs": "4"}, "train.last_epoch_images=6") == 6


def test_where_it_goes_on(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder asked for by a flag or `--set`, else in the run's own; one that cannot be written is left alone.

    And not from the checkpoint that an earlier session began with.
    """
    by_flag = settings_to_go_on(checkpoint, {"run.checkpoint_dir": "new"}, []).config
    assigned = settings_to_go_on(checkpoint, {}, ["run.checkpoint_dir=new"]).config
    monkeypatch.setattr(RunFolder, "is_writable", lambda self: False)
    read_only = settings_to_go_on(checkpoint, {}, []).config
    began_elsewhere = checkpoint_of(checkpoint.path.parent.with_name("second"), resume_from="/elsewhere.pth")

    assert settings_to_go_on(began_elsewhere, {}, []).config.run.resume_from is None
    assert by_flag.run.checkpoint_dir == assigned.run.checkpoint_dir == "new"
    assert read_only.run.checkpoint_dir is None
    assert name_for(resolve(None, {}), checkpoint) == "run"


def test_a_folder_with_a_checkpoint_alone_is_no_runs_own(checkpoint: Checkpoint) -> None:
    """Somebody put the file there, beside files of their own."""
    (checkpoint.path.parent / "config.yaml").unlink()

    assert settings_to_go_on(checkpoint, {}, []).config.run.checkpoint_dir is None


def test_images_that_lie_elsewhere_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the place of where they lay, as a data set or as two folders; relative paths are kept as absolute."""
    monkeypatch.chdir(tmp_path)
    as_set = checkpoint_of(tmp_path / "run")
    folders = {"dataset_path": [], "images": ["/old/images"], "masks": ["/old/masks"]}
    as_folders = checkpoint_of(tmp_path / "other", **folders)
    now_folders = settings_to_go_on(as_set, {"data.images": ["images"], "data.masks": ["masks"]}, []).config.data
    now_set = settings_to_go_on(as_folders, {"data.dataset_path": ["data"]}, []).config.data

    assert now_folders.dataset_path == ()
    assert (now_folders.images, now_folders.masks) == ((str(tmp_path / "images"),), (str(tmp_path / "masks"),))
    assert now_set.dataset_path == (str(tmp_path / "data"),)
    assert (now_set.images, now_set.masks) == ((), ())


def test_validation_folders_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training pictures lie elsewhere now, those to validate on stay where they are, or are given anew."""
    monkeypatch.chdir(tmp_path)
    checkpoint = checkpoint_of(tmp_path / "run", val_images=["/old/v"], val_masks=["/old/w"])
    kept = settings_to_go_on(checkpoint, {"data.dataset_path": ["data"]}, []).config.data
    moved = settings_to_go_on(checkpoint, {"data.val_images": ["v"], "data.val_masks": ["w"]}, []).config.data

    assert (kept.val_images, kept.val_masks) == (("/old/v",), ("/old/w",))
    assert (moved.val_images, moved.val_masks) == ((str(tmp_path / "v"),), (str(tmp_path / "w"),))
    assert moved.dataset_path == checkpoint_data(checkpoint)


def checkpoint_data(checkpoint: Checkpoint) -> tuple[str, ...]:
    return settings_to_go_on(checkpoint, {}, []).config.data.dataset_path


def with_cache(folder: Path, cache: Path, *, beside: bool = True) -> Checkpoint:
    """A checkpoint whose run kept its cache there, with the settings `beside` it or alone."""
    checkpoint = checkpoint_of(folder, cache=str(cache))
    if not beside:
        (folder / "config.yaml").unlink()
    return checkpoint


def test_the_cache_of_a_run_of_this_machine(tmp_path: Path) -> None:
    """A run goes on with the cache that it has made."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "images-64px-0.u8").touch()
    checkpoint = with_cache(tmp_path / "run", cache)

    assert settings_to_go_on(checkpoint, {}, []).config.data.cache == str(cache)


@pytest.mark.parametrize("kind", ["not there", "somebody's", "settings missing", "settings of another"])
def test_a_place_that_only_a_checkpoint_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A checkpoint may come from anybody: no cache is kept where it says, unless the user says so too."""
    cache = tmp_path / "place"
    checkpoint = with_cache(tmp_path / "run", cache, beside=kind != "settings missing")
    if kind != "not there":
        cache.mkdir()
    if kind.startswith("settings"):
        (cache / "images-64px-0.u8").touch()
    if kind == "settings of another":
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(to_mapping(resolve(None, {}).config)))
    asked = settings_to_go_on(checkpoint, {"data.cache": str(cache)}, []).config.data.cache
    assert capsys.readouterr().err == ""

    assert settings_to_go_on(checkpoint, {}, []).config.data.cache == "auto"
    assert asked == str(cache)
    assert f"to use that folder, pass --cache {cache}" in " ".join(capsys.readouterr().err.split())


def test_a_cache_in_the_run_folder(tmp_path: Path) -> None:
    """A run may write there in any case, and nowhere beside it."""
    inside = with_cache(tmp_path / "run", tmp_path / "run" / "cache")
    outside = with_cache(tmp_path / "other", tmp_path / "other" / ".." / "cache")

    assert settings_to_go_on(inside, {}, []).config.data.cache == str(tmp_path / "run" / "cache")
    assert settings_to_go_on(outside, {}, []).config.data.cache == "auto"


def test_no_other_place_of_a_checkpoint_is_written(tmp_path: Path) -> None:
    """Of the settings that are paths, a run writes to its folder and its cache; where it goes on decides the former."""
    paths = {key for key, each in SETTINGS.items() if each.stands_for in ("DIR", "FILE")}
    checkpoint = checkpoint_of(tmp_path / "run", checkpoint_dir=str(tmp_path / "theirs"), resume_from="/theirs.pth")
    run = settings_to_go_on(checkpoint, {}, []).config.run

    assert paths == {
        "model.backbone_weights",
        "model.init_from",
        "data.dataset_path",
        "data.images",
        "data.masks",
        "data.cache",
    } | {
        "data.val_images",
        "data.val_masks",
        "data.negatives",
        "run.checkpoint_dir",
        "run.resume_from",
    }
    assert (run.checkpoint_dir, run.resume_from) == (str(tmp_path / "run"), None)


def test_saved_by_another_process_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who read a checkpoint before another run's last save in the same folder is told so, and changes nothing."""
    found = checkpoint_of(tmp_path / "run")
    found.path.write_bytes(b"first")

    def read_slowly(source: Path) -> Checkpoint:
        found.path.unlink()
        found.path.write_bytes(b"second")
        return found

    monkeypatch.setattr(resume, "find_checkpoint", read_slowly)
    with pytest.raises(UsageError, match="another process saved a checkpoint to") as caught:
        resume.resume(tmp_path / "run", {}, [])

    assert caught.value.hint == f"camox resume {tmp_path / 'run'}"
    assert found.path.read_bytes() == b"second"


@pytest.mark.parametrize(("samples", "step"), [(0, 0), (32, 2), (33, 3)])
def test_the_next_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int, step: int) -> None:
    """A dry run names the rate of the step that comes next, of 16 images, in the middle of an epoch too."""
    settings = {"train.accumulation_steps": 1, "train.batch_size": 8, "train.stage2_batch_size": 8, "run.gpus": 2}
    before = to_mapping(resolve("quickstart", settings).config)
    training = TrainingContent(Progress(samples=samples), 4, "", {"state": {}, "param_groups": []}, {}, 0)
    network = {"weight": torch.zeros(1)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    content = CheckpointContent("test_resnet", 7, network, None, 0, None, None, before, None, training)
    found = Checkpoint(tmp_path / "last.pth", content.to_dict())
    monkeypatch.setattr(resume, "find_checkpoint", lambda source: found)
    (line,) = [line for line in rehearse(tmp_path, {}, []) if line.startswith("Next")]
    config = settings_to_go_on(found, {}, []).config
    stage, images = build_phases(config)[0].stage, config.data.generated_images
    rates = [f"{rate_at(config, stage, images, 0, at):.3g}" for at in range(5)]

    assert len(set(rates)) == 5
    assert line.endswith(f"epoch 1 of {config.train.epochs}, stage 2, learning rate {rates[step]}")
