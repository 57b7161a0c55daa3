"""Machines that are not here, as their readings."""

from __future__ import annotations

from functools import cache
from typing import Any

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.doctor.examine import Examination, judge
from camoxpert_cli.doctor.finding import Finding, Question
from camoxpert_cli.doctor.readings import (
    Driver,
    Gpu,
    GpuTrial,
    Network,
    Peers,
    Readings,
    Space,
    TeamTrial,
    Torch,
)

GIB = 2**30
CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
T4 = Gpu("Tesla T4", 15_828_000_000, (7, 5), 40)
P100 = Gpu("Tesla P100-PCIE-16GB", 17_060_000_000, (6, 0), 56)
H100 = Gpu("NVIDIA H100 80GB HBM3", 85_000_000_000, (9, 0), 132)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def machine(*cards: Gpu, **changes: Any) -> Readings:
    """A machine on which all is well, with these cards; `changes` replace single readings."""
    several = len(cards) > 1
    pairs = len(cards) * (len(cards) - 1)
    values: dict[str, Any] = {
        "driver": Driver("580.159.04", tuple(card.name for card in cards)),
        "torch": Torch("2.10.0+cu130", "13.0", CU130, gpus=cards),
        "imports": dict.fromkeys(("torchvision", "cv2", "timm"), ""),
        "network": Network(31_000_000, 500_000_000, weights_here=False),
        "internet": "https://huggingface.co",
        "cores": 4 * max(1, len(cards)),
        "ram": Space(32 * GIB, 30 * GIB),
        "shared_memory": Space(16 * GIB, 16 * GIB),
        "disk": Space(20 * GIB, 20 * GIB),
        "folder": "/kaggle/working",
        "gpus": tuple(
            GpuTrial(int(0.97 * card.memory), dtype="bfloat16" if card.native_bf16 else "float16") for card in cards
        ),
        "peers": Peers(pairs, pairs) if several else None,
        "data_parallel": TeamTrial(1e-7) if several else None,
        "ddp": TeamTrial(1e-7, 5e9) if several else None,
        "packages": {"torch": "2.10.0", "torchvision": "0.25.0", "opencv-python-headless": "4.14.0.94"},
        **changes,
    }
    return Readings(**values)


@cache
def _asked(preset: str | None) -> Question:
    return Question(preset, resolve(preset or "kaggle-2xT4", {}).config)


def examined(readings: Readings, preset: str | None = None) -> Examination:
    return judge(readings, _asked(preset))


def finding(examination: Examination, name: str) -> Finding:
    (found,) = [each for each in examination.findings if each.name == name]
    return found


def troubles(examination: Examination) -> dict[str, str]:
    """The findings that are not well, by name, with their status."""
    return {each.name: each.status for each in examination.findings if each.status in ("problem", "warning")}
