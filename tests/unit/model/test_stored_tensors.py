from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.stored_tensors import defect, is_averaged, refuse_unusable, some, tensors_in

NAN, INF = float("nan"), float("inf")


def check(name: str, value: Tensor) -> None:
    """As the weight of this name, or the counter, of a network."""
    own = torch.tensor(0) if name.endswith("num_batches_tracked") else torch.zeros(4)
    refuse_unusable({name: value}, {name: own}, "file.pth", "hint")


def refused(name: str, value: Tensor) -> str:
    with pytest.raises(
        CheckpointError, match=r"file\.pth contains values that a network cannot compute with"
    ) as caught:
        check(name, value)
    return caught.value.message


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 1.5, -3e38, NAN, INF, -INF]), min_size=1, max_size=9))
@example([-3e38, -3e38])
def test_numbers_that_are_none(values: list[float]) -> None:
    """One number that is NaN or infinite is refused, with how many there are; finite ones are not, nor is their sum."""
    tensor = torch.tensor(values)
    count = sum(not math.isfinite(value) for value in values)
    if count:
        assert f"1 tensor: a ({count} of {len(values)} NaN or infinite)" in refused("a", tensor)
    else:
        check("a", tensor)


def test_variances_below_zero() -> None:
    """Batch norm takes their root: every output would be NaN."""
    negative = torch.tensor([1.0, -0.5, 0.0, -1e-9])
    assert "a.running_var (2 of 4 below 0)" in refused("a.running_var", negative)

    check("a.running_mean", negative)
    check("a.running_var", negative.abs())


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_formats_of_fractions(dtype: torch.dtype) -> None:
    """Numbers with a fraction are taken in any format."""
    for name in ("a.weight", "a.num_batches_tracked"):
        check(name, torch.ones(4).to(dtype))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_formats_of_others(dtype: torch.dtype) -> None:
    """Whole numbers, bools and complex ones are refused by their format, except for what counts."""
    said = str(dtype).removeprefix("torch.")
    assert f"a.weight ({said})" in refused("a.weight", torch.ones(4, dtype=dtype))
    check("a.num_batches_tracked", torch.tensor(7))


def test_too_large_for_float32() -> None:
    """What only float64 holds would be infinite in the network."""
    assert "1 of 2 NaN" in refused("a.weight", torch.tensor([1e300, 0.0], dtype=torch.float64))


def test_all_are_told() -> None:
    """The message has the count and the first; the details have the others."""
    weights = {f"t{at}": torch.tensor([NAN]) for at in range(30)}
    with pytest.raises(CheckpointError) as caught:
        refuse_unusable(weights, weights, "file.pth", "hint")
    error = caught.value

    assert "30 tensors: t0 (" in error.message
    assert error.message.endswith("...")
    assert len(error.details.splitlines()) == 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.ones(3, device="meta"), "meta"),
        (lambda: torch.zeros(1).expand(10**12), "with more elements than are stored"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.ones(2, 3).t(), ""),
        (lambda: torch.ones(9)[3:5], ""),
        (lambda: torch.zeros(0), ""),
        (lambda: torch.nn.Parameter(torch.ones(3)), ""),
    ],
)
def test_tensors_that_are_no_ordinary_ones(make: Any, said: str) -> None:
    """What has no memory of its own for its numbers is told; views and parameters are as good as any."""
    found = defect(make())

    assert said in found
    assert bool(found) == bool(said)


def test_where_tensors_lie() -> None:
    """In dicts and lists at any depth, in their order, each once."""
    shared = {"x": torch.ones(1)}
    content = {"a": shared, "b": [1, {"c": torch.ones(2)}], 3: {"d": torch.ones(3)}, "again": shared, "text": "x"}

    assert [".".join(keys) for keys, _ in tensors_in(content)] == ["a.x", "b.1.c", "3.d"]


@pytest.mark.parametrize(
    "name", ["ema", "model_ema", "ema_model.module", "netEMA", "teacher", "swa_model", "a.averaged"]
)
def test_names_of_averages(name: str) -> None:
    """Of an exponential moving average and the like."""
    assert is_averaged(name)


@pytest.mark.parametrize("name", ["model", "schema", "student", "cinema.net", "state_dict", "emanuel"])
def test_names_of_others(name: str) -> None:
    """That merely contain the letters."""
    assert not is_averaged(name)


def test_names_in_a_sentence() -> None:
    """Three of them are told, and of a long one its beginning."""
    assert len(some(["x" * 5000] * 5, "tensor")) < 700
    assert some(["a", "b"], "tensor") == "2 tensors: a, b"
