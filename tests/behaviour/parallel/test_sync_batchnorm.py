"""Synchronised BatchNorm: several processes normalize as one with all of their images, and change nothing else."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.data.sampling import own_share, ranks_with_samples
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch.start import start
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import place
from camoxpert_cli.parallel.strategy import Ddp
from camoxpert_cli.parallel.sync_batchnorm import synchronise, within_group
from camoxpert_cli.parallel.world import World
from tests.helpers.batch_effects import train_without_dropout
from tests.helpers.gpus_on_cpu import place_on_gpus, run_sync_batchnorm
from tests.helpers.networks import random_images, small_network
from tests.helpers.plain_training import assert_same_training, train_plainly
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_plan, tiny_run

# With timm's BatchNorm that is an activation as well.
ACTIVATING = "test_efficientnet"


def norms_of(network: nn.Module) -> list[nn.Module]:
    return [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]


def are_synchronised(network: nn.Module) -> bool:
    """Whether all BatchNorm layers of `network` are, or none."""
    (kind,) = {isinstance(each, nn.SyncBatchNorm) for each in norms_of(network)}
    return kind


def test_nothing_else_changes() -> None:
    """Keys, values and parameters are what they were, each in its place, and so is the output in eval mode."""
    network = small_network(ACTIVATING).eval()
    before = deepcopy(network)
    parameters = list(network.parameters())
    synchronise(network)

    assert are_synchronised(network)
    assert all(one is other for one, other in zip(parameters, network.parameters(), strict=True))
    pairs = zip(before.state_dict().items(), network.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(value, same) for (name, value), (other, same) in pairs)
    images = random_images(2)
    with torch.no_grad():
        assert torch.equal(network(images).logits, before(images).logits)


def test_activations_stay() -> None:
    """A layer that is BatchNorm and activation in one keeps the activation, and what its BatchNorm was set to."""
    plain = BatchNormAct2d(5, eps=1e-3, momentum=0.3)
    network: Any = nn.Sequential(deepcopy(plain))
    synchronise(network)
    x = torch.randn(4, 5, 3, 3)

    assert torch.equal(network(x), plain(x))  # in training mode; there is no other rank
    assert network(x).min() == 0
    assert (network[0].eps, network[0].momentum) == (1e-3, 0.3)


@pytest.mark.parametrize("keeps", [False, True])
def test_what_rests_keeps_resting(keeps: bool) -> None:
    """Frozen layers, and the backbone's where it keeps its statistics, stay in eval mode in training."""
    network = small_network(ACTIVATING)
    network.keep_backbone_statistics = keeps
    plain = deepcopy(network)
    synchronise(network)
    modes = []
    for stages in (0, 2, 4):
        for each in (network, plain):
            each.set_trainable(stages, deep_heads=True)
            each.train()
        modes.append([norm.training for norm in norms_of(network)])
        assert modes[-1] == [norm.training for norm in norms_of(plain)]

    assert modes[0] != modes[2] or keeps
    assert not all(modes[0])
    assert any(modes[0])


def test_the_ema_and_the_optimizer() -> None:
    """Both work on a synchronised network: the average scores on the CPU, and groups are those of the plain one."""
    network = small_network(ACTIVATING)
    plain = deepcopy(network)
    synchronise(network)
    emas = [Ema(each, 0.9) for each in (network, plain)]
    groups = []
    for each, ema in zip((network, plain), emas, strict=True):
        with torch.no_grad():
            for parameter in each.parameters():
                parameter.mul_(1.1)
        ema.update(each)
        optimizer = build_optimizer(each, weight_decay=0.1, backbone_lr_factor=0.1)
        groups.append([[parameter.shape for parameter in group["params"]] for group in optimizer.param_groups])
    images = random_images(2)

    with torch.no_grad():
        assert torch.equal(*(ema.network(images).logits for ema in emas))
    assert groups[0] == groups[1]


def test_where_it_is_done(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network and EMA of a run of several processes with a GPU each."""
    place_on_gpus(monkeypatch, 2)
    monkeypatch.setattr(World, "all_gather", lambda world, item: [item])
    monkeypatch.setattr(World, "broadcast", lambda world, item: item)
    monkeypatch.setattr(World, "require_all", lambda world: None)
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", sync_batchnorm=True), None, World(0, 2, 0, 2))

    assert run.state.ema is not None
    assert all(are_synchronised(each) for each in (run.state.network, run.strategy.step, run.state.ema.network))


@pytest.mark.parametrize(("processes", "asked"), [(1, True), (2, False)])
def test_where_it_is_not(processes: int, asked: bool) -> None:
    """One process has nothing to synchronise, and several do it where they are asked to."""
    network = small_network(num_experts=2)
    world = World(0, processes, 0, processes)
    Ddp(nn.Identity(), network, [torch.device("cpu")], world, sync_batchnorm=asked)

    assert not are_synchronised(network)


def test_layers_are_left_without_a_group() -> None:
    """Also where a batch ends with an error; a network that is left with one could not be copied."""
    network: Any = nn.Sequential(nn.BatchNorm2d(2))
    synchronise(network)
    group: Any = object()
    inside: list[bool] = []

    def look_and_fail() -> None:
        with within_group(network, group):
            inside.append(network[0].process_group is group)
            raise KeyError

    with pytest.raises(KeyError):
        look_and_fail()

    assert inside == [True]
    assert network[0].process_group is None


def test_data_parallel_is_refused(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process for two GPUs cannot do it; that is told before anything is written."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = {"gpus": 2, "device": "cuda", "strategy": "dp", "sync_batchnorm": True}
    with pytest.raises(UsageError, match="--sync-batchnorm works between processes") as caught:
        prepare(tiny_plan(tiny_data, tmp_path / "run", **settings))

    assert "--strategy ddp" in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_the_cpu_is_refused(tiny_data: Path, tmp_path: Path, processes: int) -> None:
    """Before further processes start or anything is written, with what to type, by train and by resume."""
    with pytest.raises(UsageError, match="--sync-batchnorm needs GPUs, but this run is on the CPU") as caught:
        start(tiny_run(tiny_data, tmp_path / "run", gpus=processes, sync_batchnorm=True))

    assert caught.value.exit_code == 2
    assert caught.value.hint == "--no-sync-batchnorm (with camox resume: --set train.sync_batchnorm=off)"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("gpus", "strategy"), [(1, "single"), (2, "ddp")])
def test_gpus_are_not_refused(monkeypatch: pytest.MonkeyPatch, gpus: int, strategy: str) -> None:
    """One or several, a process for each."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    assert place(RunConfig(gpus=gpus), sync_batchnorm=True).strategy == strategy


def test_experts_hold_no_batch_norm() -> None:
    """Ranks whose images chose different experts still call the same BatchNorm layers in the same order."""
    network = small_network("test_resnet", 7)

    assert norms_of(network.moe_layers) == []


def _values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _small_network() -> nn.Sequential:
    """A plain BatchNorm, timm's with an activation, and one that is frozen."""
    torch.manual_seed(0)
    frozen = nn.BatchNorm2d(4).eval()
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), frozen, nn.Conv2d(4, 5, 3), BatchNormAct2d(5)]
    return nn.Sequential(*layers).double()


# Images in a batch over three ranks: 2 + 2 + 3, one each for the last two, and one for the last.
BATCHES = (7, 2, 1)


def normalize_in_groups(world: World) -> list[list[Tensor]]:
    """This rank's part of what `_normalize` gives, batch after batch; nothing where it has no image."""
    kernels = run_sync_batchnorm(pytest.MonkeyPatch())
    network = _small_network()
    synchronise(network)
    found = []
    for size in BATCHES:
        own = own_share(size, world.rank, world.size)
        with within_group(network, world.group(ranks_with_samples(size, world.size))):
            found.append(_normalize(network, size, slice(own.start, own.stop)) if own else [])
    del kernels
    return found


def _normalize(network: nn.Module, size: int, own: slice) -> list[Tensor]:
    """Output and gradient of the images, gradients of the weights, and all buffers."""
    x = (_values(size, 3, 8, 8, seed=size) + 2)[own].requires_grad_()
    network.zero_grad()
    y = network(x)
    (y * _values(size, *y.shape[1:], seed=3)[own]).sum().backward()
    assert x.grad is not None
    weights = [each.grad for each in network.parameters() if each.grad is not None]
    return [y.detach(), x.grad, *(each.clone() for each in (*weights, *network.buffers()))]


def test_three_ranks() -> None:
    """Outputs, gradients and statistics are those of one process, also where ranks have no image, to 1e-10.

    Gradients of weights are each rank's own part: their sum over ranks is that of the whole batch.
    """
    ranks = in_ranks(3, normalize_in_groups)
    network = _small_network()
    parameters = len(list(network.parameters()))
    for number, size in enumerate(BATCHES):
        parts = [rank[number] for rank in ranks if rank[number]]
        whole = _normalize(network, size, slice(None))

        assert len(parts) == min(size, 3)
        # Whoever missed a batch does not know its statistics, which those after it are averaged with.
        compared = whole if number == 0 else whole[: 2 + parameters]
        for at, value in enumerate(compared):
            own = [each[at] for each in parts]
            is_sum = 2 <= at < 2 + parameters
            joined = torch.cat(own) if at < 2 else torch.stack(own).sum(dim=0) if is_sum else own[-1]
            torch.testing.assert_close(joined, value, rtol=1e-10, atol=1e-10)


def look_at_groups(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """The ranks that layers look at, for batches of 4, 1 and 4 images; means kept after a step of 3 + 1 images."""
    monkeypatch = pytest.MonkeyPatch()
    place_on_gpus(monkeypatch, world.size)
    settings: dict[str, Any] = {"gpus": world.size, "batch_size": 2, "use_ema": False}
    run, _ = prepare(tiny_plan(data, folder / "sync", sync_batchnorm=True, **settings), None, world)
    groups = []
    for size in (4, 1, 4, 1):
        with run.strategy.batch(size):
            groups.append({_ranks_of(norm) for norm in norms_of(run.state.network)})
    kept = _average(run, 3 if world.is_main else 1, world)
    after = {_ranks_of(norm) for norm in norms_of(run.state.network)}
    return {"groups": groups, "after": after, "made": len(world._groups), "kept": kept}


def _ranks_of(norm: Any) -> tuple[int, ...] | None:
    """Of its process group; None for all, or where this rank is in none."""
    group = norm.process_group
    return None if group is None else tuple(dist.get_process_group_ranks(group))


def _average(run: Run, images: int, world: World) -> set[float]:
    """What running means are after an average over ranks in which each had its own number."""
    run.state.network.train()
    norms: list[Any] = [norm for norm in norms_of(run.state.network) if norm.training]
    for norm in norms:
        norm.running_mean.fill_(world.rank)
    run.strategy.reduce_gradients([], torch.empty(0), images, 4)
    return {value for norm in norms for value in norm.running_mean.tolist()}


def test_groups(tiny_data: Path, tmp_path: Path) -> None:
    """Layers look at all ranks, or at those that have images of a batch, in a group that is made once.

    Of running statistics the last rank's stand, which saw every batch.
    """
    first, second = in_ranks(2, look_at_groups, tiny_data, tmp_path)

    assert first["groups"] == [{None}] * 4  # without an image it does not call them
    assert second["groups"] == [{None}, {(1,)}, {None}, {(1,)}]
    assert first["after"] == second["after"] == {None}
    assert first["made"] == second["made"] == 1
    assert first["kept"] == second["kept"] == {1.0}


def train_on_gpus(world: World, data: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """What `train_plainly` gives, where nothing is dropped."""
    CamoXpert.train = train_without_dropout  # type: ignore[assignment, method-assign]
    return train_plainly(world, data, folder, {**case, "device": "cuda"})


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_are_one(tiny_data: Path, tmp_path: Path) -> None:
    """With torch's own kernels and NCCL, where one GPU has no image of a batch: weights and statistics to 1e-9."""
    case = {"val_fraction": 1 - 5 / TRAINING_IMAGES, "accumulation_steps": 2}
    shared = {**case, "batch_size": 2, "stage2_batch_size": 2, "gpus": 2, "sync_batchnorm": True}
    alone = {**case, "batch_size": 4, "stage2_batch_size": 4}
    first, second = in_ranks(2, train_on_gpus, tiny_data, tmp_path / "two", shared)
    (whole,) = in_ranks(1, train_on_gpus, tiny_data, tmp_path / "one", alone)

    assert_same_training(case, [first, second], whole)
