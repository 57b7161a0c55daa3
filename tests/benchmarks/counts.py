"""How many operations a training step gives to the GPU, how many bytes they move, and how often the host waits.

    python -m tests.benchmarks.counts [--backbone edgenext_base] [--img-size 320] [--batch-size 12] [--num-experts 7]
        [--precision bf16] [--json FILE] [--operations PART]

Needs no GPU: tensors have no data, only shapes (`tests.helpers.fake_card`), and autocast does as on a card. What counts
as a launch, a byte, a cast, a fill and a wait: `tests.benchmarks.operations`; to which part of the step it belongs:
`tests.benchmarks.parts`. camox is `engine.train`'s own step with EMA, on one GPU, its images routed evenly; the plain
network is the reference of the tests with its plain losses and torch's AdamW. `counts_before.json` has the figures of
commit 77098bd at the defaults, from this script in a checkout of it; other arguments are compared with nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from camoxpert_cli.engine.build import build_network
from camoxpert_cli.engine.run import Run
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.parallel.precision import build_scaler
from camoxpert_cli.parallel.world import World
from tests.benchmarks import loops
from tests.benchmarks.loops import RATE, arguments, camox_run, camox_steps, noise, settings, steps_on
from tests.benchmarks.operations import costs
from tests.benchmarks.parts import PARTS, Tagging, calling_part, part_of_node
from tests.benchmarks.step import plain_loss
from tests.benchmarks.table import compared, report
from tests.helpers.fake_card import CARD, fake_card
from tests.helpers.python_backward import node_at_work
from tests.helpers.reference_network import ReferenceCamoXpert

BEFORE_COMMIT = "77098bd"
BEFORE = Path(__file__).with_name("counts_before.json")
KINDS = ("launches forward", "launches backward", "bytes", "casts", "fills", "waits")
_WARM_UP = 2  # steps; the first makes the optimizer's moments
# The share of the figures before that is wanted; two waits of seven.
_AIMS = {"launches": 0.6, "bytes": 0.7, "waits": 2 / 7}

# Of each part, how many of each kind.
Counts: TypeAlias = dict[str, dict[str, int]]


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operations of a step cost, by part; `operations` has them by part, name and direction."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.operations: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = costs(func, args, kwargs or {}, result)
        if found:
            node = node_at_work()
            part = calling_part() if node is None else part_of_node(node)
            direction = "forward" if node is None else "backward"
            found[f"launches {direction}"] = found.pop("launches", 0)
            self.parts[part] += found
            self.operations[part, f"{direction} {func}"] += found
        return result


@contextmanager
def counted() -> Iterator[Counting]:
    """Counts operations inside; autograd's graph has to be made inside as well."""
    counting = Counting()
    with Tagging(), counting:
        yield counting


def main() -> None:
    parser = arguments(img_size=320, pairs=0)
    parser.set_defaults(batch_size=12)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16", "fp32"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write camox's figures as well")
    parser.add_argument("--operations", choices=PARTS, metavar="PART", help="list the operations of a part of camox")
    parser.add_argument("--no-plain", action="store_true", help="without the plain network, in half the time")
    asked = parser.parse_args()
    what = f"{loops.format_arguments(asked)}, {asked.precision}"
    with a_run(asked) as run:
        ours = of_camox(run, asked)
        plain = None if asked.no_plain else of_plain(run, asked)
    if asked.json:
        asked.json.write_text(json.dumps({what: by_part(ours)}, indent=1) + "\n", encoding="utf-8")
    before: Counts | None = json.loads(BEFORE.read_text(encoding="utf-8")).get(what) if BEFORE.exists() else None
    beside = {"plain": by_part(plain)} if plain is not None else {}
    beside |= {"before": before} if before is not None else {}
    print(f"{what}\n\n{table({'camox': by_part(ours), **beside})}")
    if asked.operations:
        print(f"\n{operations(ours, asked.operations)}")
    rows(what, totals(by_part(ours)), {name: totals(counts) for name, counts in beside.items()})


@contextmanager
def a_run(asked: Any) -> Iterator[Run]:
    """A run on the card that is not there."""
    config = settings(asked, ema=True, device="cuda", precision=asked.precision).config
    network = build_network(config.model, config.train.seed, weights_follow=True)
    for module in network.modules():
        for name, value in vars(module).items():
            # What a layer caches on the CPU would be copied among tensors without data.
            if isinstance(value, dict) and name not in ("_parameters", "_buffers"):
                for key in [key for key, each in value.items() if isinstance(each, Tensor)]:
                    del value[key]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch.object(loops, "build_network", lambda *_, **__: network))
        stack.enter_context(patch.object(loops, "place", lambda *_: Placement("single", (CARD,), 1)))
        stack.enter_context(fake_card())
        yield camox_run(config, World(), Path(folder))


def of_camox(run: Run, asked: Any) -> Counting:
    images, masks = noise(asked.batch_size, asked.img_size)
    return one_step(camox_steps(run, images, masks))


def of_plain(run: Run, asked: Any) -> Counting:
    images, masks = noise(asked.batch_size, asked.img_size)
    with unset_fake_temporarily():
        reference = ReferenceCamoXpert(asked.backbone, asked.num_experts).train()
    reference.to(CARD)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=RATE, weight_decay=run.config.train.weight_decay)
    scaler = build_scaler(run.dtype, run.device)
    return one_step(steps_on(plain_loss(run, reference, images, masks), optimizer, scaler))


def one_step(steps: Iterator[object]) -> Counting:
    for _ in range(_WARM_UP):
        next(steps)
    with counted() as counting:
        next(steps)
    return counting


def by_part(counting: Counting) -> Counts:
    return {part: {kind: counting.parts[part][kind] for kind in KINDS} for part in PARTS if part in counting.parts}


def totals(counts: Counts) -> dict[str, int]:
    """Over all parts, with launches of both directions together."""
    added = {kind: sum(each.get(kind, 0) for each in counts.values()) for kind in KINDS}
    return {"launches": added["launches forward"] + added["launches backward"], **added}


def table(columns: dict[str, Counts]) -> str:
    """By part, the figures of all columns side by side, in Markdown."""
    head = [f"| {' / '.join(columns)} | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    found = [part for part in PARTS if any(part in counts for counts in columns.values())]
    lines = [_line(part, [counts.get(part, {}) for counts in columns.values()]) for part in found]
    return "\n".join([*head, *lines, _line("all", [totals(counts) for counts in columns.values()])])


def _line(title: str, columns: list[dict[str, int]]) -> str:
    cells = (" / ".join(_amount(kind, each.get(kind, 0)) for each in columns) for kind in KINDS)
    return f"| {title} | {' | '.join(cells)} |"


def _amount(kind: str, value: int) -> str:
    return f"{value / 1e9:.2f} GB" if kind == "bytes" else str(value)


def operations(counting: Counting, part: str) -> str:
    """The operations of a part, those that move most first."""
    found = [(name, costs) for (own, name), costs in counting.operations.items() if own == part]
    lines = ["launches      MB  operation"]
    for name, each in sorted(found, key=lambda row: row[1]["bytes"], reverse=True):
        launches = each["launches forward"] + each["launches backward"]
        lines.append(f"{launches:8} {each['bytes'] / 1e6:7.0f}  {name}")
    return "\n".join(lines)


def rows(what: str, ours: dict[str, int], beside: dict[str, dict[str, int]]) -> None:
    """Hand the totals to the table of all benchmarks."""
    for kind in ("launches", "bytes", "casts", "fills", "waits"):
        scale, unit = (1e9, "GB") if kind == "bytes" else (1, kind)
        for name, others in beside.items():
            against, aim = ("plain network", None) if name == "plain" else (f"at {BEFORE_COMMIT}", _AIMS.get(kind))
            pair = [(ours[kind] / scale, others[kind] / scale)]
            report(compared(f"{kind} of a step, {what}", unit, pair, against, at_most=aim))


if __name__ == "__main__":
    main()
