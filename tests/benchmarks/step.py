"""How long a training step takes beside a plain network and beside a bare loop, and how much memory.

    python -m tests.benchmarks.step [--backbone edgenext_base] [--img-size 320] [--batch-size 4] [--pairs 10]
        [--threads 2] [--device cuda] [--precision fp16]

One process, the whole backbone unfrozen, images in memory, routed to many experts. camox is `engine.train`'s own
loop. The plain network is the reference of the tests, one expert and image at a time, with its plain losses and
torch's AdamW as it comes; the bare loop has camox's network, losses and optimizer and nothing of the engine. First, the
losses and gradients of both networks with the same weights are compared; in float32, ReLUs that rounding flips move the
latter by a thousandth or so (in float64 the tests find them equal to nine digits).

Steps of all three are interleaved; the median of their ratios is what counts. Aims: at least as fast as the plain
network, at least 0.97 times as fast as the bare loop, no more memory than the plain network. Memory is the most that a
process of its own had resident (on a GPU, the most that torch had allocated) in two steps.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.step import combine
from camoxpert_cli.parallel.precision import build_scaler
from camoxpert_cli.parallel.world import World
from tests.benchmarks.loops import (
    RATE,
    arguments,
    bare_steps,
    camox_run,
    camox_steps,
    format_arguments,
    interleaved,
    noise,
    seconds_of,
    settings,
    step_of,
    steps_on,
)
from tests.benchmarks.table import compared, report
from tests.helpers.networks import reference_of, spread_routing, without_dropout
from tests.helpers.reference_network import ReferenceCamoXpert, reference_loss

MEMORY_STEPS = 2  # the first makes the optimizer's moments


def main() -> None:
    parser = arguments(img_size=320, pairs=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--memory-of", choices=("camox", "plain"), help="measure that alone, for the main process")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    resolved = settings(asked, device=asked.device, precision=asked.precision)
    torch.manual_seed(0)
    images, masks = noise(asked.batch_size, asked.img_size)
    with tempfile.TemporaryDirectory() as folder:
        run = camox_run(resolved.config, World(), Path(folder))
        spread_routing(run.state.network, step_of(run).normalize(images.to(run.device)))
        if asked.memory_of:
            loop = (plain_steps if asked.memory_of == "plain" else camox_steps)(run, images, masks)
            del run  # the plain loop needs nothing of it
            print(memory_of(loop))
            return
        computed_with = run.saver.computed_with
        what = f"{format_arguments(asked)}, {computed_with['device']}, {computed_with['precision']}"
        print(what)
        compare(run, images, masks)
        loops = [loop(run, images, masks) for loop in (camox_steps, plain_steps, bare_steps)]
        rates = [[len(images) / seconds for seconds in each] for each in interleaved(loops, asked.pairs, 1)]
    beside_plain, beside_bare = ([(each[0], each[at]) for each in rates] for at in (1, 2))
    report(compared(f"training, {what}", "images/s", beside_plain, "plain network", at_least=1))
    report(compared(f"training, {what}", "images/s", beside_bare, "bare loop", at_least=0.97))
    memory = [(memory_in_process("camox"), memory_in_process("plain"))]
    report(compared(f"memory of training, {what}", "MB", memory, "plain network", at_most=1))


def compare(run: Run, images: Tensor, masks: Tensor) -> None:
    """Say how far losses and gradients of camox's network and the plain one are apart, without dropout."""
    step, reference = deepcopy(step_of(run)), reference_of(run.state.network).to(run.device)
    without_dropout(step)
    without_dropout(reference)
    own = combine(
        step(images.to(run.device), masks.to(run.device)), run.state.network.top_k, len(images), World()
    ).total
    other = plain_loss(run, reference, images, masks)()
    for loss in (own, other):
        torch.autograd.backward(loss)
    apart = size = 0.0
    for one, two in zip(step.network.parameters(), reference.parameters(), strict=True):
        if (one.grad is None) != (two.grad is None):
            raise SystemExit("the two networks do not train the same parameters")
        if one.grad is not None and two.grad is not None:
            apart += (one.grad - two.grad).square().sum().item()
            size += two.grad.square().sum().item()
    print(
        f"loss: camox {own.item():.6f}, plain network {other.item():.6f}; "
        f"their gradients differ by {(apart / size) ** 0.5:.0e} of their norm"
    )


def plain_steps(run: Run, images: Tensor, masks: Tensor) -> Iterator[object]:
    """Steps of the reference network, which begins with the run's weights."""
    reference = reference_of(run.state.network).to(run.device)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=RATE, weight_decay=run.config.train.weight_decay)
    return steps_on(plain_loss(run, reference, images, masks), optimizer, build_scaler(run.dtype, run.device))


def plain_loss(run: Run, reference: ReferenceCamoXpert, images: Tensor, masks: Tensor) -> Callable[[], Tensor]:
    """Computes the loss of the reference network."""
    device, dtype = run.device, run.dtype
    mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in run.state.network.normalization)
    images = images.contiguous()

    def loss() -> Tensor:
        pixels = images.to(device, non_blocking=True) / 255
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            output = reference((pixels - mean) / std)
        return reference_loss(output, masks.to(device, non_blocking=True))["total"]

    return loss


def memory_of(loop: Iterator[object]) -> float:
    """MB at the most, in some steps of this process."""
    seconds_of(loop, MEMORY_STEPS)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    # Not getrusage: its figure begins at what the parent process had.
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(peak) * 1024 / 1e6


def memory_in_process(name: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.step", *sys.argv[1:], "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
