"""Training with images that show no object."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.engine.train import begin, train_epochs
from camoxpert_cli.errors import CheckpointError
from tests.behaviour.test_ranks import BRIEF, ranks_and_one
from tests.helpers.cut_runs import SETTINGS, differing, epochs_logged, history
from tests.helpers.cut_runs import steps as steps_made
from tests.helpers.textures import write_negatives
from tests.helpers.tiny_data import tiny_plan
from tests.helpers.training_steps import bytes_of, step_of
from tests.helpers.whole_batch import combine


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_negatives(tmp_path_factory.mktemp("negatives") / "sea", 7)


def prepared(data: Path, folder: Path, sea: Path, **settings: Any) -> Run:
    """A run of three epochs, each of 8 images with an object and 4 of the 5 that are without and not held out."""
    chosen = {**SETTINGS, "epochs": 3, "stage1_epochs": 1, "negatives": [str(sea)], "negatives_share": 1 / 3}
    run, checkpoint = prepare(tiny_plan(data, folder, **{**chosen, **settings}))
    begin(run, run.config, checkpoint)
    return run


@pytest.mark.parametrize(("epoch", "samples"), [(0, 4), (1, 6)])
def test_cut_within_an_epoch(
    tiny_data: Path, sea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, samples: int
) -> None:
    """A run that is cut within an epoch and resumed ends with the bits of one that is not."""
    uncut = prepared(tiny_data, tmp_path / "uncut", sea)
    assert train_epochs(uncut) is None
    cut = prepared(tiny_data, tmp_path / "cut", sea)
    record = train_module.record_step

    def stop(run: Run, *arguments: Any) -> None:
        record(run, *arguments)
        if (run.state.progress.epoch, run.state.progress.samples) == (epoch, samples):
            run.saver.save_last()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "record_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_epochs(cut)
    resumed = prepared(tiny_data, tmp_path / "cut", sea, resume_from=str(tmp_path / "cut" / "last.pth"))
    assert (resumed.state.progress.epoch, resumed.state.progress.samples) == (epoch, samples)
    assert train_epochs(resumed) is None

    assert differing(tmp_path / "cut", tmp_path / "uncut") == []
    assert all(0 <= row["false_alarms"] <= 1 and 0 <= row["predicted_area"] <= 1 for row in history(tmp_path / "cut"))
    assert len(epochs_logged(tmp_path / "cut")) == 3


def test_what_batches_contain(tiny_data: Path, sea: Path, tmp_path: Path) -> None:
    """Each step of 6 has 4 images with an object and 2 without; over the epochs all of these are used."""
    run = prepared(tiny_data, tmp_path / "run", sea, stage1_epochs=0, stage2_batch_size=3)
    seen: list[list[bool]] = []
    step = run.strategy.step
    handle = step.register_forward_pre_hook(lambda _, given: seen.append(given[1].flatten(1).any(1).tolist()))
    assert train_epochs(run) is None
    handle.remove()

    found = [first + second for first, second in zip(seen[::2], seen[1::2], strict=True)]
    assert [Counter(each) for each in found] == [Counter({True: 4, False: 2})] * 6
    assert steps_made(run.folder.path) == [(epoch, samples) for epoch in (1, 2, 3) for samples in (6, 12)]


def test_ranks(tiny_data: Path, sea: Path, tmp_path: Path) -> None:
    """Two ranks, one of which only gets images without an object, train as one process does; so do mixed batches."""
    alone = {**BRIEF, "negatives": [str(sea)], "negatives_share": 0.5}
    ranks_and_one(tiny_data, tmp_path, [(2, 5, 1, 1), (2, 5, 2, 2)], alone)


def test_another_share_is_another_order(tiny_data: Path, sea: Path, tmp_path: Path) -> None:
    """Within an epoch, a run does not go on with other images without an object, nor with another number of them."""
    run = prepared(tiny_data, tmp_path / "run", sea, epochs=1, warmup_epochs=0)
    assert train_epochs(run) is None
    last = str(tmp_path / "run" / "last.pth")
    changes: list[dict[str, Any]] = [{"negatives_share": 0.2}, {"negatives": []}]
    for change in changes:
        with pytest.raises(CheckpointError, match="was trained on different images"):
            prepared(tiny_data, tmp_path / "run", sea, epochs=2, resume_from=last, **change)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", [0.0, 60.0, -60.0])
def test_nothing_but_negatives(dtype: torch.dtype | None, shift: float) -> None:
    """The loss of a batch without any object is finite, and so is its gradient, in half precision too.

    Also for a network that is certain: of an object everywhere, or of none.
    """
    step = step_of(3, dtype=dtype).train()
    last = step.network.final_conv[-1]
    assert isinstance(last.bias, Tensor)
    with torch.no_grad():
        last.bias.fill_(shift)
    images, masks = bytes_of(3)
    losses = combine(step(images, torch.zeros_like(masks)), step.network.top_k)
    torch.autograd.backward(losses.total)
    gradients = [parameter.grad for parameter in step.parameters() if parameter.grad is not None]

    assert all(loss.isfinite() for loss in losses)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    # Predictions fall, unless there are none.
    assert last.bias.grad is not None
    assert last.bias.grad.item() > 0 or shift == -60
