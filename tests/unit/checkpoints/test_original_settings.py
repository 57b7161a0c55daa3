from __future__ import annotations

from camoxpert_cli.checkpoints.original_settings import settings_of_original
from camoxpert_cli.config.resolve import from_mapping

ARGS = {
    "command": "train",
    "dataset_path": "/data/COD10K-v3",
    "checkpoint_dir": "/old/run",
    "backbone": "edgenext_small",
    "num_experts": 5,
    "batch_size": 16,
    "accumulation_steps": 2,
    "img_size": 288,
    "epochs": 100,
    "stage1_epochs": 20,
    "lr": 0.0005,
    "use_ema": True,
    "device": "cuda",
    "num_workers": 24,
    "stage2_batch_size": None,
    "resume_from": "/old/best_model.pth",
    "skip_stage1": True,
    "use_ddp": False,
}


def test_settings_of_the_original_program() -> None:
    """Its options have the names they have here; where it trained, and what we have no setting for, is left out."""
    config = from_mapping(settings_of_original(ARGS), "original.pth")

    assert (config.model.backbone, config.model.num_experts, config.data.img_size) == ("edgenext_small", 5, 288)
    assert (config.train.epochs, config.train.stage1_epochs, config.train.lr) == (100, 20, 5e-4)
    assert (config.train.batch_size, config.train.accumulation_steps) == (16, 2)
    assert config.data.dataset_path == ("/data/COD10K-v3",)
    assert (config.data.num_workers, config.run.device, config.run.checkpoint_dir) == ("auto", "auto", None)
    assert (config.run.resume_from, config.train.skip_stage1) == (None, False)


def test_full_precision() -> None:
    """Its `--no-amp` is our precision fp32."""
    assert settings_of_original({"no_amp": True}) == {"train": {"precision": "fp32"}}
    assert settings_of_original({"no_amp": False}) == {}
