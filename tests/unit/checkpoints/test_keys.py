from __future__ import annotations

from collections import OrderedDict

from torch import nn

from camoxpert_cli.checkpoints.keys import add_prefix, renamed_metadata


def test_data_parallel() -> None:
    """Keys as DataParallel writes them."""
    assert add_prefix({"a": 1, "module_.b": 2}) == {"module.a": 1, "module.module_.b": 2}


def test_metadata_follows() -> None:
    """The versions of modules, which torch reads when it loads, follow its prefix."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(3)))
    plain: OrderedDict[str, int] = network.state_dict()._metadata  # type: ignore[attr-defined]
    wrapper = nn.Module()
    wrapper.add_module("module", network)
    wrapped: OrderedDict[str, int] = wrapper.state_dict()._metadata  # type: ignore[attr-defined]

    assert renamed_metadata(wrapped, "module.", "") == plain
    assert renamed_metadata(plain, "", "module.") == {key: value for key, value in wrapped.items() if key}
    assert renamed_metadata(plain, "", "") == plain


def test_metadata_within_wrappers() -> None:
    """Wrappers that lie further inside have no place of their own in it."""
    assert renamed_metadata({"net": 1, "net.a.module": 2, "net._orig_mod.b": 3, "loss": 4}, "net.", "") == {
        "": 1,
        "a": 2,
        "b": 3,
    }
