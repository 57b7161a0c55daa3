from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.config.schema import Config, Scheduler
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.saving import Saver
from camoxpert_cli.engine.schedule import learning_rate
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import DataError, Interrupted
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.model import camoxpert
from camoxpert_cli.model.activation_checkpointing import checkpoint_activations
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.compare import differences
from tests.helpers.run_files import events, read_json
from tests.helpers.scoring import evaluate
from tests.helpers.tiny_data import TEST_IMAGES, TRAINING_IMAGES, tiny_plan, tiny_run

# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CPU = torch.device("cpu")
# What may differ between two runs that do the same.
CIRCUMSTANCES = {"seconds", "epoch_seconds", "time", "num_workers", "checkpoint_dir", "gradient_checkpointing"}


def differing(first: RunFolder, second: RunFolder) -> list[str]:
    """Where two runs' checkpoints and histories are not the same to the last bit."""
    return [
        *differences(read_checkpoint(first.last), read_checkpoint(second.last), CIRCUMSTANCES, "last"),
        *differences(read_checkpoint(first.best), read_checkpoint(second.best), CIRCUMSTANCES, "best"),
        *differences(read_json(first.history), read_json(second.history), CIRCUMSTANCES, "history"),
        *differences(events(first, "step"), events(second, "step"), CIRCUMSTANCES, "steps"),
    ]


def test_no_image_is_seen_twice(tiny_data: Path, tmp_path: Path) -> None:
    """Training, validation and test images have no file in common, and validation takes none from the test set."""
    data = prepare(tiny_plan(tiny_data, tmp_path / "run"))[0].data
    groups = [data.train, data.validation, *data.tests.values()]
    files = [path for group in groups for pair in group for path in (pair.image, pair.mask)]

    assert len(files) == len(set(files)) == 2 * (TRAINING_IMAGES + TEST_IMAGES)
    assert all("TrainDataset" in pair.image.parts for pair in [*data.train, *data.validation])
    assert len(data.validation) == 3
    assert [len(pairs) for pairs in data.tests.values()] == [TEST_IMAGES]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_same_run_again(plain_run: RunFolder, tiny_data: Path, tmp_path: Path, num_workers: int) -> None:
    """The same seed gives the same run to the last bit, with workers too."""
    assert differing(train(tiny_plan(tiny_data, tmp_path / "run", num_workers=num_workers)).folder, plain_run) == []


def test_gradient_checkpointing(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computing activations twice saves memory and changes no bit of the run, dropout and BatchNorm included."""
    checkpointed = []

    def watched(module: nn.Module, *inputs: Any) -> Any:
        checkpointed.append(module)
        return checkpoint_activations(module, *inputs)

    monkeypatch.setattr(camoxpert, "checkpoint_activations", watched)
    folder = train(tiny_plan(tiny_data, tmp_path / "run", gradient_checkpointing=True)).folder

    # In each of five steps four mixtures and four decoder blocks, in stage 2's three steps the backbone too.
    assert len(checkpointed) == 5 * 8 + 3
    assert differing(folder, plain_run) == []


def test_another_seed(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """Another seed gives other weights, another split and another course."""
    folder = train(tiny_plan(tiny_data, tmp_path / "run", seed=7, epochs=1)).folder

    assert read_json(folder.history)[0]["train_loss"] != read_json(plain_run.history)[0]["train_loss"]
    assert differences(read_checkpoint(folder.last)["network"], read_checkpoint(plain_run.last)["network"]) != []


def test_without_deep_supervision(tiny_data: Path, tmp_path: Path) -> None:
    """The side outputs take no part in the loss, are frozen, and keep the weights they began with."""
    settings = tiny_run(tiny_data, tmp_path / "run", epochs=1, deep_supervision=False)
    run = prepare(decide(settings))[0]
    enter_phase(run, run.phases[0])
    before = {name: value.clone() for name, value in run.state.network.state_dict().items()}
    folder = train(decide(settings)).folder
    after = read_checkpoint(folder.last)["network"]
    heads = [name for name in after if name.startswith("deep_heads.")]

    assert {line["deep"] for line in events(folder, "step")} == {0.0}
    assert not any(parameter.requires_grad for parameter in run.state.network.deep_heads.parameters())
    assert len(heads) == 6
    assert all(torch.equal(after[name], before[name]) for name in heads)
    assert not torch.equal(after["final_conv.0.weight"], before["final_conv.0.weight"])


def test_without_ema(tiny_data: Path, tmp_path: Path) -> None:
    """Without an average the network itself is validated and kept."""
    settings = tiny_run(tiny_data, tmp_path / "run", epochs=1, use_ema=False)
    folder = train(decide(settings)).folder
    dataset = ScoringImages(
        prepare(decide(replace(settings, config=elsewhere(settings.config))))[0].data.validation, 64
    )
    scores = evaluate(load_model(folder.best), scoring_loader(dataset, 4, 0))

    assert read_checkpoint(folder.best)["ema"] is None
    assert read_json(folder.history)[0]["mae"] == scores.mae


def elsewhere(config: Config) -> Config:
    """The same settings for another folder."""
    return replace(config, run=replace(config.run, checkpoint_dir=f"{config.run.checkpoint_dir}-other"))


def test_ema_is_validated(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """With an average it is the average whose scores the history has.

    After so few steps its maps and the network's may be the same in eight bits: which one is scored is looked at too.
    """
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run"))
    dataset = ScoringImages(run.data.validation, 64)
    best = read_json(plain_run.results)["epoch"]
    ema = load_model(plain_run.best, ema=True)
    scores = evaluate(ema, scoring_loader(dataset, 4, 0))

    assert run.state.ema is not None
    assert run.state.scored_network is run.state.ema.network is not run.state.network
    assert read_json(plain_run.history)[best - 1]["mae"] == scores.mae


def test_skip_stage1(tiny_data: Path, tmp_path: Path) -> None:
    """Without stage 1 the run begins with stage 2's first epoch and trains the backbone at once."""
    settings = tiny_run(tiny_data, tmp_path / "run", skip_stage1=True)
    before = prepare(decide(settings))[0].state.network.state_dict()["backbone.conv1.0.weight"].clone()
    folder = train(decide(settings)).folder

    assert [(row["epoch"], row["stage"]) for row in read_json(folder.history)] == [(2, 2)]
    assert not torch.equal(read_checkpoint(folder.last)["network"]["backbone.conv1.0.weight"], before)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Makes training compute and write nothing; gives the rates of all groups at each optimizer step."""
    rates: list[dict[str, float]] = []
    step = train_module.optimizer_step

    def watched(run: Run, *arguments: Any) -> float | None:
        norm = step(run, *arguments)
        assert run.state.optimizer is not None
        rates.append({group["name"]: group["lr"] for group in run.state.optimizer.param_groups})
        return norm

    monkeypatch.setattr(train_module, "optimizer_step", watched)
    monkeypatch.setattr(train_module, "backward", lambda *arguments, share: (torch.zeros(6), torch.zeros(1)))
    monkeypatch.setattr(train_module, "validate", lambda run: Scores({"iou": 0.5, "dice": 0.5, "mae": 0.5}))
    for name in ("save_last", "save_best"):
        monkeypatch.setattr(Saver, name, lambda saver: True)
    monkeypatch.setattr(train_module, "close_run", lambda run: {})
    return rates


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart", "none"])
def test_rates_of_a_run(tiny_data: Path, tmp_path: Path, idle: list[dict[str, float]], scheduler: Scheduler) -> None:
    """Each stage runs its schedule to the end, over unfreezings too, and the backbone keeps a tenth of every rate.

    The original program's warm-up gave the backbone the whole rate, and its rate froze at the first unfreezing.
    """
    settings = {"epochs": 11, "stage1_epochs": 2, "warmup_epochs": 2, "scheduler": scheduler, "use_ema": False}
    folder = train(tiny_plan(tiny_data, tmp_path / "run", min_lr=1e-6, stage2_batch_size=4, **settings)).folder
    # Two steps an epoch; unfreezing comes before steps 6 and 12 of stage 2.
    stage1 = [learning_rate(step, 4, scheduler=scheduler, peak=1e-3, minimum=1e-6) for step in range(4)]
    stage2 = [
        learning_rate(step, 18, scheduler=scheduler, peak=5e-4, minimum=1e-6, warmup_steps=4) for step in range(18)
    ]
    rates = [each["network"] for each in idle]

    assert rates == stage1 + stage2
    assert ["backbone" in each for each in idle] == [False] * 4 + [True] * 18
    assert [each["backbone"] for each in idle[4:]] == pytest.approx([rate / 10 for rate in stage2])
    assert [line["lr"] for line in events(folder, "step")] == rates
    assert [row["lr"] for row in read_json(folder.history)] == rates[1::2]


def test_interrupted_at_the_end(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle: list[dict[str, float]]
) -> None:
    """Ctrl-C after the last epoch does not speak of an epoch that the run does not have."""

    def pressing(run: Run) -> Stop | None:
        signal.raise_signal(signal.SIGINT)
        return run.clock.stop_before_batch()

    monkeypatch.setattr(train_module, "close_run", pressing)
    with pytest.raises(Interrupted, match=r"after the last epoch, .*; no weights were saved"):
        train(tiny_plan(tiny_data, tmp_path / "run"))

    assert len(idle) == 5


def test_training_images_that_cannot_be_read(tmp_path: Path, tiny_data: Path) -> None:
    """An unreadable image ends the run with exit code 3 and the image's name."""
    run = prepare(tiny_plan(tiny_data, tmp_path / "run"))[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    run.data.train[:] = [replace(pair, image=broken) for pair in run.data.train]
    enter_phase(run, run.phases[0])
    with pytest.raises(DataError, match=r"broken\.png") as caught:
        train_module.train_epoch(run, run.phases[0], 0)

    assert caught.value.exit_code == 3


def test_whole_network_learns(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """After an epoch of each stage every parameter that some image reached has moved; none is left out by mistake."""
    run = prepare(tiny_plan(tiny_data, tmp_path / "run"))[0]
    before = {name: parameter.detach().clone() for name, parameter in run.state.network.named_parameters()}
    after = load_model(plain_run.last, ema=False)
    assert isinstance(after, CamoXpert)

    still = [name for name, parameter in after.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch says so of every use
@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU computes while the host goes on")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_host_waits_for_routing_alone(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """From pinned images to gradients the host waits for the GPU only where a mixture layer reads its counts."""
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", device="cuda", precision=precision, skip_stage1=True))
    enter_phase(run, run.phases[0])
    run.state.network.train()
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8).pin_memory()
    masks = torch.randint(2, (3, 1, 64, 64), dtype=torch.uint8).pin_memory()
    train_module.backward(run, images, masks, 1, 3, 1.0)  # the first call of a kernel may wait for its own making
    plain, reads = Tensor.tolist, []

    def counted(tensor: Tensor) -> Any:
        reads.append(tensor.shape)
        torch.cuda.set_sync_debug_mode("default")
        values = plain(tensor)
        torch.cuda.set_sync_debug_mode("error")
        return values

    monkeypatch.setattr(Tensor, "tolist", counted)
    try:
        torch.cuda.set_sync_debug_mode("error")
        train_module.backward(run, images, masks, 1, 3, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len(reads) == len(run.state.network.moe_layers)
