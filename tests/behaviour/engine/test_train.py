from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.config.schema import Scheduler
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.engine import training_steps as steps_module
from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.schedule import learning_rate
from camoxpert_cli.engine.seed import seed_step
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.train import begin, carry_out, close_epoch, train_epoch
from camoxpert_cli.engine.training_steps import training_steps
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import DataError, Interrupted
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder
from tests.behaviour.engine.conftest import OtherRun
from tests.helpers.compare import differences
from tests.helpers.run_files import events, read_json
from tests.helpers.scoring import evaluate
from tests.helpers.steered_runs import Disk, last_layer, make_idle, run_in_hand
from tests.helpers.tiny_data import TEST_IMAGES, TRAINING_IMAGES, tiny_plan

# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CPU = torch.device("cpu")
# What may differ between two runs that learn the same.
CIRCUMSTANCES = {
    *("seconds", "epoch_seconds", "time", "num_workers", "checkpoint_dir"),
    *("gradient_checkpointing", "tensorboard", "save_every"),
}
SCORES = Scores({"iou": 0.5, "dice": 0.5, "mae": 0.5})
PASSED = Deadline(0.0, "the time limit of 1s")


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


def test_same_run_again(plain_run: RunFolder, other_run: OtherRun) -> None:
    """The same seed gives the same run to the last bit: dropout, BatchNorm, order and augmentation, all of it.

    Though workers load the images, activations are computed twice, curves are drawn, and it saves after every step.
    """
    assert differing(other_run.folder, plain_run) == []


def test_gradient_checkpointing(other_run: OtherRun) -> None:
    """In each of five steps mixtures and decoder blocks are computed twice, in stage 2's three the backbone too."""
    assert other_run.computed == {"moe_layers.0": 2 * 5, "decoder_blocks.3": 2 * 5, "backbone": 2 + 2 * 3}


def test_another_seed(tiny_data: Path, tmp_path: Path) -> None:
    """Another seed gives other weights, another split and other augmentation."""
    first, second = (run_in_hand(tiny_data, tmp_path / str(seed), seed=seed) for seed in (42, 7))
    weights = [run.state.network.state_dict()["final_conv.0.weight"] for run in (first, second)]
    names = [{pair.name for pair in run.data.validation} for run in (first, second)]
    for run in (first, second):  # the same image throughout, so that the order does not count
        run.data.train[:] = [first.data.train[0]] * 8
    batches = [next(iter(run.feed.training(run.phases[0].stage, 0, 0)[0])) for run in (first, second)]

    assert not torch.equal(*weights)
    assert names[0] != names[1]
    assert not torch.equal(batches[0][0], batches[1][0])


def test_without_deep_supervision(tiny_data: Path, tmp_path: Path) -> None:
    """The side outputs take no part in the loss, are frozen, and keep the weights they began with."""
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=8, deep_supervision=False)
    before = {name: value.clone() for name, value in run.state.network.state_dict().items()}
    train_epoch(run, run.phases[0], 0)
    after = run.state.network.state_dict()
    heads = [name for name in after if name.startswith("deep_heads.")]

    assert [line["deep"] for line in events(run.folder, "step")] == [0.0]
    assert not any(parameter.requires_grad for parameter in run.state.network.deep_heads.parameters())
    assert len(heads) == 6
    assert all(torch.equal(after[name], before[name]) for name in heads)
    assert not torch.equal(after["final_conv.0.weight"], before["final_conv.0.weight"])


@pytest.mark.parametrize("use_ema", [True, False])
def test_what_is_validated(tiny_data: Path, tmp_path: Path, use_ema: bool) -> None:
    """The average, where there is one, and else the network itself; that is what a checkpoint has for it."""
    run = run_in_hand(tiny_data, tmp_path / "run", use_ema=use_ema)
    scored = run.state.scored_network
    with torch.no_grad():  # white and black images: no rounding makes them alike
        for network, bias in ((run.state.network, -50.0), (scored, 50.0)):
            weight, logit = last_layer(network)
            weight.zero_()
            logit.fill_(bias)
    scores = validate(run)
    disk = run.saver.write = Disk()
    run.saver.save_behind(Best(-1.0, 0))
    run.saver.wait()
    expected = evaluate(scored, scoring_loader(ScoringImages(run.data.validation, 64), 4, 0))

    assert isinstance(scores, Scores)
    assert scores.measures["mae"] == expected.mae > 0.5
    assert (disk.written[0][1].ema is not None) == use_ema
    assert (scored is run.state.network) != use_ema


def test_scores_are_those_of_the_best_weights(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """The history has the scores of what best_model.pth holds, read from the file."""
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run"))
    best = read_json(plain_run.results)["epoch"]
    scores = evaluate(load_model(plain_run.best), scoring_loader(ScoringImages(run.data.validation, 64), 4, 0))

    assert read_json(plain_run.history)[best - 1]["mae"] == scores.mae


def test_skip_stage1(tiny_data: Path, tmp_path: Path) -> None:
    """Without stage 1 the run begins with stage 2's first epoch and trains the backbone at once."""
    run = run_in_hand(tiny_data, tmp_path / "run", skip_stage1=True, stage2_batch_size=8)
    before = run.state.network.state_dict()["backbone.conv1.0.weight"].clone()
    run.saver.write = Disk()
    train_epoch(run, run.phases[0], run.state.progress.epoch)
    close_epoch(run, run.phases[0], SCORES)

    assert [(phase.first, phase.end) for phase in run.phases] == [(1, 2)]
    assert [(row["epoch"], row["stage"]) for row in read_json(run.folder.history)] == [(2, 2)]
    assert not torch.equal(run.state.network.state_dict()["backbone.conv1.0.weight"], before)


def test_thawing_keeps_what_was_learned(tiny_data: Path, tmp_path: Path) -> None:
    """Each phase trains all that the one before did, with the same moments, and a part of the backbone besides."""
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", epochs=4, num_experts=1))
    trained: list[set[int]] = []
    for phase in run.phases:
        enter_phase(run, phase)
        assert run.state.optimizer is not None
        parameters = [each for each in run.state.network.parameters() if each.requires_grad]
        assert {id(each) for group in run.state.optimizer.param_groups for each in group["params"]} == set(
            map(id, parameters)
        )
        assert {id(each) for each in run.state.optimizer.state} == (trained[-1] if trained else set())
        trained.append(set(map(id, parameters)))
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        run.state.optimizer.step()

    assert [phase.backbone_stages for phase in run.phases] == [0, 1, 2, 4]
    assert all(before < after for before, after in pairwise(trained))
    assert trained[-1] == set(map(id, run.state.network.parameters()))


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart", "none"])
def test_rates_of_a_run(tiny_data: Path, tmp_path: Path, scheduler: Scheduler) -> None:
    """Each stage runs its schedule to the end, over unfreezings too, and the backbone keeps a tenth of every rate.

    The original program's warm-up gave the backbone the whole rate, and its rate froze at the first unfreezing.
    """
    settings: dict[str, Any] = {"epochs": 11, "stage1_epochs": 2, "warmup_epochs": 2, "scheduler": scheduler}
    plan = tiny_plan(tiny_data, tmp_path / "run", min_lr=1e-6, stage2_batch_size=4, use_ema=False, **settings)
    run, _ = prepare(plan)
    make_idle(run)
    run.saver.write = Disk()
    begin(run, plan.config, None)
    rates: list[dict[str, float]] = []
    for phase in run.phases:
        enter_phase(run, phase)
        assert run.state.optimizer is not None
        run.state.optimizer.register_step_pre_hook(
            lambda optimizer, *_: rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        )
        for epoch in range(phase.first, phase.end):
            assert train_epoch(run, phase, epoch) is None
            close_epoch(run, phase, SCORES)
    # Two steps an epoch; unfreezing comes before steps 6 and 12 of stage 2.
    stage1 = [learning_rate(step, 4, scheduler=scheduler, peak=1e-3, minimum=1e-6) for step in range(4)]
    stage2 = [
        learning_rate(step, 18, scheduler=scheduler, peak=5e-4, minimum=1e-6, warmup_steps=4) for step in range(18)
    ]
    of_network = [each["network"] for each in rates]

    assert of_network == stage1 + stage2
    assert ["backbone" in each for each in rates] == [False] * 4 + [True] * 18
    assert [each["backbone"] for each in rates[4:]] == pytest.approx([rate / 10 for rate in stage2])
    assert [line["lr"] for line in events(run.folder, "step")] == of_network
    assert [row["lr"] for row in read_json(run.folder.history)] == of_network[1::2]


def test_other_batches_within_an_epoch_go_on_with_the_schedule(tiny_data: Path, tmp_path: Path) -> None:
    """A run that goes on with larger batches in the middle of an epoch makes no step at a rate that it had before.

    2 of 8 images were seen in the epoch, by a batch of 2: its step 0. Batches of 4 follow, their steps are 1 and 2.
    """
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=4, epochs=4, stage1_epochs=4)
    make_idle(run)
    run.state.progress.samples = 2
    stage = run.phases[0].stage
    loader, sizes = run.feed.training(stage, 1, 2)
    steps = list(training_steps(run, stage, 1, zip(sizes, loader, strict=True)))

    # Of 2 steps in each of 4 epochs, of which one is complete.
    minimum = run.config.train.min_lr
    expected = [learning_rate(2 + step, 8, scheduler="cosine", peak=1e-3, minimum=minimum) for step in (1, 2)]
    assert [(step.number, step.images) for step in steps] == [(1, 4), (2, 2)]
    assert [step.rate for step in steps] == expected


def test_steps_are_told_apart(tiny_data: Path, tmp_path: Path) -> None:
    """Losses and choices of experts are each step's own; an epoch's are the mean and the sum over its images."""
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=2, accumulation_steps=2, val_fraction=0.36)
    step = make_idle(run)

    def grow(module: object, inputs: object, output: Any) -> None:
        output.terms.mul_(float(step.batches))

    step.register_forward_hook(grow)
    run.saver.write = Disk()
    train_epoch(run, run.phases[0], 0)
    steps = events(run.folder, "step")
    chosen = [list(layer) for layer in run.state.progress.experts_chosen]
    close_epoch(run, run.phases[0], SCORES)
    total = events(run.folder, "epoch")[0]["train_loss"]

    # Batches of 2 + 2 and 2 + 1 images, with losses of 1, 2, 3 and 4.
    assert [line["bce"] for line in steps] == pytest.approx([(2 * 1 + 2 * 2) / 4, (2 * 3 + 4) / 3])
    assert chosen == [[7.0, 7.0]] * 4
    assert total == pytest.approx((4 * steps[0]["total"] + 3 * steps[1]["total"]) / 7)


def test_epochs_begin_anew(tiny_data: Path, tmp_path: Path) -> None:
    """What is summed up over an epoch starts at nothing in the next; seconds of the run are those of its epochs."""
    run = run_in_hand(tiny_data, tmp_path / "run", epochs=3, stage1_epochs=3)
    make_idle(run)
    run.saver.write = Disk()
    progress = run.state.progress
    for epoch in range(2):
        train_epoch(run, run.phases[0], epoch)
        progress.epoch_seconds, progress.skipped_steps = 10.0, 1
        close_epoch(run, run.phases[0], SCORES)
    rows, lines = progress.history, events(run.folder, "epoch")

    assert rows[0]["train_loss"] == rows[1]["train_loss"] == lines[1]["train_loss"]
    assert (progress.epoch, progress.samples, progress.loss_sum, progress.skipped_steps) == (2, 0, 0.0, 0)
    assert progress.experts_chosen == []
    assert progress.seconds == 20.0


def test_statistics_count_the_images_of_their_step(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank's running statistics weigh as much as it saw of the step, over all its batches, not of those before."""
    seen: list[tuple[int, int]] = []
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1, batch_size=2, accumulation_steps=2)
    make_idle(run)
    monkeypatch.setattr(run.strategy, "reduce_gradients", lambda trained, chosen, *images: seen.append(images))
    train_epoch(run, run.phases[0], 0)

    assert seen == [(4, 4), (4, 4)]


def test_the_best_epoch_and_the_target(tiny_data: Path, tmp_path: Path) -> None:
    """The first of equal epochs is the best; the target is passed once, by an epoch that just reaches it."""
    run = run_in_hand(tiny_data, tmp_path / "run", epochs=6, stage1_epochs=6, target_iou=0.5)
    disk = run.saver.write = Disk()
    seconds: list[float | None] = []
    for iou in (0.3, 0.5, 0.5, 0.4, 0.9):
        run.state.progress.epoch_seconds = 10.0
        close_epoch(run, run.phases[0], Scores({"iou": iou, "dice": 0.0, "mae": 1.0}))
        seconds.append(run.state.progress.target_seconds)
    best = [content.epoch for name, content in disk.written if name == "best_model.pth"]

    assert best == [1, 2, 5]
    assert (run.state.progress.best_epoch, run.state.progress.best_iou) == (5, 0.9)
    assert seconds == [None, 20.0, 20.0, 20.0, 20.0]


@pytest.fixture
def _terminated_by_default() -> Iterator[None]:
    """However pytest was started."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_terminated_by_default")
def test_a_signal_ends_a_run_within_an_epoch(tiny_data: Path, tmp_path: Path) -> None:
    """A request to terminate during the first step lets it end, and no other begin; the run can go on from there."""
    plan = tiny_plan(tiny_data, tmp_path / "run", batch_size=2)
    run, _ = prepare(plan)
    step = make_idle(run)
    step.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="in epoch 1 of 2, 2 images into it") as caught:
        carry_out(run, plan, None)
    saved = read_checkpoint(run.folder.last)

    assert caught.value.exit_code == 143
    assert step.batches == 1
    assert (saved["epoch"], saved["training"]["progress"]["samples"]) == (0, 2)


@pytest.mark.parametrize("samples", [2, 8])
def test_the_clock_ends_a_run_within_an_epoch(tiny_data: Path, tmp_path: Path, samples: int) -> None:
    """When the time is up after a step, also after the last one, all of it is saved, and the end is no error."""
    plan = tiny_plan(tiny_data, tmp_path / "run", batch_size=2)
    run, _ = prepare(plan)
    step = make_idle(run)

    def pass_time(*_: Any) -> None:
        if run.state.progress.samples + 2 == samples:
            run.clock.stopping.deadline = PASSED

    step.register_forward_hook(pass_time)
    disk = run.saver.write = Disk()
    outcome = carry_out(run, plan, None)
    (name, saved) = disk.written[-1]

    assert outcome.stop is not None
    assert outcome.stop.exit_code == 0
    assert 2 * step.batches == samples
    assert name == "last.pth"
    assert saved.training is not None
    assert (saved.epoch, saved.training.progress.samples) == (0, samples)


def test_a_run_that_has_no_time_makes_no_step(tiny_data: Path, tmp_path: Path) -> None:
    """What is left after an epoch, or at the start, has to do for a step and all that follows."""
    plan = tiny_plan(tiny_data, tmp_path / "run")
    run, _ = prepare(plan)
    step = make_idle(run)
    run.saver.write = Disk()
    run.clock.stopping.deadline = PASSED

    assert carry_out(run, plan, None).stop is not None
    assert step.batches == 0


def test_stopped_at_the_end(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """A run stopped after its last epoch, before the scores, does not speak of an epoch that it does not have."""
    source = {"resume_from": str(plain_run.last)}
    plan = tiny_plan(tiny_data, tmp_path / "run", **source)
    run, checkpoint = prepare(plan)
    run.clock.stopping.deadline = PASSED
    outcome = carry_out(run, plan, checkpoint)

    assert outcome.stop is not None
    assert outcome.results is None
    assert outcome.epochs == 2
    assert not run.folder.results.exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_dropout_depends_on_place_and_rank(tiny_data: Path, tmp_path: Path, rank: int) -> None:
    """Each batch of each rank draws numbers of its own, which a resumed run draws again."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1, use_ema=False)
    step = make_idle(run)
    run.state.progress.samples = 4
    run.world = World(rank=rank)  # of a single process: collectives have no partner
    seeds: list[int] = []
    step.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
    images, masks = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    steps_module.backward(run, images, masks, 3, 2, share=1.0)
    seed_step(run.config.train.seed, 3, 4, rank)

    assert seeds == [torch.initial_seed()]


def test_training_images_that_cannot_be_read(tmp_path: Path, tiny_data: Path) -> None:
    """An unreadable image ends the run with exit code 3 and the image's name."""
    run = prepare(tiny_plan(tiny_data, tmp_path / "run"))[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    run.data.train[:] = [replace(pair, image=broken) for pair in run.data.train]
    enter_phase(run, run.phases[0])
    with pytest.raises(DataError, match=r"broken\.png") as caught:
        train_epoch(run, run.phases[0], 0)

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
    steps_module.backward(run, images, masks, 1, 3, 1.0)  # the first call of a kernel may wait for its own making
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
        steps_module.backward(run, images, masks, 1, 3, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len(reads) == 1  # the routing of all layers
