"""A new run that starts with the weights of another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.init_from import initial_weights
from camoxpert_cli.config.schema import ModelConfig
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.train import carry_out, train
from camoxpert_cli.errors import CheckpointError, ConfigError, UsageError
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.launch.resume import resume
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import content_of, write_content
from tests.helpers.compare import differences
from tests.helpers.networks import small_network
from tests.helpers.run_files import events, read_json
from tests.helpers.tiny_data import tiny_plan, tiny_run


def best_of(folder: RunFolder) -> dict[str, Any]:
    return read_checkpoint(folder.best)


def model(path: Path, num_experts: int = 2, backbone: str = "test_resnet") -> ModelConfig:
    return ModelConfig(backbone=backbone, num_experts=num_experts, pretrained=False, init_from=str(path))


def test_never_worse_than_it_began(
    tiny_data: Path, plain_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no epoch beats the weights that the run started with, they are its best, and are scored at its end."""
    found = iter([0.5, 0.2, 0.5])
    monkeypatch.setattr(train_module, "validate", lambda _: Scores({"iou": next(found), "dice": 0.5, "mae": 0.5}))
    outcome = train(tiny_plan(tiny_data, tmp_path / "run", init_from=str(plain_run.best)))
    start, best = best_of(plain_run), best_of(outcome.folder)

    assert outcome.results is not None
    assert (outcome.results["epoch"], best["scores"]) == (0, {"epoch": 0, "iou": 0.5, "dice": 0.5, "mae": 0.5})
    assert [row["iou"] for row in read_json(outcome.folder.history)] == [0.2, 0.5]
    assert differences(start["ema"], best["ema"]) == []


def test_beaten(tiny_data: Path, tmp_path: Path) -> None:
    """The start is an epoch like any other when the best is chosen."""
    path = tmp_path / "start.pth"
    write_content(path, content_of(small_network(num_experts=2)))
    outcome = train(tiny_plan(tiny_data, tmp_path / "run", init_from=str(path)))
    rows = events(outcome.folder, "epoch")

    assert [row["epoch"] for row in rows] == [0, 1, 2]
    best = max(rows, key=lambda row: row["iou"])
    assert (best_of(outcome.folder)["scores"]["epoch"], outcome.epochs) == (best["epoch"], 2)
    assert len(read_json(outcome.folder.history)) == 2


def test_killed_after_the_start(
    tiny_data: Path, plain_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed before its first step resumes from the start, which is not scored again, as if it had not been."""
    settings = {"init_from": str(plain_run.best), "lr": 3.0, "stage2_lr": 3.0}
    whole = train(tiny_plan(tiny_data, tmp_path / "whole", **settings))
    plan = tiny_plan(tiny_data, tmp_path / "cut", **settings)
    run, _ = prepare(plan)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_epochs", lambda _: exit(1))
        with pytest.raises(SystemExit):
            carry_out(run, plan, None)
    resume(tmp_path / "cut", {}, [])
    cut = RunFolder(tmp_path / "cut")

    ignored = {"seconds", "epoch_seconds", "time", "checkpoint_dir"}
    assert len(events(cut, "epoch")) == 3
    assert differences(read_json(whole.folder.history), read_json(cut.history), ignored) == []
    assert differences(best_of(whole.folder), best_of(cut), ignored) == []


def test_ema_weights_of_the_file(plain_run: RunFolder) -> None:
    """They are what the run that wrote it validated."""
    taken = initial_weights(model(plain_run.best))
    content = best_of(plain_run)

    assert taken.new == []
    assert taken.has_backbone
    assert all(torch.equal(value, content["ema"][name]) for name, value in taken.weights.items())
    assert not all(torch.equal(value, content["network"][name]) for name, value in taken.weights.items())


@pytest.mark.parametrize("num_experts", [1, 3])
def test_other_number_of_experts(tmp_path: Path, num_experts: int) -> None:
    """Experts that both have are taken with their rows of the gate; all others keep their initial weights."""
    path, network = tmp_path / "start.pth", small_network(num_experts=num_experts, seed=1)
    write_content(path, content_of(small_network(num_experts=2)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taken = initial_weights(model(path, num_experts))
    taken.load(network)
    stored = read_checkpoint(path)["ema"]
    after = network.state_dict()
    gates = [name for name in after if ".gate." in name]

    for name, value in after.items():
        expected = before[name].clone()
        if name in gates:
            rows = min(num_experts, 2)
            expected[:rows] = stored[name][:rows]
        elif name in stored:
            expected = stored[name]
        assert torch.equal(value, expected), name
    more = {name for name in gates if num_experts == 3} | {name for name in before if ".experts.2." in name}
    assert {*taken.new} == more & {name for name, _ in network.named_parameters()}


def test_architecture_of_the_file(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """A run has the backbone and the experts of the checkpoint it starts with, unless they were typed."""
    resolved = tiny_run(tiny_data, tmp_path / "run", init_from=str(plain_run.best), num_experts=3)
    typed = decide(resolved).config.model
    origins = {**resolved.origins, "model.num_experts": "the preset x", "model.backbone": "the preset x"}
    preset = replace(
        resolved,
        origins=origins,
        config=replace(resolved.config, model=replace(resolved.config.model, backbone="edgenext_base")),
    )
    adopted = decide(preset).config.model

    assert (typed.backbone, typed.num_experts) == ("test_resnet", 3)
    assert (adopted.backbone, adopted.num_experts) == ("test_resnet", 2)


def test_refused(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """Another backbone, a file that is none, and weights from two places."""
    with pytest.raises(CheckpointError, match="does not have the weights of a test_convnext backbone") as error:
        initial_weights(model(plain_run.best, backbone="test_convnext"))
    assert "--backbone test_resnet" in error.value.hint
    (tmp_path / "none.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        tiny_plan(tiny_data, tmp_path / "run", init_from=str(tmp_path / "none.pth"))
    for other in ({"resume_from": str(plain_run.last)}, {"backbone_weights": "x.pth", "pretrained": True}):
        with pytest.raises(ConfigError, match=r"expected null when model.init_from"):
            tiny_run(tiny_data, tmp_path / "run", init_from=str(plain_run.best), **other)
    with pytest.raises(UsageError, match="would be overwritten"):
        tiny_plan(tiny_data, plain_run.path, init_from=str(plain_run.best))
