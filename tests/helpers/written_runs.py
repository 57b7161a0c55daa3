"""Run folders that nobody trained: the files of a run, written one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from camoxpert_cli.config.resolve import resolve, to_mapping
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import Stub, content_of, write_content

# Of the run: six epochs, half of them of stage 1, with eight images each.
EPOCHS, STAGE1, IMAGES = 6, 3, 8


def settings(folder: Path, **flags: Any) -> dict[str, Any]:
    """All settings, as config.yaml and checkpoints have them; `flags` go by their dotted keys with __ for the dot."""
    chosen = {"train__epochs": EPOCHS, "train__stage1_epochs": STAGE1, "train__warmup_epochs": 0, **flags}
    keys = {name.replace("__", "."): value for name, value in chosen.items()}
    return to_mapping(resolve(None, {**keys, "run.checkpoint_dir": str(folder)}).config)


def row(epoch: int) -> dict[str, Any]:
    """Of the history: an epoch takes ten seconds, and each is better than the one before."""
    return {"epoch": epoch, "stage": 1 if epoch <= STAGE1 else 2, "iou": epoch / 10, "seconds": 10.0}


def write_last(
    path: Path,
    epoch: int,
    samples: int,
    config: dict[str, Any] | None = None,
    *,
    best_epoch: int | None = None,
    **entries: Any,
) -> None:
    """A last.pth or previous.pth after that many complete epochs and images; by default, the last epoch is the best."""
    best_epoch = epoch if best_epoch is None else best_epoch
    history = [row(number) for number in range(1, epoch + 1)]
    progress = {
        **{"epoch": epoch, "samples": samples, "history": history, "epoch_seconds": 10 * samples / IMAGES},
        **{"best_epoch": best_epoch, "best_iou": best_epoch / 10 if best_epoch else -1.0},
    }
    content = {**content_of(Stub()), "epoch": epoch, "config": config or settings(path.parent), "history": history}
    write_content(path, {**content, "training": {"progress": progress, "backbone_stages": 0}, **entries})


def write_best(path: Path, epoch: int, config: dict[str, Any] | None = None) -> None:
    """A best_model.pth of that epoch."""
    history = [row(number) for number in range(1, epoch + 1)]
    content = {**content_of(Stub()), "epoch": epoch, "config": config or settings(path.parent), "history": history}
    write_content(path, {**content, "scores": history[-1]})


def write_log(folder: Path, epoch: int, samples: int) -> None:
    """The log and the history of a run that got so far."""
    rows: list[dict[str, Any]] = []
    for number in range(1, epoch + 1):
        rows += [{"event": "step", "epoch": number, "samples": seen} for seen in (4, IMAGES)]
        rows.append({"event": "epoch", **row(number)})
    rows += [{"event": "step", "epoch": epoch + 1, "samples": seen} for seen in (4, samples) if samples]
    run = RunFolder(folder)
    run.metrics.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    run.history.write_text(json.dumps([row(number) for number in range(1, epoch + 1)]))


def write_begun(folder: Path, config: dict[str, Any] | None = None, command: list[str] | None = None) -> RunFolder:
    """The folder of a run that has begun."""
    run = RunFolder(folder)
    run.create()
    write_settings(folder, config or settings(folder))
    environment = {"versions": {"camox": "0.2.0"}, "command": command or ["/usr/bin/camox", "train"]}
    (folder / "env.json").write_text(json.dumps(environment))
    return run


def write_settings(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write_results(folder: Path, **entries: Any) -> None:
    content = {"epoch": 4, "validation": {"iou": 0.5}, "tests": {}, **entries}
    (folder / "results.json").write_text(json.dumps(content))
