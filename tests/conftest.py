"""What all tests share: one thread, the environment as it was, forks for programs, and a tiny data set and run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from camoxpert_cli.model.camoxpert import CamoXpert
    from camoxpert_cli.run_folder import RunFolder

# Read when torch is imported; more threads would add numbers up in another order, and slow down runs side by side.
os.environ["OMP_NUM_THREADS"] = "1"
# Whoever runs the tests in a job of a scheduler has not asked their commands to continue.
for _name in (
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_MAX_RESTARTS",
    "SLURM_JOB_ID",
    "SKYPILOT_TASK_ID",
    "JOB_COMPLETION_INDEX",
):
    os.environ.pop(_name, None)

# A scheduler's job in which tests run would have every run continued, and ended at the job's time limit.
for _name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX"):
    os.environ.pop(_name, None)

# The time that an example takes says more about the machine than about the code.
settings.register_profile("camox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("camox")


TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-part", metavar="N/M", help="of tests/slow only the Nth of M parts, N from 1: by what a test is called"
    )
    parser.addoption("--no-time-limit", action="store_true", help="unit tests may take as long as they like")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests that belong to another part than the one that was asked for."""
    asked = config.getoption("--slow-part")
    if asked is None:
        return
    match = re.fullmatch(r"(\d+)/(\d+)", asked)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise pytest.UsageError(f"--slow-part is {asked}, and N/M was expected, N from 1 to M")
    slow = (item for item in items if _folder(item.path) == "slow")
    others = {item for item in slow if zlib.crc32(item.nodeid.encode()) % parts + 1 != part}
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _folder(path: Path) -> str:
    """Which of the folders a test file is in, and so what its tests may do."""
    return path.relative_to(TESTS).parts[0]


@pytest.fixture(autouse=True, scope="module")
def _forked_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Python programs that tests of behaviour start, and those that such a program starts, are forks."""
    with pytest.MonkeyPatch.context() as patch:
        if _folder(request.path) in ("behaviour", "slow"):
            from tests.helpers.forked import ForkedPopen

            patch.setattr(subprocess, "Popen", ForkedPopen)
        yield


@pytest.fixture(autouse=True, scope="session")
def _folders_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests leave nothing in the user's caches, and find nothing there or among the user's presets."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("settings"))


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Environment variables are after each test what they were before."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, as in a terminal: under `nohup` and in the background of a shell it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path that `make` made something at, the first time that any of pytest-xdist's workers asked for `name`."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            try:
                make(path)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)  # the next worker's own error tells more than what is left
                raise
            made.touch()
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set of eleven training and three test images. Read it, but change nothing in it."""
    from tests.helpers.tiny_data import write_tiny_data

    return made_once(tmp_path_factory, "tiny", write_tiny_data)


@pytest.fixture(scope="session")
def plain_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of a finished run with the settings of `tiny_run`. Read it, but change nothing in it.

    `run_copy` is one to work on. The save before the last one, previous.pth, is of the middle of the second epoch.
    """
    from camoxpert_cli.engine.train import train
    from camoxpert_cli.run_folder import RunFolder
    from tests.helpers.tiny_data import PLAIN, tiny_plan

    return RunFolder(made_once(tmp_path_factory, "plain", lambda path: train(tiny_plan(tiny_data, path, **PLAIN))))


@pytest.fixture
def run_copy(plain_run: RunFolder, tmp_path: Path) -> Path:
    """A copy of the plain run to work on."""
    shutil.copytree(plain_run.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def network() -> CamoXpert:
    from tests.helpers.networks import small_network

    return small_network("test_resnet", 2).eval()


@pytest.fixture
def content(network: CamoXpert) -> dict[str, Any]:
    """What a checkpoint of the network holds."""
    from tests.helpers.checkpoints import content_of

    return content_of(network)


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks compute in float64 throughout: `.float()`, their guard against half precision, does nothing.

    In float32 a rounding error flips a ReLU here and there and so moves whole gradients by percents; in float64 two
    programs of the same formula agree to twelve digits, and a tolerance can be tight enough to see a wrong term.
    """
    from torch import Tensor

    monkeypatch.setattr(Tensor, "float", lambda self: self)
