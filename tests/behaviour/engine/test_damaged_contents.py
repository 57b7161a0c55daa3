"""What becomes of a `last.pth` that is whole and holds something else than camox writes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.load import load_weights, trained_size, uses_ema
from camoxpert_cli.checkpoints.program_layouts import architecture_of, outline
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.engine.restoring import restore
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.launch.resume import saved_settings
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_plan

Keys = tuple[Any, ...]

MISSING = object()
EXPANDED = torch.zeros(1).expand(10**12)
OTHERS: list[Any] = [
    MISSING,
    None,
    True,
    -1,
    10**9,
    10**5000,
    0.5,
    float("nan"),
    float("inf"),
    "text",
    "7" * 5000,
    [],
    ["text"],
    {},
    {"text": "text"},
    torch.ones(3),
    torch.tensor([float("nan")]),
    torch.ones(2, 2, device="meta"),
    torch.eye(3).to_sparse(),
    torch.tensor([1, 2, 3]),
    torch.zeros(0),
    EXPANDED,
]


@pytest.fixture(scope="module")
def saved(plain_run: RunFolder) -> Checkpoint:
    return Checkpoint(plain_run.last, read_checkpoint(plain_run.last))


@pytest.fixture(scope="module")
def run(saved: Checkpoint, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run that tries to go on from everything."""
    return prepare(tiny_plan(tiny_data, tmp_path_factory.mktemp("run"), epochs=3), saved)[0]


def places(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """Every entry of a content, and the first and last of many alike."""
    if keys:
        yield keys
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    if len(items) > 30:
        items = [*items[:2], items[-1]]
    for key, each in items:
        yield from places(each, (*keys, key))


def changed(content: Any, keys: Keys, value: Any) -> Any:
    """A copy with another value in a place."""
    if not keys:
        return value
    if isinstance(content, Mapping):
        result = {**content, keys[0]: changed(content[keys[0]], keys[1:], value)}
        return {key: each for key, each in result.items() if each is not MISSING}
    items = [changed(each, keys[1:], value) if at == keys[0] else each for at, each in enumerate(content)]
    return [each for each in items if each is not MISSING]


def go_on(run: Run, checkpoint: Checkpoint) -> None:
    """All that reads a checkpoint when a run goes on from it, or when its network is loaded."""
    path, content = checkpoint
    architecture = architecture_of(content)
    if architecture is not None:
        load_weights(outline(*architecture), content, path, ema=uses_ema(content, path, None), tells=False)
    trained_size(content, path)
    from_mapping(*saved_settings(checkpoint))
    load_weights(run.state.network, content, path)
    restore(run, checkpoint)


def test_explore(run, saved):
    import collections, traceback, time
    ok = collections.defaultdict(list); bad = []; msgs = []
    t = time.time()
    all_places = list(places(saved.content))
    print(len(all_places))
    for keys in all_places:
        for other in OTHERS:
            content = changed(saved.content, keys, other)
            name = ".".join(map(str, keys))
            try:
                go_on(run, Checkpoint(saved.path, content))
                run.state.progress.seconds
                ok[name].append(str(other)[:12] if other is not MISSING else "MISSING")
            except CheckpointError as e:
                if keys[-1] not in [x for x in keys if isinstance(x,int)] and str(keys[-1]) not in e.message + e.details:
                    msgs.append((name, str(other)[:20] if not isinstance(other,int) else "int", e.message[-200:]))
            except UsageError as e:
                bad.append((name, str(other)[:12] if not isinstance(other,int) else "int", e.message[:200]))
            except Exception as e:
                bad.append((name, str(other)[:12] if not isinstance(other,int) else "int", traceback.format_exc()[-600:]))
    print(time.time()-t)
    for k, v in ok.items(): print("OK", k, v)
    print("----- msgs", len(msgs)); seen=set()
    for m in msgs:
        if (m[0]) not in seen: print(m); seen.add(m[0])
    print("----- bad", len(bad)); seen=set()
    for m in bad:
        if m[0] not in seen: print(m[0], m[1], m[2]); seen.add(m[0])
