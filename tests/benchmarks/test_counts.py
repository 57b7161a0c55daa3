"""The counts of a step mean what they say: costs by hand, and the operations of a backward pass by torch's engine."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import counts
from tests.benchmarks.counts import KINDS, counted, table, totals
from tests.benchmarks.parts import PARTS
from tests.helpers.fake_card import CARD, fake_card
from tests.helpers.networks import random_images, small_network
from tests.helpers.python_backward import backward, noting_what_materializes

# torch itself, which asks for it.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


def cost_of(function: Any) -> Counter[str]:
    """Of one call, over all parts."""
    with counted() as counting:
        function()
    return sum(counting.parts.values(), Counter[str]())


def test_a_linear_layer_and_a_norm_by_hand() -> None:
    """Under autocast: three casts to bfloat16, a product, a cast back, a norm and a sum; and back."""
    network = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
    with fake_card():
        network.to(CARD)
        x = torch.randn(2, 4, device=CARD)
        with counted() as counting:
            with torch.autocast("cuda", torch.bfloat16):
                loss = network(x).sum()
            torch.autograd.backward(loss)
    (found,) = counting.parts.values()

    casts = (8 + 32 + 8 + 16) * (4 + 2)  # x, weight, bias, and the product back
    product = 2 * (8 + 32 + 8 + 16)
    norm = 4 * (16 + 8 + 8 + 16 + 2 + 2)  # with the mean and deviation of each row
    total = 4 * (16 + 1)
    assert found["launches forward"] == 4 + 1 + 1 + 1 + 1
    ones = 4  # the gradient of a number, which backward expands to all
    # Reads the gradient, what went in, its statistics and weights; writes three gradients.
    norm_back = 4 * (1 + 16 + 2 + 2 + 8 + 8 + 16 + 8 + 8)
    products_back = 2 * (16 + 8 + 32)  # of the weight alone: nobody asks for that of x
    sum_back = 2 * (16 + 8)  # of the bias
    casts_back = (16 + 32 + 8) * (4 + 2)
    assert found["launches backward"] == 1 + 1 + 1 + 3
    assert found["bytes"] == (casts + product + norm + total + ones + norm_back + products_back + sum_back + casts_back)
    assert (found["casts"], found["fills"], found["waits"]) == (4 + 3, 1, 0)


def test_what_waits() -> None:
    """Reads, sizes that depend on values, copies that block; a list is one read, on the host it is none."""
    with fake_card():
        chosen = torch.randn(4, 3, device=CARD).topk(2, dim=1).indices
        number = torch.randn((), device=CARD)

        waits = [
            cost_of(call)["waits"]
            for call in (
                number.item,
                number.isfinite().any().item,
                lambda: bool(chosen.sum() > 0),
                chosen.tolist,
                chosen.cpu,
                lambda: torch.tensor([1, 2], device=CARD),
                lambda: torch.ones(3).to(CARD),
                lambda: number.new_zeros(3)[torch.arange(3, device=CARD)],
                lambda: torch.ones(3).to(CARD, non_blocking=True),
                torch.ones(3).tolist,
                lambda: torch.zeros(3, device=CARD),
            )
        ]

    assert waits == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]


def test_what_is_read_and_written() -> None:
    """Views move nothing, an expanded tensor what it stores, a selection what comes out, a fill is only written."""
    with fake_card():
        x, row = torch.randn(8, 5, device=CARD), torch.randn(5, device=CARD)
        two = torch.tensor([1, 3], device=CARD)
        found = [
            cost_of(call)
            for call in (
                lambda: x.t().view(5, 4, 2)[1:].detach(),
                lambda: torch.empty(3, device=CARD),
                lambda: x + row.expand(8, 5),
                lambda: x.index_select(0, two),
                lambda: x.index_add_(0, two, x[:2]),
                x.zero_,
                lambda: x.copy_(x.double()),
                lambda: torch._foreach_mul_([x, row], 2.0),
                lambda: x[:0] + 1,
            )
        ]

    assert [(each["launches forward"], each["bytes"] // 4) for each in found] == [
        (0, 0),
        (0, 0),
        (1, 40 + 5 + 40),
        (1, 2 * 10 + 4),
        (1, 2 * 10 + 10 + 4),
        (1, 40),
        (2, (40 + 80) + (80 + 40)),
        (1, 2 * 45),
        (0, 0),
    ]
    assert [each["casts"] for each in found] == [0, 0, 0, 0, 0, 0, 2, 0, 0]
    assert [each["fills"] for each in found] == [0, 0, 0, 0, 0, 1, 0, 0, 0]


class Twice(torch.autograd.Function):
    """A function of one's own with an argument that is no tensor, one of whose results nobody uses."""

    @staticmethod
    def forward(ctx: Any, factor: int, x: Tensor, fixed: Tensor, bare: bool) -> tuple[Tensor, Tensor]:
        ctx.factor, ctx.bare = factor, bare
        if bare:
            ctx.set_materialize_grads(False)
        return factor * x + fixed, 3 * x

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor | None) -> tuple[Tensor | None, ...]:
        assert (second is None) == ctx.bare
        return None, ctx.factor * first + (0 if second is None else second), None, None


class Names(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_the_backward_pass_in_python_is_that_of_torch() -> None:
    """The same gradients and the same operations: camox's network, and what it may use one day."""
    found = []
    for pass_ in (torch.autograd.backward, backward):
        network = small_network().train()
        images = random_images(4)
        torch.manual_seed(0)
        output = network(images)
        with noting_what_materializes():
            used, _ = Twice.apply(2, output.logits, torch.ones(()), False)
            used, _ = Twice.apply(2, used, torch.ones(()), True)
        unused = network.final_conv.get_parameter("0.weight")  # a parameter's second use
        loss = (
            used.square().mean()
            + sum(each.mean() for each in output.deep_logits)
            + unused.expand(2, -1, -1, -1, -1).sum()
        )
        names = Names()
        with names:
            pass_(loss)
        found.append((names.seen, {name: each.grad for name, each in network.named_parameters()}))

    (seen, gradients), (own_seen, own_gradients) = found
    # The engine adds in place what it alone has.
    assert seen.pop("aten.add_.Tensor", 0) + seen.pop("aten.add.Tensor") == own_seen.pop("aten.add.Tensor")
    assert own_seen == seen
    for name, each in gradients.items():
        own = own_gradients[name]
        if each is None or own is None:
            assert own is each is None, name
        else:
            assert torch.equal(own, each), name


def test_values_follow_the_choice_of_experts() -> None:
    """Counts, order and lists of what topk chose are those of a spread routing; what no one can know is not made up."""
    with fake_card():
        logits = torch.randn(4, 7, device=CARD)
        chosen = logits.topk(3, dim=1).indices
        counts_ = (chosen.reshape(-1, 1) == torch.arange(7, device=CARD)).sum(dim=0)

        assert chosen.tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 1], [2, 3, 4]]
        assert torch.stack([counts_, counts_]).tolist() == [[2, 2, 2, 2, 2, 1, 1]] * 2
        assert chosen.flatten().argsort(stable=True).div(3, rounding_mode="floor").tolist()[:4] == [0, 2, 0, 2]
        assert logits.sum().item() == 0
        with pytest.raises(ValueError, match=r"the host reads a value of torch\.int64 that depends on data"):
            (logits > 0).sum().item()


def test_the_table_has_every_part_of_a_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line; each part does something, and the sums are those of the parts."""
    size = "--backbone test_resnet --img-size 64 --batch-size 3 --num-experts 3 --precision fp16"
    monkeypatch.setattr(sys, "argv", ["counts", *size.split(), "--no-plain", "--operations", "experts"])
    counts.main()

    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| ")}
    assert list(cells) == ["camox", *PARTS, "all"]
    for part in PARTS:
        assert int(cells[part][0]) > 0, part
    assert int(cells["experts"][1]) > 0
    assert int(cells["gates and routing"][1]) > 0
    for at in (0, 1, 3, 4, 5):
        assert sum(int(cells[part][at]) for part in PARTS) == int(cells["all"][at])
    assert any("backward aten.convolution_backward.default" in line for line in lines)


def test_totals_and_columns() -> None:
    """A part that one column lacks counts as nothing there."""
    one = {"experts": dict(zip(KINDS, (1, 2, 3 * 10**9, 4, 5, 6), strict=True))}
    other = {"EMA": dict(zip(KINDS, (10, 20, 10**9, 40, 50, 60), strict=True)), **one}

    assert totals(other)["launches"] == 33
    assert table({"camox": one, "before": other}).splitlines()[2:] == [
        "| experts | 1 / 1 | 2 / 2 | 3.00 GB / 3.00 GB | 4 / 4 | 5 / 5 | 6 / 6 |",
        "| EMA | 0 / 10 | 0 / 20 | 0.00 GB / 1.00 GB | 0 / 40 | 0 / 50 | 0 / 60 |",
        "| all | 1 / 11 | 2 / 22 | 3.00 GB / 4.00 GB | 4 / 44 | 5 / 55 | 6 / 66 |",
    ]
