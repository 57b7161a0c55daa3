"""Synchronised BatchNorm: several processes normalise as one with all of their pictures, and change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from camoxpert_cli.data.sampling import own_share, ranks_with_samples
from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.sync_batchnorm import sync_batch_norm, synchronised
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.engine.world import Part, World
from camoxpert_cli.errors import UsageError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.batch_effects import train_without_dropout
from tests.helpers.plain_training import assert_same_training, train_plainly
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import TRAINING_PICTURES, tiny_run
from tests.model.networks import small_network

Norm = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def torchs_own(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3, eps=1e-3)


def over_one_rank(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return sync_batch_norm(x, mean, var, weight, bias, 0.3, 1e-3, Part(0, 1))


def _values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _outcome(norm: Norm, x: Tensor) -> list[Tensor]:
    """Output, gradients and new running statistics."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, var = _values(3, seed=1, dtype=dtype), _values(3, seed=2, dtype=dtype).exp()
    learned = [_values(3, seed=seed, dtype=dtype).requires_grad_() for seed in (3, 4)]
    x = x.clone().requires_grad_()
    y = norm(x, mean, var, *learned)
    torch.autograd.backward((y * _values(*x.shape, seed=5)).sum())
    gradients = [each.grad for each in (x, *learned) if each.grad is not None]
    return [y.detach(), *gradients, mean, var]


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 3), (1, 3, 2, 1), (2, 3, 4)])
def test_one_rank_is_batch_norm(shape: tuple[int, ...]) -> None:
    """Output, all gradients and the running statistics are torch's own, in float64 to 1e-12."""
    x = 2 * _values(*shape) + 5
    own, torchs = _outcome(over_one_rank, x), _outcome(torchs_own, x)

    assert len(own) == len(torchs) == 6
    for ours, theirs in zip(own, torchs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_by_differences() -> None:
    """Gradients are what small changes of the inputs make, also where the layer learns no scale."""
    x = _values(3, 2, 2, 2).requires_grad_()
    learned = [_values(2, seed=seed).requires_grad_() for seed in (1, 2)]

    def norm(x: Tensor, *learned: Tensor) -> Tensor:
        weight, bias = learned or (None, None)
        return sync_batch_norm(x, None, None, weight, bias, 0.1, 1e-5, Part(0, 1))

    assert torch.autograd.gradcheck(norm, (x, *learned))
    assert torch.autograd.gradcheck(norm, (x,))


def test_the_layout_in_memory_stays() -> None:
    """Channels last goes in and comes out, of both passes."""
    x = _values(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    y, gradient = _outcome(over_one_rank, x)[:2]

    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Half precision stays what it is outside; inside statistics and sums are float32.

    Against float64 from the same inputs only the last rounding of half precision is left, 2^-8 of a value's size for
    bfloat16; running statistics are right to float32.
    """
    x = (_values(8, 3, 16, 16) + 3).to(dtype)
    own, exact = _outcome(over_one_rank, x), _outcome(torchs_own, x.double())

    assert [each.dtype for each in own] == [dtype, dtype, *[torch.float32] * 4]
    for ours, theirs in zip(own[:2], exact[:2], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-7, atol=2**-7)
    for ours, theirs in zip(own[4:], exact[4:], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def _small_network() -> nn.Sequential:
    """A plain BatchNorm, timm's with an activation, and one that is frozen."""
    torch.manual_seed(0)
    frozen = nn.BatchNorm2d(4).eval()
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), frozen, nn.Conv2d(4, 5, 3), BatchNormAct2d(5)]
    return nn.Sequential(*layers).double()


def _patched(network: nn.Module) -> list[bool]:
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    return ["forward" in vars(each) for each in norms]


def test_layers_are_left_as_they_were() -> None:
    """Only layers in training change, for the time of a batch, also where that ends with an error; no name changes."""
    network = _small_network()
    names = list(network.state_dict())
    inside: list[bool] = []
    names_inside: list[str] = []

    def look_and_fail() -> None:
        with synchronised(network, Part(0, 2)):
            inside[:] = _patched(network)
            names_inside[:] = list(network.state_dict())
            raise KeyError

    with pytest.raises(KeyError):
        look_and_fail()

    assert inside == [True, False, True]
    assert names_inside == names
    assert _patched(network) == [False] * 3


@pytest.mark.parametrize("part", [None, Part(0, 1)])
def test_alone_nothing_changes(part: Part | None) -> None:
    """A rank without a picture, or with the only ones, is left to torch's own BatchNorm."""
    network = _small_network()
    with synchronised(network, part):
        assert _patched(network) == [False] * 3


def test_one_process_trains_as_without(tiny_data: Path, tmp_path: Path) -> None:
    """The setting is taken, and changes nothing."""
    run, _ = prepare(tiny_run(tiny_data, tmp_path / "run", sync_batchnorm=True))
    with run.synchronised(4):
        run.network.train()
        assert not any(_patched(run.network))


def test_data_parallel_is_refused(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process for two GPUs cannot do it; that is told before anything is written."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = {"gpus": 2, "device": "cuda", "strategy": "dp", "sync_batchnorm": True}
    with pytest.raises(UsageError, match="--sync-batchnorm works between processes") as caught:
        prepare(tiny_run(tiny_data, tmp_path / "run", **settings))

    assert "--strategy ddp" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_experts_hold_no_batch_norm() -> None:
    """Ranks whose pictures chose different experts still call the same BatchNorm layers in the same order."""
    network = small_network("test_resnet", 14)

    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.moe_layers.modules())


# Pictures in a batch over three ranks: 2 + 2 + 3, and one each for the last two.
BATCHES = (7, 2)
# An offset beside which a variance from sums of squares would be lost in float32.
OFFSET = 1e4


def normalise_in_part(world: World) -> dict[str, list[Tensor]]:
    """This rank's part of what `_normalise` gives, batch after batch, and float32 statistics of values with offset."""
    network = _small_network()
    found = []
    for size in BATCHES:
        own = own_share(size, world.rank, world.size)
        part = world.part(ranks_with_samples(size, world.size))
        assert (part is None) == (len(own) == 0)
        with synchronised(network, part):
            found += _normalise(network, size, slice(own.start, own.stop)) if own else []
    x = (_values(world.size, 2, 9, 9) + OFFSET).float()[world.rank : world.rank + 1]
    mean, var = torch.zeros(2), torch.zeros(2)
    sync_batch_norm(x, mean, var, None, None, 1.0, 1e-5, Part(world.rank, world.size))
    return {"found": found, "statistics": [mean, var]}


def _normalise(network: nn.Module, size: int, own: slice) -> list[Tensor]:
    """Output and gradient of the pictures, gradients of the weights, and all buffers."""
    x = (_values(size, 3, 8, 8, seed=size) + 2)[own].requires_grad_()
    network.zero_grad()
    y = network(x)
    (y * _values(size, *y.shape[1:], seed=3)[own]).sum().backward()
    assert x.grad is not None
    weights = [each.grad for name, each in network.named_parameters() if each.grad is not None]
    return [y.detach(), x.grad, *(each.clone() for each in (*weights, *network.buffers()))]


@pytest.mark.training
def test_three_ranks() -> None:
    """Outputs, gradients and statistics are those of one process, also where a rank has no picture, to 1e-10.

    Statistics of values far from zero keep the precision of their number format.
    """
    ranks = in_ranks(3, normalise_in_part)
    network = _small_network()
    expected = [_normalise(network, size, slice(None)) for size in BATCHES]
    count, parameters = len(expected[0]), len(list(network.parameters()))
    parts = [
        [rank["found"][:count] for rank in ranks],
        [rank["found"][count:] for rank in ranks if len(rank["found"]) > count],
    ]
    exact = torch.var_mean((_values(3, 2, 9, 9) + OFFSET).float().double(), dim=(0, 2, 3))

    assert [len(part) for part in parts] == [3, 2]
    for whole, part in zip(expected, parts, strict=True):
        for at, value in enumerate(whole):
            own = [each[at] for each in part]
            is_sum = 2 <= at < 2 + parameters
            joined = torch.cat(own) if at < 2 else torch.stack(own).sum(dim=0) if is_sum else own[0]
            torch.testing.assert_close(joined, value, rtol=1e-10, atol=1e-10)
    for mean, var in (rank["statistics"] for rank in ranks):
        torch.testing.assert_close(var.double(), exact[0], rtol=1e-3, atol=0)
        torch.testing.assert_close(mean.double(), exact[1], rtol=5e-7, atol=0)


def train_with_batch_norm(
    world: World, data: Path, folder: Path, cases: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """For each of `cases` what `train_plainly` gives, where nothing is dropped."""
    CamoXpert.train = train_without_dropout  # type: ignore[assignment, method-assign]
    return [train_plainly(world, data, folder / str(at), case) for at, case in enumerate(cases)]


@pytest.mark.training
def test_two_ranks_are_one_process(tiny_data: Path, tmp_path: Path) -> None:
    """Weights and statistics are those of one process with batches twice as large, through all stages, to 1e-9.

    Without the setting they are far away.
    """
    sizes: list[tuple[int, dict[str, Any]]] = [
        (7, {"accumulation_steps": 2}),  # a step of batches of 2 + 2 and 1 + 2
        (5, {"accumulation_steps": 2, "gradient_checkpointing": True}),  # of 2 + 2 and 0 + 1: none for one rank
    ]
    common = [{"val_fraction": 1 - pictures / TRAINING_PICTURES, **settings} for pictures, settings in sizes]
    shared = [{**each, "batch_size": 2, "stage2_batch_size": 2, "gpus": 2} for each in common]
    alone = [{**each, "batch_size": 4, "stage2_batch_size": 4} for each in common]
    cases = [*({**each, "sync_batchnorm": True} for each in shared), shared[0]]
    first, second = in_ranks(2, train_with_batch_norm, tiny_data, tmp_path / "two", cases)
    (whole,) = in_ranks(1, train_with_batch_norm, tiny_data, tmp_path / "one", alone)
    without = max(abs(first[-1]["states"][-1][name] - value).max() for name, value in whole[0]["states"][-1].items())

    for case, *outcomes in zip(sizes, first[:-1], second[:-1], whole, strict=True):
        assert_same_training(case, *outcomes)
    assert without > 1e-3


def train_really(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """With nothing held still, in steps of 4 + 4 and of 1 picture, then of 6 + 3: what each rank holds at the end."""
    settings: dict[str, Any] = {
        **{"epochs": 3, "stage1_epochs": 1, "num_experts": 7, "gpus": 2, "sync_batchnorm": True},
        **{"val_fraction": 1 - 9 / TRAINING_PICTURES, "batch_size": 2, "stage2_batch_size": 3, "accumulation_steps": 2},
    }
    resolved = tiny_run(data, folder, **settings)
    run, _ = prepare(resolved, None, world)
    begin(run, resolved.config, None)
    names = list(run.network.state_dict())
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            run.progress.samples = 0
    assert run.ema is not None
    assert run.optimizer is not None
    moments = [value for state in run.optimizer.state.values() for value in state.values()]
    return {
        "names": names == list(run.network.state_dict()) == list(run.ema.network.state_dict()),
        "patched": any(_patched(run.network) + _patched(run.ema.network)),
        "held": [*run.network.state_dict().values(), *run.ema.network.state_dict().values(), *moments],
    }


@pytest.mark.training
def test_ranks_stay_the_same_to_the_bit(tiny_data: Path, tmp_path: Path) -> None:
    """Network, average, their statistics and the optimizer; what would be saved has the names it always has."""
    first, second = in_ranks(2, train_really, tiny_data, tmp_path / "run")

    assert len(first["held"]) == len(second["held"]) > 100
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first["held"], second["held"], strict=True))
    for each in (first, second):
        assert each["names"]
        assert not each["patched"]
