"""The flags of `camox train`: the original program's command line must keep its meaning."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import SETTINGS

DOCUMENT_COMMAND = """
train
    --dataset-path /kaggle/input/cod10k-dataset/COD10K-v3
    --checkpoint-dir /kaggle/working/checkpoints_2gpu
    --backbone edgenext_base
    --num-experts 7
    --batch-size 16
    --stage2-batch-size 12
    --img-size 320
    --epochs 140
    --stage1-epochs 30
    --lr 0.00065
    --stage2-lr 0.00015
    --scheduler cosine
    --min-lr 0.00001
    --warmup-epochs 10
    --progressive-unfreeze
    --deep-supervision
    --num-workers 16
"""


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[Resolved]:
    """What reaches the engine, in place of a training run."""
    seen: list[Resolved] = []
    monkeypatch.setattr("camoxpert_cli.launch.start.start", lambda resolved, **_: seen.append(resolved))
    monkeypatch.setattr("camoxpert_cli.commands.training_outcome.finish", lambda *_, **__: None)
    return seen


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_documents_command_means_the_same(resolved: list[Resolved]) -> None:
    """Option 2 of the user's document, word for word behind the program's name, sets what it names."""
    outcome = run(*DOCUMENT_COMMAND.split())

    assert outcome.exit_code == 0, outcome.output
    config = resolved[0].config
    assert config.data.dataset_path == ("/kaggle/input/cod10k-dataset/COD10K-v3",)
    assert config.data.img_size == 320
    assert config.data.num_workers == 16
    assert config.run.checkpoint_dir == "/kaggle/working/checkpoints_2gpu"
    assert (config.model.backbone, config.model.num_experts) == ("edgenext_base", 7)
    assert config.model.deep_supervision
    train = config.train
    assert (train.batch_size, config.stage2_batch_size) == (16, 12)
    assert (train.epochs, train.stage1_epochs, train.warmup_epochs) == (140, 30, 10)
    assert (train.lr, config.stage2_rate, train.min_lr) == (6.5e-4, 1.5e-4, 1e-5)
    assert train.scheduler == "cosine"
    assert train.progressive_unfreeze
    # The document's global batches (32 = 16 x 2) leave no room for accumulation.
    assert train.accumulation_steps == 1


def test_the_originals_other_flags_parse(resolved: list[Resolved]) -> None:
    """Every remaining option of the original program is there under its old name."""
    outcome = run(
        *"train --dataset-path D --accumulation-steps 4 --weight-decay 1e-4 --gradient-checkpointing --use-ema".split(),
        *"--ema-decay 0.999 --device cuda --num-workers 4 --seed 42 --resume-from x.pth --skip-stage1".split(),
        *"--scheduler cosine_restart --t-mult 2 --min-lr 1e-6".split(),
    )

    assert outcome.exit_code == 0, outcome.output
    config = resolved[0].config
    assert config.train.accumulation_steps == 4
    assert config.model.gradient_checkpointing
    assert config.train.use_ema
    assert config.run.resume_from == "x.pth"
    assert config.train.skip_stage1
    assert config.train.scheduler == "cosine_restart"


def test_every_switch_can_be_turned_off(resolved: list[Resolved]) -> None:
    """`--no-...` turns a switch off, and not giving it leaves the default."""
    switches = [setting for setting in SETTINGS.values() if setting.type is bool]
    off = run("train", *(f"--no-{switch.flag[2:]}" for switch in switches))
    on = run("train", *(switch.flag for switch in switches))
    neither = run("train")

    assert (off.exit_code, on.exit_code, neither.exit_code) == (0, 0, 0)
    for switch in switches:
        values = [getattr(getattr(each.config, switch.section), switch.name) for each in resolved]
        assert values == [False, True, switch.default], switch.flag


def test_repeated_data_sets_and_assignments_add_up(resolved: list[Resolved]) -> None:
    """`--dataset-path` and `--set` may be repeated; `--set` wins over a flag."""
    outcome = run(*"train --dataset-path A --dataset-path B --lr 0.1 --set train.lr=0.2 --set train.epochs=31".split())

    assert outcome.exit_code == 0, outcome.output
    config = resolved[0].config
    assert config.data.dataset_path == ("A", "B")
    assert (config.train.lr, config.train.epochs) == (0.2, 31)


def test_help_names_every_setting_with_its_default() -> None:
    """The help of `train` is complete, and says where a default is not the original program's."""
    text = " ".join(run("train", "--help").output.split())

    assert all(setting.flag in text for setting in SETTINGS.values())
    assert "[default: 320; original CamoXpert: 384]" in text
    assert "--no-use-ema" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("train --set train.epoch=3", "did you mean train.epochs?"),
        ("train --epochs 5 --stage1-epochs 9", "train.stage1_epochs is 9"),
        ("train --lr abc --img-size 7", "--lr is 'abc'"),
        ("train --preset kagle-2xT4", "did you mean kaggle-2xT4?"),
        ("train --nonsense", "Error: unknown option '--nonsense'"),
        ("work", "unknown command 'work'"),
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("worl", "unknown command 'worl'\n"),
    ],
)
def test_a_slip_of_the_fingers_is_one_sentence(arguments: str, expected: str) -> None:
    """Wrong words on the command line exit with 2, say what was meant, and show no traceback."""
    outcome = run(*arguments.split())

    assert outcome.exit_code == 2
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.output
    assert isinstance(outcome.exception, SystemExit)
