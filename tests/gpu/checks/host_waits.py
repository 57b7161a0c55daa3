"""How often one training step has the host wait for the GPU, and where.

On the CPU, where nothing waits: how often it reads a tensor's value, which is what would wait.
"""

from __future__ import annotations

import itertools
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import camoxpert_cli
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.world import World
from tests.benchmarks.loops import arguments, camox_run, camox_steps, noise, settings
from tests.gpu.report import Report

_WARM_UP = 10  # steps, in which float16 finds its scale
_MOST_WAITS = 2  # for the routing, and for losses and norm
_PACKAGE = Path(camoxpert_cli.__file__).parent
# What makes a number, or an array, of a tensor.
_READS = {
    *(getattr(Tensor, name) for name in ("item", "tolist", "numpy", "cpu", "nonzero")),
    *(getattr(Tensor, f"__{name}__") for name in ("bool", "int", "float", "index")),
}


def check(report: Report) -> None:
    size = ["--img-size", "128"] if report.on_card else ["--backbone", "test_resnet", "--img-size", "64"]
    asked = arguments(img_size=128, pairs=0).parse_args(size)
    for precision in ("fp16", "bf16") if report.on_card else ("fp32",):
        with report.part(precision, seconds=20):
            config = settings(asked, device=report.device, precision=precision, ema=True).config
            run = camox_run(config, World(), report.folder)
            images, masks = noise(asked.batch_size, asked.img_size)
            if report.on_card:
                images, masks = images.pin_memory(), masks.pin_memory()
            steps = camox_steps(run, images, masks)
            with spread(run.state.network):
                for _ in range(_WARM_UP):
                    next(steps)
                with counted_waits() if report.on_card else counted_reads() as places:
                    next(steps)
            report.number(f"{precision}: {'waits' if report.on_card else 'reads'} in a step", places.total())
            for place, count in places.most_common():
                report.number(f"{precision}: {place}", count)
            assert places, "none was seen, so nothing was looked at"
            if report.on_card:
                assert places.total() <= _MOST_WAITS, f"{places.total()} waits in a step, and {_MOST_WAITS} are allowed"


@contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Where torch says that an operation waits for the GPU."""
    places: Counter[str] = Counter()

    def note(message: Warning | str, *rest: Any, **named: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            traceback.print_stack()
            places[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.__dict__["showwarning"] = note  # `catch_warnings` puts the original back
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Where a value is read."""
    places: Counter[str] = Counter()

    class Counting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
            if function in _READS:
                places[_place()] += 1
            return function(*arguments, **(named or {}))

    with Counting():
        yield places


def _place() -> str:
    """The line of camox that led here, and the package's own that it led to, where that is another's."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename not in (__file__, warnings.__file__)]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    named = [ours[-1]] if ours else []
    last = next(itertools.dropwhile(lambda frame: "/torch/" in frame.filename, reversed(frames)))
    named += [last] if last not in named else []
    return " -> ".join(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in named)
