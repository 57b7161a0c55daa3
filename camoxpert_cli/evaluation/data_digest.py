"""Digests of test sets, by which an evaluation is recognized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from camoxpert_cli import console
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.inference.provenance import file_digest

Digests = Mapping[str, Sequence[Mapping[str, str]]]


def digests_of(tests: Mapping[str, Sequence[Pair]]) -> dict[str, list[dict[str, str]]]:
    """Return the digests of the `image` and the `mask` of each pair, by test set; empty for an unreadable file."""
    found: dict[str, list[dict[str, str]]] = {}
    with console.progress("Checksums", sum(map(len, tests.values()))) as advance:
        for name, pairs in tests.items():
            found[name] = []
            for image, mask in in_threads(_digests, pairs):
                found[name].append({"image": image, "mask": mask})
                advance(1, "")
    return found


def combined(tests: Mapping[str, Sequence[Pair]], digests: Digests) -> str:
    """Return one digest of all names and contents."""
    rows = {
        name: [[pair.name, each["image"], each["mask"]] for pair, each in zip(tests[name], digests[name], strict=True)]
        for name in tests
    }
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _digests(pair: Pair) -> tuple[str, str]:
    return file_digest(pair.image), file_digest(pair.mask)
