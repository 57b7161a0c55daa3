"""The commands, as a user types them: each ends well, and CPU and GPU give the same scores."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.errors import DeviceError
from tests.gpu.report import Report
from tests.gpu.run_command import Ended, run_well
from tests.helpers.processes import camox
from tests.helpers.run_files import read_json
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET, write_tiny_data

_SECONDS = 80
_LIMIT = 1e-3  # between scores of CPU and GPU


def check(report: Report) -> None:
    device = ["--device", report.device]
    data, run = write_tiny_data(report.folder / "data"), report.folder / "run"
    train = ["train", "--preset", "quickstart", "--epochs", "2", "--checkpoint-dir", str(run), *device]
    benchmark = ["benchmark", *device, "--gpus", "1", "--steps", "3", "--repeats", "1", "--json"]
    if not report.on_card:
        train += ["--set", "data.generated_images=60"]
        benchmark += ["--backbone", "test_resnet", "--img-size", "64", "--batch-size", "2"]
    # On a machine with few cores commands side by side would wait for each other.
    with ThreadPoolExecutor(8 if usable_cores() >= 16 else 1) as pool:
        started = start(pool, report, {"train": train, "benchmark": benchmark})
        well = 0 if report.on_card else DeviceError.exit_code  # where there is no GPU, doctor says so
        started |= start(pool, report, {"doctor": ["doctor", "--json"]}, code=well)
        with report.part("train", seconds=_SECONDS):
            started["train"].result()
            report.number("train: validation IoU", read_json(run / "results.json")["validation"]["iou"])
            events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            epoch = [event for event in events if event["event"] == "epoch"][-1]
            for name in ("seconds", "images_per_s", "data_wait"):  # seconds include validation
                report.number(f"train: {name} of the last epoch", epoch[name])
        started |= start(pool, report, on_checkpoint(report, data, run / "best_model.pth"))
        with report.part("benchmark", seconds=_SECONDS):
            for row in json.loads(started["benchmark"].result().stdout)["results"]:
                assert row["images_per_s"] is not None, f"stage {row['stage']} was not measured"
                report.number(f"benchmark: images/s of stage {row['stage']}", row["images_per_s"])
        with report.part("doctor", seconds=_SECONDS):
            findings = json.loads(started["doctor"].result().stdout)["findings"]
            doubts = [each["name"] for each in findings if each["status"] not in ("ok", "info")]
            report.number("doctor: findings that are not well", ", ".join(doubts) or "none")
        with report.part("predict", seconds=_SECONDS):
            started["predict"].result()
            assert len(list((report.folder / "maps").glob("*.png"))) == TEST_IMAGES, "not a map for each picture"
        with report.part("export", seconds=_SECONDS):
            started["export"].result()
            report.number("export: MB", (report.folder / "network.safetensors").stat().st_size / 1e6)
        with report.part("eval", seconds=_SECONDS):
            compare_scores(report, {name: run for name, run in started.items() if name.startswith("eval")})


def on_checkpoint(report: Report, data: Path, checkpoint: Path) -> dict[str, list[str]]:
    """Command lines of what takes a trained network, by name; `eval` on device and CPU, and in half precision."""
    images, maps = str(data / "TestDataset" / TEST_SET / "Imgs"), str(report.folder / "maps")
    scoring = ["eval", str(checkpoint), "--dataset-path", str(data), "--json", "--device"]
    return {
        **{f"eval {each}": [*scoring, each] for each in dict.fromkeys((report.device, "cpu"))},
        f"eval {report.device}, half precision where there is any": [*scoring, report.device, "--precision", "auto"],
        "predict": ["predict", str(checkpoint), images, "--out", maps, "--device", report.device],
        "export": ["export", str(checkpoint), str(report.folder / "network.safetensors")],
    }


def start(pool: Executor, report: Report, commands: dict[str, list[str]], code: int = 0) -> dict[str, Future[Ended]]:
    """Command lines by name; they have to end with exit code `code`."""
    return {
        name: pool.submit(run_well, report.folder / f"{name} command", camox(*arguments), seconds=_SECONDS, code=code)
        for name, arguments in commands.items()
    }


def compare_scores(report: Report, runs: dict[str, Future[Ended]]) -> None:
    """Every measure of the test set is that which the first of the runs gives."""
    means = []
    for name, run in runs.items():
        (scores,) = json.loads(run.result().stdout)["sets"].values()
        means.append({key: value for key, value in scores.items() if isinstance(value, float)})
        report.number(f"{name}: IoU", means[-1]["iou"])
    for name, others in list(zip(runs, means, strict=True))[1:]:
        apart = max(abs(value - others[key]) for key, value in means[0].items())
        report.number(f"{name}: scores differ by at most", apart)
        assert apart <= _LIMIT, f"scores of {next(iter(runs))} and {name} differ by {apart:.2g}; {_LIMIT:g} is allowed"
