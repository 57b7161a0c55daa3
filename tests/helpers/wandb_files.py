"""The files that wandb writes to a run folder, as `wandb sync` reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_FILE_HEADER, _BLOCK = 7, 2**15  # bytes
_WHOLE, _LAST = 1, 4


class Session(NamedTuple):
    """What a session logged: the run's id, its settings, values by step in the order of the file, and the summary."""

    run_id: str
    config: dict[str, Any]
    rows: list[tuple[int, dict[str, Any]]]
    summary: dict[str, Any]
    exit_code: int | None


def sessions(folder: Path) -> list[Session]:
    """The sessions in a run folder, in the order in which they began."""
    return [_session(path) for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"))]


def _session(path: Path) -> Session:
    from wandb.proto import wandb_internal_pb2

    run_id, config, rows, summary, exit_code = "", {}, [], {}, None
    for content in _records(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
            config = _values(record.run.config.update)
        elif kind == "history":
            rows.append((record.history.step.num, _values(record.history.item)))
        elif kind == "summary":
            summary.update(_values(record.summary.update))
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return Session(run_id, config, rows, summary, exit_code)


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: in blocks, each piece after its checksum, length and kind."""
    at, record = _FILE_HEADER, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            return
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
