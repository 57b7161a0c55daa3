"""Whether memory that was freed is there for the next step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT

# Allocates and frees 128 MB three times, in blocks like those of a training step, and prints how many pages the kernel
# had to provide the third time.
PROGRAM = """
import resource, sys
from camoxpert_cli.parallel.allocator import keep_freed_memory

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"1" * 2**23 for _ in range(16)]
    blocks.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = sys.argv[1:] and keep_freed_memory()
print(kept, [use(), use(), use()][-1])
"""
PAGES = 16 * 2**23 // 4096

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library than glibc")


def pages(*arguments: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` said, and the number of pages."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {"PYTHONPATH": str(ROOT), **environment}
    with RealPopen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        said, count = process.communicate(timeout=60)[0].split()
    return said, int(count)


def test_freed_memory_is_used_again() -> None:
    """Without it, the kernel provides each page again each time."""
    assert pages()[1] > PAGES / 2
    said, count = pages("keep")
    assert said == "True"
    assert count < PAGES / 100


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_users_own_allocator_settings_stay(name: str) -> None:
    """The environment variables of glibc take precedence."""
    said, count = pages("keep", **{name: str(2**20)})
    assert said == "False"
    assert count > PAGES / 2
