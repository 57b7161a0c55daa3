"""Two ranks that share one GPU: each is told that there are two, and gets the same one.

NCCL refuses two ranks on one GPU unless they claim to be on different machines, and is then left with sockets. That is
no way to train; it runs NCCL's own code where there is one GPU only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from tests.gpu.report import Report
from tests.gpu.run_command import run_command
from tests.helpers.at_start import at_start

Transport = Literal["nccl", "gloo"]

_TRANSPORT = "CAMOX_GPU_TRANSPORT"
# What every process runs when it starts.
AT_START = """
from tests.gpu.two_ranks_on_one_card import install

install()
"""
# To be had by a machine with one GPU: no way from one rank to the other but sockets.
_NCCL = {
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_P2P_DISABLE": "1",
    "NCCL_SHM_DISABLE": "1",
    "NCCL_IB_DISABLE": "1",
}
_SMOKE_SECONDS = 45
_WORKS = "works"


def variables_of(transport: Transport) -> dict[str, str]:
    """The environment of two ranks on one GPU; `AT_START` has to run there as well."""
    return {_TRANSPORT: transport, **_NCCL}


def share_the_card(folder: Path, transport: Transport) -> None:
    """Have all processes that this one starts from here on be as `variables_of` and `AT_START` say.

    `folder`, which must not exist, is for the program that they run.
    """
    os.environ.update({**at_start(folder, AT_START), **variables_of(transport)})


def install() -> None:
    """In a process of its own: as many GPUs are there as are asked for, all the first, and none is measured."""
    import torch.distributed as dist

    from camoxpert_cli.launch import autobatch
    from camoxpert_cli.parallel import device

    # One machine a rank, as far as NCCL can see.
    os.environ["NCCL_HOSTID"] = f"rank{os.environ.get('RANK', '')}"
    device.__dict__["_cuda"] = lambda run, processes: (torch.device("cuda", 0),) * (run.gpus or processes)
    device.__dict__["refuse_shared_gpus"] = lambda device, world: None
    autobatch.is_measured = lambda device: False
    join = dist.init_process_group

    def join_by_gloo(backend: str, *arguments: Any, **named: Any) -> None:
        join("gloo", *arguments, **named)  # for the tensors of all devices

    if os.environ[_TRANSPORT] == "gloo":
        dist.__dict__["init_process_group"] = join_by_gloo


def transport_of(report: Report) -> Transport:
    """NCCL where two ranks on this GPU can use it, else gloo; tried once for all checks, and told by each."""
    known = report.results / "nccl_on_one_card.txt"
    if not known.exists():
        known.write_text(_try_nccl(report.folder / "nccl"), encoding="utf-8")
    answer = known.read_text(encoding="utf-8")
    report.number("NCCL between two ranks on one card", answer)
    return "nccl" if answer == _WORKS else "gloo"


def _try_nccl(folder: Path) -> str:
    """_WORKS, or in a line why it does not."""
    environment = {**at_start(folder, AT_START), **variables_of("nccl")}
    command = [sys.executable, "-m", "tests.gpu.smoke_test", "cuda"]
    try:
        ended = run_command(folder / "smoke test", command, seconds=_SMOKE_SECONDS, environment=environment)
    except TimeoutError as error:
        return f"hangs: {error}"
    if ended.code == 0:
        return _WORKS
    said = [line.strip() for line in ended.stderr.splitlines() if "Error" in line]
    return f"refused: {said[-1] if said else f'exit code {ended.code}'}"
