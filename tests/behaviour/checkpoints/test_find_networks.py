from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camoxpert_cli.checkpoints.convert import convert_checkpoint
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import fitting_weights
from camoxpert_cli.checkpoints.program_layouts import ema_in, networks_in, outline, weights_of
from camoxpert_cli.errors import CheckpointError
from tests.helpers.checkpoints import refusal, save
from tests.helpers.compare import differences

NAMES = ("net", "params", "weights", "model", "state_dict", "generator", "student", "network2", "a.b")
PREFIXES = ("module.", "_orig_mod.", "net.", "encoder.", "student.", "model.", "network.", "_fsdp_wrapped_module.")
INSIDE = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# What other programs put beside a network's tensors.
BESIDE: dict[str, Any] = {
    "loss.weight": torch.ones(2),
    "criterion.pos_weight": torch.tensor(3.0),
    "teacher.backbone.conv1.weight": torch.ones(2, 2),
    "n_averaged": torch.tensor(7),
    "total_ops": torch.zeros(1),
    "epoch": 3,
}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Of a small network, whose numbers are of no account here."""
    shapes = outline("test_resnet", 2).state_dict()
    return {name: torch.full_like(value, at % 50, device="cpu") for at, (name, value) in enumerate(shapes.items())}


def loaded(content: Mapping[str, Any], ema: bool = False) -> dict[str, Tensor]:
    return fitting_weights(outline("test_resnet", 2), content, Path("file.pth"), ema, tells=False)


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(NAMES), max_size=3),
    st.lists(st.sampled_from(PREFIXES), max_size=3).map("".join),
    st.dictionaries(st.sampled_from(["backbone", "moe_layers", "final_conv"]), st.sampled_from(INSIDE)),
    st.sets(st.sampled_from(sorted(BESIDE))),
    st.booleans(),
    st.booleans(),
)
def test_wherever_it_is(
    state: dict[str, Tensor],
    entries: list[str],
    prefix: str,
    inside: dict[str, str],
    beside: set[str],
    counted: bool,
    divided: bool,
) -> None:
    """In any entry, under any prefix, its parts wrapped, beside whatever else, also without counters: it is loaded."""
    content: dict[str, Any] = {name: BESIDE[name] for name in beside}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if name.endswith("num_batches_tracked") and not counted:
            continue
        if divided and not prefix:
            content.setdefault(first, {})[inside.get(first, "") + rest] = value
        else:
            content[f"{prefix}{first}.{inside.get(first, '')}{rest}"] = value
        if rest.endswith("conv.0.weight"):  # as profilers count, at every level
            content[f"{prefix}{first}.{rest.removesuffix('weight')}total_ops"] = torch.zeros(1)
    for entry in entries:
        content = {entry: content, "optimizer": {"state": {0: torch.ones(3)}}, "step": 7}
    found = loaded(content)

    assert {name for name in found if not name.endswith("num_batches_tracked")} <= state.keys()
    assert found.keys() == state.keys()
    wrong = differences(found, state)
    assert all(not counted and name.endswith("num_batches_tracked") for name in wrong)


@settings(max_examples=25)
@given(st.data())
def test_never_in_part(state: dict[str, Tensor], data: st.DataObject) -> None:
    """With any of its tensors missing, a network is refused, whatever else lies beside it."""
    needed = sorted(name for name in state if not name.endswith("num_batches_tracked"))
    dropped = data.draw(st.sets(st.sampled_from(needed), min_size=1, max_size=5))
    prefix = data.draw(st.sampled_from(["", *PREFIXES]))
    content = {prefix + name: value for name, value in state.items() if name not in dropped}
    with pytest.raises(CheckpointError):
        loaded({"net": {**content, **BESIDE}})


@pytest.mark.parametrize(
    ("network", "ema"),
    [
        ("student", "teacher"),
        ("net", "net_ema"),
        ("state_dict", "state_dict_ema"),
        ("model", "ema_model"),
        ("m", "mEMA"),
    ],
)
def test_an_average_says_what_it_is(state: dict[str, Tensor], network: str, ema: str) -> None:
    """Of two networks, the one that is called so is the average: in entries of their own, and in one dict."""
    averaged = {name: value + 1 for name, value in state.items()}
    apart = {network: state, ema: averaged, "epoch": 3}
    together = {f"{network}.{name}": value for name, value in state.items()}
    together |= {f"{ema}.module.{name}": value for name, value in averaged.items()} | {
        f"{ema}.n_averaged": torch.ones(1)
    }

    for content in (apart, together, {"state": together}):
        assert differences(loaded(content), state) == []
        assert differences(loaded(content, ema=True), averaged) == []
        assert networks_in(content).others == ()


def test_which_is_meant(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Two networks of which neither is called an average are told, and convert-ckpt takes the one that is named."""
    other = {name: value + 1 for name, value in state.items()}
    path = save({"first": state, "second": {"net": other}}, tmp_path)
    error = refusal(path)

    assert "contains 2 networks, and it is unclear which one to use: first, second.net" in error.message
    assert "camox convert-ckpt FILE NEW.pth --entry first" in error.hint
    convert_checkpoint(path, tmp_path / "out.pth", entry="second.net")
    assert differences(weights_of(read_checkpoint(tmp_path / "out.pth"), ema=False), other) == []
    with pytest.raises(CheckpointError, match="contains no network at --entry third") as caught:
        convert_checkpoint(path, tmp_path / "out.pth", entry="third", overwrite=True)
    assert caught.value.hint == "entries with a network: first, second.net"


def test_the_file_itself_is_meant(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A network that is in no entry, and one whose name a shell would divide, are named as `--entry` takes them."""
    for content in ({**state, "second": state}, {"my net": state, "second": {**state}}):
        path = save(content, tmp_path)
        *_, entry = shlex.split(refusal(path).hint)
        convert_checkpoint(path, tmp_path / "out.pth", entry=entry, overwrite=True)


def test_a_part_is_no_second_network(state: dict[str, Tensor]) -> None:
    """Moments under the parameters' names, and a dict with some of the network's tensors, are not taken for it."""
    part = {name: value for name, value in state.items() if name.startswith("moe_layers")}
    moments = {f"{name}.exp_avg": value for name, value in state.items()}
    content = {"net": state, "slow": part, "optimizer": {"state": moments, "first": dict(state)}}

    assert differences(loaded(content), state) == []


def test_an_average_that_is_not_whole(state: dict[str, Tensor]) -> None:
    """The weights themselves never take the place of what an average lacks."""
    averaged = dict(state)
    del averaged["final_conv.3.bias"]
    with pytest.raises(CheckpointError, match=r"are incomplete: missing 1 tensor: final_conv\.3\.bias"):
        loaded({"net": state, "ema": averaged}, ema=True)


@pytest.mark.parametrize("ema", [3, "text", [], {"a": 1}])
def test_an_average_that_is_none(state: dict[str, Tensor], ema: Any) -> None:
    """In camox's own format, what lies in the average's place and is none is told."""
    with pytest.raises(CheckpointError, match=r"ema is .*, expected a state dict"):
        ema_in({"network": state, "ema": ema})


def test_one_note_about_the_rest(tmp_path: Path, state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is counted and named, once."""
    content = {f"net.{name}": value for name, value in state.items()}
    content |= {"loss.weight": torch.ones(2), "net.backbone.total_ops": torch.zeros(1)}
    fitting_weights(outline("test_resnet", 2), content, tmp_path / "a.pth", ema=False)

    assert capsys.readouterr().err.count("a.pth contains more than the network") == 1
    fitting_weights(outline("test_resnet", 2), content, tmp_path / "a.pth", ema=False)
    assert (
        "contains more than the network; ignored 2 tensors: loss.weight, backbone.total_ops" in capsys.readouterr().err
    )


def test_what_a_file_holds_instead(tmp_path: Path) -> None:
    """A file without the network is described: entries, how many tensors are in each, the first names."""
    details = refusal(
        save({"epoch": 3, "model": {f"layer{at}.weight": torch.ones(2) for at in range(9)}}, tmp_path)
    ).details

    assert details.splitlines() == [
        "it contains",
        "epoch: 3",
        "model: 9 tensors: layer0.weight, layer1.weight, layer2.weight, ...",
    ]


@pytest.mark.parametrize("first", ["module.", "_orig_mod."])
def test_mixed(state: dict[str, Tensor], first: str) -> None:
    """Keys of which some carry a wrapper's prefix and some do not are those of two state dicts."""
    name, *others = state
    with pytest.raises(CheckpointError, match=f"seem to be mixed: 1 key: {name}"):
        loaded({name: state[name], **{first + each: state[each] for each in others}})


def test_many_names(state: dict[str, Tensor]) -> None:
    """A file may hold very many, very long, very deep and circular things beside the network."""
    deep: Any = []
    for _ in range(10_000):
        deep = [deep, deep]
    ring: dict[str, Any] = {"moe": torch.ones(1)}
    ring["ring"] = ring
    content = {f"k{at}.weight": torch.ones(0) for at in range(5_000)} | {
        "x" * 10**6: torch.ones(1),
        "." * 10**5: torch.ones(1),
    }

    assert differences(loaded({"net": state, "more": content, "deep": deep, "ring": ring}), state) == []
