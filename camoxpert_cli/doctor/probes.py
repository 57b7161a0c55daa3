"""Probes, each run in a separate process: `python -m camoxpert_cli.doctor.probes NAME ARGUMENT...`.

Imports are deferred until a probe needs them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from camoxpert_cli.doctor.readings import StageMemory
from camoxpert_cli.errors import one_line
from camoxpert_cli.launch.run_probe import answer

# Everything that training imports and that another package may have broken.
IMPORTS = ("torchvision", "cv2", "timm", "albumentations", "safetensors", "huggingface_hub")


def torch_build() -> dict[str, Any]:
    """Return the torch build and the GPUs it sees, without running anything on them."""
    import torch

    complaint = ""
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            complaint = one_line(error)
    gpus = []
    for number in range(torch.cuda.device_count() if not complaint else 0):
        card = torch.cuda.get_device_properties(number)
        gpus.append(
            {
                "name": card.name,
                "memory": card.total_memory,
                "capability": [card.major, card.minor],
                "multiprocessors": card.multi_processor_count,
            }
        )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list(),
        "complaint": complaint,
        "gpus": gpus,
    }


def imports() -> dict[str, Any]:
    """Return the error of each package's import, empty if it works; torchvision and OpenCV are also called once."""
    ended = {}
    for name in IMPORTS:
        ended[name] = ""
        try:
            module = importlib.import_module(name)
            if name == "torchvision":
                import torch

                boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
                module.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
            if name == "cv2":
                import numpy as np

                module.imdecode(module.imencode(".png", np.zeros((4, 4), np.uint8))[1], 0)
        except Exception as error:  # a broken package may raise anything
            ended[name] = f"{type(error).__name__}: {one_line(error)}"
    return ended


def network(settings: str) -> dict[str, Any]:
    """Build the network of a config, given as JSON, on the CPU, and return its sizes."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    from camoxpert_cli.checkpoints.format import checkpoint_bytes
    from camoxpert_cli.config.resolve import from_mapping
    from camoxpert_cli.engine.build import build_network

    config = from_mapping(json.loads(settings), "the preset")
    built = build_network(config.model, config.train.seed, weights_follow=True)
    cfg = timm.get_pretrained_cfg(config.model.backbone)
    source = getattr(cfg, "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    return {
        "parameters": sum(parameter.numel() for parameter in built.parameters()),
        "checkpoint": checkpoint_bytes(built, config.train.use_ema),
        "weights_here": source is not None
        and any(isinstance(try_to_load_from_cache(source, name), str) for name in files),
    }


def internet(seconds: str) -> dict[str, Any]:
    """Return whether the host of the pretrained weights can be reached."""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return {"error": "HF_HUB_OFFLINE is set, so nothing is downloaded"}
    try:
        with urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=float(seconds)):
            pass
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        return {"error": f"{host} cannot be reached: {one_line(getattr(error, 'reason', error))}"}
    return {"host": host}


def gpu(device: str) -> dict[str, Any]:
    """Run a kernel and a convolution on one device."""
    from camoxpert_cli.doctor.selftests import try_device

    return asdict(try_device(device))


def peers(numbers: str) -> dict[str, Any]:
    """Copy between all pairs of GPUs, given as comma-separated numbers."""
    from camoxpert_cli.doctor.selftests import try_peers

    return asdict(try_peers([int(each) for each in numbers.split(",")]))


def data_parallel(devices: str) -> dict[str, Any]:
    """Run one training step with DataParallel on comma-separated devices."""
    from camoxpert_cli.doctor.selftests import try_data_parallel

    return asdict(try_data_parallel(devices.split(",")))


def ddp(rank: str, devices: str, store: str) -> dict[str, Any]:
    """Run one rank of a training step with one process per device."""
    from camoxpert_cli.doctor.selftests import try_ddp

    return asdict(try_ddp(int(rank), devices.split(","), store))


def recipe(settings: str, device: str) -> dict[str, Any]:
    """Return the memory that each stage of a config, given as JSON, uses on a device."""
    from camoxpert_cli.config.resolve import from_mapping
    from camoxpert_cli.launch.memory_probe import measure_memory

    peaks = measure_memory(from_mapping(json.loads(settings), "the preset"), device)
    return {"stages": [asdict(StageMemory(each.number, each.batch_size, peak)) for each, peak in peaks.items()]}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each for each in (torch_build, imports, network, internet, gpu, peers, data_parallel, ddp, recipe)
}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # importing it would send a request otherwise
    answer(lambda: PROBES[name](*arguments))
