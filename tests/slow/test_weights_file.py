from __future__ import annotations

from pathlib import Path

import torch

from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.weights_file import read_weights_file
from tests.unit.model.test_weights_file import saved


def test_every_bit_of_a_directory(tmp_path: Path) -> None:
    """Any bit of a directory may flip: torch leaves what is marked as a folder there as memory happens to be."""
    path = saved(tmp_path, {"a": torch.tensor([3.0, 5.0])})
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02")
    refused = 0
    for at in range(8 * start, 8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        try:
            content = read_weights_file(path)
        except CheckpointError:
            refused += 1
        else:
            assert torch.equal(content["a"], torch.tensor([3.0, 5.0])), at

    assert refused > 1000
