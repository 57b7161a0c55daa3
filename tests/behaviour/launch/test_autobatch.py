"""What is decided of batches before a run begins, on cards that hold so many images and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from camoxpert_cli.config.batches import own_batches
from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.errors import ConfigError, DeviceError, UsageError
from camoxpert_cli.launch import autobatch, decide, start
from camoxpert_cli.launch.autobatch import fit_batches, on_devices, refuse_auto_on_cpu
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.device import Placement
from tests.helpers.small_card import have_room, measure

Answer = tuple[int, int] | Failure


def small(**settings: Any) -> Resolved:
    """The recipe for two T4 on a small network: 32 and 24 images a step."""
    flags = {
        "model.backbone": "test_resnet",
        "model.num_experts": 2,
        "data.img_size": 64,
        "data.generated_images": 8,
        "run.gpus": 2,
        **{f"train.{name}": value for name, value in settings.items()},
    }
    return resolve("kaggle-2xT4", flags)


def holds(first: int, second: int) -> Callable[[Config, tuple[int, int]], Sequence[Answer]]:
    """A card that holds so many images of the stages at a time; none but one with gradient checkpointing for -1."""

    def measured(config: Config, limits: tuple[int, int]) -> Sequence[Answer]:
        if first < 0:
            return [(1, 1) if config.model.gradient_checkpointing else (0, 0)]
        return [(min(first, limits[0]), min(second, limits[1]))]

    return measured


def batches(resolved: Resolved | Plan) -> tuple[int, int, int]:
    return (*own_batches(resolved.config), resolved.config.train.accumulation_steps)


def test_what_fits_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is changed, and nothing said but that it was tried."""
    before = small()

    assert fit_batches(before, holds(99, 99)) == before
    assert capsys.readouterr().err == "Memory: trying two steps of each stage on every GPU\n"


@pytest.mark.parametrize("preset_goes_on", [False, True])
def test_what_does_not_fit(capsys: pytest.CaptureFixture[str], preset_goes_on: bool) -> None:
    """Smaller batches make the same images a step, with the flags that would say the same, in one sentence or two."""
    resolved = small()
    if preset_goes_on:
        resolved = Resolved(resolved.config, resolved.origins, None, resolved.config)
    fitted = fit_batches(resolved, holds(16, 7))
    warning = capsys.readouterr().err.splitlines()[-1]

    assert batches(fitted) == (8, 6, 2)
    assert warning == (
        "Warning: the requested batch sizes do not fit in the memory of each GPU: using batch sizes 8 and 6 (stages 1 "
        "and 2) with 2 accumulation steps, keeping the global batch sizes 32 and 24. Equivalent flags: "
    ) + (
        "--set train.batch_size=8 --set train.stage2_batch_size=6 --set train.accumulation_steps=2"
        if preset_goes_on
        else "--batch-size 8 --stage2-batch-size 6 --accumulation-steps 2"
    )


def test_stage_2_alone_does_not_fit() -> None:
    """Its batches are smaller all the same, and with them stage 1's, which has the same accumulation."""
    assert batches(fit_batches(small(), holds(99, 6))) == (8, 6, 2)


def test_what_whole_numbers_do_not_keep(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the images of a step cannot be kept, the nearest are taken, and that is said."""
    fitted = fit_batches(small(), holds(3, 2))

    assert batches(fitted) == (3, 2, 6)
    assert "changing the global batch sizes from 32 and 24 to 36 and 24" in capsys.readouterr().err


def test_a_card_that_holds_no_image() -> None:
    """Gradient checkpointing is turned on before giving up, and what can be tried then is told."""
    fitted = fit_batches(small(batch_size=4, stage2_batch_size=2), holds(-1, -1))
    with pytest.raises(DeviceError, match="stage 2 does not fit in GPU memory even with one image") as caught:
        fit_batches(small(), holds(5, 0))

    assert fitted.config.model.gradient_checkpointing
    assert batches(fitted) == (1, 1, 3)
    assert "--img-size than 64" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "room", "expected"),
    [
        ({"batch_size": "auto"}, (99, 99), (16, 12, 1)),
        ({"batch_size": "auto", "accumulation_steps": "4"}, (99, 99), (64, 48, 1)),
        ({"batch_size": "auto", "accumulation_steps": "4"}, (40, 40), (32, 24, 2)),
        ({"stage2_batch_size": "auto"}, (15, 12), (8, 6, 2)),
        ({"batch_size": "auto", "stage2_batch_size": "6", "accumulation_steps": "2"}, (99, 99), (16, 6, 2)),
    ],
)
def test_auto(settings: dict[str, str], room: tuple[int, int], expected: tuple[int, int, int]) -> None:
    """The largest batches at the images a step that the settings make otherwise; a number beside it stays."""
    assert batches(fit_batches(small(**settings), holds(*room))) == expected


def test_auto_says_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    """Also the numbers, to type them the next time."""
    fit_batches(small(batch_size="auto"), holds(10, 10))

    assert capsys.readouterr().err.splitlines()[-1] == (
        "Memory: the largest that fit are batch sizes 8 and 6 (stages 1 and 2) with 2 accumulation steps, keeping the "
        "global batch sizes 32 and 24; equivalent flags: --batch-size 8 --stage2-batch-size 6 --accumulation-steps 2"
    )


def test_auto_on_the_cpu() -> None:
    """Nothing is measured there: one sentence, exit code 2; without auto there is none."""
    refuse_auto_on_cpu(small())
    with pytest.raises(ConfigError, match=r"--stage2-batch-size auto measures GPU memory, but .* uses the CPU") as told:
        start.start(resolve("quickstart", {"train.stage2_batch_size": "auto"}))

    assert told.value.exit_code == 2
    assert told.value.hint.endswith("--batch-size 12 --stage2-batch-size 12")


def test_a_measurement_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A run goes on as it was asked for, and says so; auto cannot."""
    before = small()

    def failing(config: Config, limits: tuple[int, int]) -> Sequence[Answer]:
        return [(1, 1), Failure("no answer within 600 s")]

    after = fit_batches(before, failing)
    with pytest.raises(DeviceError, match="the largest batch size could not be measured: no answer within 600 s"):
        fit_batches(small(batch_size="auto"), failing)

    assert after == before
    assert "Warning: GPU memory could not be measured: no answer within 600 s" in capsys.readouterr().err


@pytest.mark.parametrize("batch", ["16", "auto"])
def test_what_training_would_end_of(batch: str) -> None:
    """It is told at once, in its own words: a card without code, or an operation without deterministic form."""
    refused = Failure("median has no deterministic form", "--no-deterministic", 2)
    with pytest.raises(UsageError, match="median has no deterministic form") as caught:
        fit_batches(small(batch_size=batch), lambda config, limits: [refused])

    assert (caught.value.hint, caught.value.exit_code) == ("--no-deterministic", 2)


def test_the_smallest_card_counts() -> None:
    """All GPUs take what each of them holds."""
    fitted = fit_batches(small(), lambda config, limits: [(16, 4), (9, 12)])

    assert batches(fitted) == (4, 3, 4)


def test_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the network find the largest batch; where one image is too much, those with checkpointing do."""
    resolved = small(batch_size=2, stage2_batch_size=2, use_ema=False)
    tried = have_room(monkeypatch, most_images=1)
    first = fit_batches(resolved, measure)
    assert max(tried) == 2
    have_room(monkeypatch, most_images=0, checkpointed=1)
    second = fit_batches(resolved, measure)

    assert (batches(first), first.config.model.gradient_checkpointing) == ((1, 1, 2), False)
    assert (batches(second), second.config.model.gradient_checkpointing) == ((1, 1, 2), True)


def test_measured_once_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that starts others measures all their GPUs, and they take what it found."""
    asked: list[int] = []

    def devices(given: Sequence[torch.device]) -> Callable[[Config, tuple[int, int]], Sequence[Answer]]:
        asked.append(len(given))
        return holds(10, 10)

    monkeypatch.setattr(autobatch, "is_measured", lambda device: True)
    monkeypatch.setattr(autobatch, "on_devices", devices)
    placement = Placement("ddp", (torch.device("cpu"),) * 2, 2)
    monkeypatch.setattr(decide, "place", lambda run, processes, sync_batchnorm: placement)
    plan = decide.decide(small())

    assert Plan.from_mapping(json.loads(json.dumps(plan.to_mapping()))) == plan
    assert batches(plan) == (8, 6, 2)
    assert asked == [2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    """A GPU finds a batch that fits and is smaller than one that cannot: 4096 images of 1024 pixels."""
    flags = {"train.batch_size": 4096, "train.stage2_batch_size": 4096, "data.img_size": 1024, "run.gpus": 1}
    config = resolve("quickstart", {**flags, "run.device": "cuda", "train.precision": "fp32"}).config
    (found,) = on_devices([torch.device("cuda", 0)])(config, (4096, 4096))

    assert not isinstance(found, Failure)
    assert 0 < found[1] < 4096
