from __future__ import annotations

import gc
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints import convert
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.program_layouts import architecture_of, outline, weights_of
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.model.weights_file import read_weights_file
from tests.helpers.checkpoints import Stub, content_of
from tests.helpers.checkpoints import original as original_of
from tests.helpers.compare import differences


@pytest.fixture(scope="module")
def network() -> Stub:
    return Stub()


@pytest.fixture(autouse=True, scope="module")
def _first_network_without_memory() -> None:
    """Neither its cost nor that of a full garbage collection is on the account of the test that happens to meet it."""
    outline("test_resnet", 2)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def state(network: Stub) -> dict[str, Tensor]:
    return network.state_dict()


# The stub is no network that could be loaded, and is converted all the same.
convert_checkpoint = partial(convert.convert_checkpoint, as_is=True)


def ema_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters only, as the original program averages."""
    return {name: 2 * value.detach() for name, value in network.named_parameters()}


def original(network: nn.Module, prefix: str = "") -> dict[str, Any]:
    """Of epoch 17."""
    return {**original_of(content_of(network), network, prefix), "epoch": 17}


def camox(network: nn.Module) -> dict[str, Any]:
    return {
        **content_of(network),
        "epoch": 18,
        "scores": {"epoch": 18, "iou": 0.5},
        "config": {"model": {"backbone": "test_resnet"}, "train": {"lr": 0.01, "epochs": 30}},
        "training": {"optimizer": {"state": {0: torch.ones(3)}}},
    }


def saved(content: Any, folder: Path, name: str = "in.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def entries(path: Path) -> Any:
    return torch.load(path, weights_only=False)


# What each program puts where; all of it is the same network under some prefix.
FOREIGN: dict[str, Any] = {
    "bare": lambda state: state,
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled data parallel": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "data parallel, compiled": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "Lightning": lambda state: {
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "pytorch-lightning_version": "2.6.6",
        "epoch": 4,
        "optimizer_states": [],
        "callbacks": {},
    },
    "Fabric": lambda state: {"model": {f"_forward_module.{name}": value for name, value in state.items()}, "step": 7},
    "torchvision's scripts": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    "averaged model": lambda state: {
        "n_averaged": torch.tensor(3),
        **{f"module.{name}": value for name, value in state.items()},
    },
    "a network within a model": lambda state: {f"model.network.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("program", FOREIGN)
def test_any_program(program: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Whoever wrapped and saved the network, its keys come out bare, values untouched; so they are read unconverted."""
    source = saved(FOREIGN[program](state), tmp_path)
    convert_checkpoint(source, tmp_path / "out.pth", keep="weights")

    assert differences(dict(entries(tmp_path / "out.pth")), dict(state)) == []
    assert differences(weights_of(read_checkpoint(source), ema=False), dict(state)) == []


def test_real_wrappers(tmp_path: Path, network: Stub, state: dict[str, Tensor]) -> None:
    """State dicts that torch's own wrappers give, their metadata included, load into the bare network."""
    for wrapper in (nn.DataParallel(network), AveragedModel(network)):
        convert_checkpoint(saved(wrapper.state_dict(), tmp_path), tmp_path / "out.pth", overwrite=True)
        found = entries(tmp_path / "out.pth")
        Stub().load_state_dict(found)
        assert differences(dict(found), dict(state)) == []
        assert found._metadata == network.state_dict()._metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_everything_else_is_kept(tmp_path: Path, network: Stub, prefix: str) -> None:
    """Of the original program's file only the network's keys change; the average, score and options stay."""
    source = saved(original(network, prefix), tmp_path)
    before = source.read_bytes()
    convert_checkpoint(source, tmp_path / "out.pth")
    added = convert_checkpoint(tmp_path / "out.pth", tmp_path / "added.pth", add=True)
    convert_checkpoint(tmp_path / "added.pth", tmp_path / "again.pth")

    assert differences(entries(tmp_path / "out.pth"), original(network)) == []
    assert differences(entries(tmp_path / "added.pth"), original(network, "module.")) == []
    assert differences(entries(tmp_path / "again.pth"), original(network)) == []
    assert (added.removed_prefix, added.added_prefix) == ("", "module.")
    assert source.read_bytes() == before


@pytest.mark.parametrize("add", [True, False])
def test_idempotent(tmp_path: Path, network: Stub, add: bool) -> None:
    """Converted once more, a file is the same to the last tensor."""
    convert_checkpoint(saved(original(network, "module."), tmp_path), tmp_path / "once.pth", add=add)
    convert_checkpoint(tmp_path / "once.pth", tmp_path / "twice.pth", add=add)

    assert differences(entries(tmp_path / "once.pth"), entries(tmp_path / "twice.pth")) == []


def test_the_ema_becomes_the_network(tmp_path: Path, network: Stub) -> None:
    """With `--weights ema` the average's parameters are the network's, buffers stay, and moments of others go."""
    convert_checkpoint(saved(original(network), tmp_path), tmp_path / "out.pth", weights="ema")
    result = convert_checkpoint(saved(camox(network), tmp_path, "b.pth"), tmp_path / "out2.pth", weights="ema")
    convert_checkpoint(saved(original(network), tmp_path), tmp_path / "out3.pth", weights="ema", add=True)
    expected = {**network.state_dict(), **ema_of(network)}
    added = {f"module.{name}": value for name, value in expected.items()}

    assert differences(dict(entries(tmp_path / "out3.pth")["model_state_dict"]), added) == []
    assert differences(dict(entries(tmp_path / "out.pth")["model_state_dict"]), expected) == []
    assert entries(tmp_path / "out.pth")["ema_state_dict"] is None
    assert differences(dict(entries(tmp_path / "out2.pth")["network"]), camox(network)["ema"]) == []
    assert entries(tmp_path / "out2.pth")["ema"] is None
    assert result.dropped == ("training",)


def test_dry_run_with_a_prefix(tmp_path: Path, network: Stub) -> None:
    """What would be written is compared with the network by its own names."""
    result = convert_checkpoint(saved(original(network), tmp_path), tmp_path / "out.pth", add=True, dry_run=True)

    assert result.differences is not None
    assert set(network.state_dict()) < {name for name, *_ in result.differences}
    assert not any(name.startswith("module.") for name, *_ in result.differences)


def test_no_ema(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Asked for an average that is not there, the bare weights are never taken in its place."""
    with pytest.raises(CheckpointError, match="contains no EMA weights"):
        convert_checkpoint(saved(state, tmp_path), tmp_path / "out.pth", weights="ema")

    assert not (tmp_path / "out.pth").exists()


def test_weights_alone(tmp_path: Path, network: Stub) -> None:
    """`--keep weights` leaves out what only training needs, and the file still says which network it is."""
    result = convert_checkpoint(saved(camox(network), tmp_path), tmp_path / "out.pth", keep="weights")

    assert result.dropped == ("training",)
    assert "training" not in entries(tmp_path / "out.pth")
    assert architecture_of(read_checkpoint(tmp_path / "out.pth")) == ("test_resnet", 2)
    assert differences(weights_of(read_checkpoint(tmp_path / "out.pth"), ema=True), content_of(network)["ema"]) == []


@pytest.mark.parametrize("weights", ["model", "ema"])
def test_safetensors_and_back(tmp_path: Path, network: Stub, weights: Any) -> None:
    """A .safetensors file holds the network and says which; it is read, and goes back to a .pth file."""
    source = saved(camox(network), tmp_path)
    convert_checkpoint(source, tmp_path / "out.safetensors", weights=weights)
    convert_checkpoint(tmp_path / "out.safetensors", tmp_path / "back.pth", keep="weights")
    content = read_weights_file(tmp_path / "out.safetensors")
    expected = camox(network)["network" if weights == "model" else "ema"]

    assert content["metadata"]["backbone"] == "test_resnet"
    assert content["metadata"]["num_experts"] == "2"
    assert architecture_of(content) == ("test_resnet", 2)
    assert differences(weights_of(content, ema=False), dict(expected)) == []
    assert differences(dict(entries(tmp_path / "back.pth")), dict(expected)) == []


def test_tied_tensors(tmp_path: Path) -> None:
    """Two names for one tensor are one in torch's format, and written twice in the one that has no sharing."""
    shared = torch.arange(1000.0)
    names = [f"module.moe_layers.{number}.weight" for number in range(3)]
    source = saved(dict(zip(names, (shared, shared, torch.ones(2, 3).t()), strict=True)), tmp_path)
    result = convert_checkpoint(source, tmp_path / "out.pth")
    convert_checkpoint(source, tmp_path / "out.safetensors")
    found = entries(tmp_path / "out.pth")

    assert result.tied == 1
    bare = [name.removeprefix("module.") for name in names]
    assert found[bare[0]].data_ptr() == found[bare[1]].data_ptr()
    assert (tmp_path / "out.pth").stat().st_size < 2 * 4000
    state = read_weights_file(tmp_path / "out.safetensors")["state_dict"]
    assert all(torch.equal(state[name], found[name]) for name in bare)


def test_mixed_keys(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Where only some keys have a prefix, nothing is written and the odd ones are listed."""
    first, *others = state
    mixed = {f"module.{name}": state[name] for name in others} | {first: state[first]}
    with pytest.raises(CheckpointError, match=rf"seem to be mixed: 1 key: {first}") as caught:
        convert_checkpoint(saved(mixed, tmp_path), tmp_path / "out.pth")

    assert caught.value.exit_code == 4
    assert not (tmp_path / "out.pth").exists()


def test_out_is_in(tmp_path: Path, network: Stub) -> None:
    """A file is never converted onto itself unasked, under whatever name; with `--in-place` it is."""
    source = saved(original(network, "module."), tmp_path)
    before = source.read_bytes()
    (tmp_path / "link.pth").symlink_to(source)
    os.link(source, tmp_path / "hard.pth")
    for target in (source, tmp_path / "link.pth", tmp_path / "hard.pth"):
        with pytest.raises(UsageError, match="is the input file") as caught:
            convert_checkpoint(source, target, overwrite=True)
        assert (caught.value.exit_code, source.read_bytes()) == (2, before)
    convert_checkpoint(source, None, in_place=True)

    assert differences(entries(source), original(network)) == []
    for named, add in ((None, True), (source, False), (tmp_path / "link.pth", True)):
        convert_checkpoint(tmp_path / "link.pth", named, in_place=True, add=add)

        assert (tmp_path / "link.pth").is_symlink()
        assert differences(entries(source), original(network, "module." if add else "")) == []


def test_a_temporary_file_can_be_rescued(tmp_path: Path, network: Stub) -> None:
    """What another program left as OUT.tmp may be IN: it is read to its end, and stays."""
    source = saved(original(network), tmp_path, "out.pth.tmp")
    before = source.read_bytes()
    convert_checkpoint(source, tmp_path / "out.pth")

    assert source.read_bytes() == before
    assert differences(entries(tmp_path / "out.pth"), original(network)) == []


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_sparse_tensors(tmp_path: Path) -> None:
    """Tensors without memory of their own kind are no weights of ours."""
    sparse = {"moe_layers.0.weight": torch.eye(3).to_sparse()}
    with pytest.raises(CheckpointError, match=r"moe_layers\.0\.weight is a sparse or nested tensor"):
        convert_checkpoint(saved(sparse, tmp_path), tmp_path / "out.pth")


def test_a_later_format(tmp_path: Path, network: Stub) -> None:
    """A file of a later camox is not converted by guesswork, also where it calls its weights otherwise."""
    content = {"format": "camox", "version": 2, "weights": network.state_dict()}
    with pytest.raises(CheckpointError, match="has format version 2"):
        convert_checkpoint(saved(content, tmp_path), tmp_path / "out.pth")
    with pytest.raises(CheckpointError, match="has format version 2"):
        read_checkpoint(tmp_path / "in.pth")


def test_what_is_left_out(tmp_path: Path, network: Stub) -> None:
    """Everything of the source that the target lacks is listed, and nothing that it has."""
    source = saved({**original(network), "optimizer_state_dict": {"state": {}}, "note": "x"}, tmp_path)
    everything = convert_checkpoint(source, tmp_path / "1.pth")
    weights = convert_checkpoint(source, tmp_path / "2.pth", keep="weights")
    again = convert_checkpoint(source, tmp_path / "3.pth", to="camoxpert")
    file = convert_checkpoint(source, tmp_path / "4.safetensors")
    once_more = convert_checkpoint(tmp_path / "4.safetensors", tmp_path / "5.safetensors")

    assert everything.dropped == ()
    assert weights.dropped == ("optimizer_state_dict", "note")
    assert again.dropped == ("optimizer_state_dict", "note")
    assert file.dropped == ("epoch", "best_iou", "args", "optimizer_state_dict", "note")
    assert (file.ema_tensors, once_more.dropped) == (0, ())


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (None, {}, "no output file was given"),
        ("taken.pth", {}, "already exists"),
        ("other.pth", {"in_place": True}, "--in-place was given"),
        ("nowhere/out.pth", {}, "out.pth cannot be written: folder "),
    ],
)
def test_targets_that_are_refused(
    tmp_path: Path, network: Stub, target: str | None, options: dict[str, Any], message: str
) -> None:
    """What must not be written ends with one sentence, exit code 2, and no file changed."""
    source = saved(original(network), tmp_path)
    (tmp_path / "taken.pth").write_text("precious")
    with pytest.raises(UsageError, match=message):
        convert_checkpoint(source, None if target is None else tmp_path / target, **options)

    assert (tmp_path / "taken.pth").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "taken.pth"]


def test_no_weights(tmp_path: Path) -> None:
    """A file without a state dict is refused with exit code 4."""
    with pytest.raises(CheckpointError, match="contains no CamoXpert weights"):
        convert_checkpoint(saved({"epoch": 3}, tmp_path), tmp_path / "out.pth")


def test_interrupted(tmp_path: Path, network: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle leaves neither a target nor a temporary file."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    source = saved(original(network), tmp_path)
    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(source, tmp_path / "out.pth")

    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["convert-ckpt", "--as-is", *map(str, arguments)])


def test_command(tmp_path: Path, network: Stub) -> None:
    """The command says what it did in a few lines, or as JSON, on stdout."""
    source = saved(original(network, "module."), tmp_path)
    words = run(source, tmp_path / "out.pth")
    as_json = run(source, tmp_path / "out.pth", "--overwrite", "--json")

    assert words.exit_code == 0
    assert "the original CamoXpert" in words.stdout
    assert "Keys: 'module.' removed" in words.stdout
    assert f"Written: {tmp_path / 'out.pth'}" in words.stdout
    assert json.loads(as_json.stdout)["removed_prefix"] == "module."


def test_command_refuses(tmp_path: Path) -> None:
    """A missing file and a damaged one end with one sentence and exit code 4."""
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04")
    missing, broken = run(tmp_path / "no.pth", tmp_path / "out.pth"), run(tmp_path / "broken.pth", tmp_path / "out.pth")

    assert (missing.exit_code, broken.exit_code) == (4, 4)
    assert missing.stderr.startswith("Error: file not found")
    assert "is corrupt or truncated" in broken.stderr
    assert "Traceback" not in missing.stderr + broken.stderr


@pytest.mark.parametrize("change", [{"epoch": None}, {"epoch": "x"}, {"best_iou": [1]}])
def test_strange_entries(tmp_path: Path, network: Stub, change: dict[str, Any]) -> None:
    """Whatever lies beside the weights, the weights come out; what is of no use is not taken."""
    source = saved({**original(network), **change}, tmp_path)
    convert_checkpoint(source, tmp_path / "out.pth")
    convert_checkpoint(source, tmp_path / "original.pth", to="camoxpert")

    assert differences(dict(entries(tmp_path / "original.pth")["model_state_dict"]), dict(network.state_dict())) == []


@pytest.mark.parametrize("entry", ["config", "scores", "training"])
def test_strange_entries_of_camox(tmp_path: Path, network: Stub, entry: str) -> None:
    """The same for a file in our own format."""
    source = saved({**camox(network), entry: "text"}, tmp_path)
    convert_checkpoint(source, tmp_path / "original.pth", to="camoxpert")

    assert entries(tmp_path / "original.pth")["epoch"] == 17


def test_entries_within_entries(tmp_path: Path, network: Stub) -> None:
    """The network's tensors are replaced where they were found, and all around them stays; its average too."""
    wrapped = {f"module.{name}": value for name, value in network.state_dict().items()}
    doubled = {f"module.{name}": 2 * value for name, value in network.state_dict().items()}
    bare, average = dict(network.state_dict()), {name: 2 * value for name, value in network.state_dict().items()}
    content = {"run": [{"student": wrapped, "note": "x"}, 3], "teacher": {"net": doubled}, "step": 7}
    result = convert_checkpoint(saved(content, tmp_path), tmp_path / "out.pth")
    both = {f"net.{name}": value for name, value in wrapped.items()} | {
        f"ema.{name}": value for name, value in doubled.items()
    }
    convert_checkpoint(saved({**both, "loss.weight": torch.ones(2)}, tmp_path), tmp_path / "out2.pth")
    expected = {"run": [{"student": bare, "note": "x"}, 3], "teacher": {"net": average}, "step": 7}
    again = read_checkpoint(tmp_path / "out2.pth")

    assert json.dumps(expected, default=str) == json.dumps(entries(tmp_path / "out.pth"), default=str)
    assert (result.network, result.ema_tensors, result.dropped) == ("run.0.student.module", len(bare), ())
    assert differences(weights_of(again, ema=False), bare) == []
    assert differences(weights_of(again, ema=True), average) == []
    assert "loss.weight" not in again
