"""Raw readings of a machine: plain values, sizes in bytes.

This separates the machine from the judgment: findings and recommendation are functions of a `Readings` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from camoxpert_cli.launch.processes import Failure


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi reports: driver version and the name of every GPU, including those CUDA_VISIBLE_DEVICES hides."""

    version: str
    cards: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch describes it, before anything runs on it."""

    name: str
    memory: int
    capability: tuple[int, int]
    multiprocessors: int

    @property
    def native_bf16(self) -> bool:
        """Whether the hardware computes in bfloat16; torch's own check also accepts a T4, which emulates it."""
        return self.capability >= (8, 0)


@dataclass(frozen=True)
class Torch:
    """The torch build: `cuda` is the version it was built with or None, `complaint` the reason why it sees no GPU."""

    version: str
    cuda: str | None
    architectures: tuple[str, ...]
    complaint: str = ""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class GpuTrial:
    """Tests on one GPU. `kernel` and `convolution` contain what went wrong, or are empty."""

    free: int
    kernel: str = ""
    convolution: str = ""
    dtype: str = "float16"


@dataclass(frozen=True)
class Peers:
    """Ordered pairs of GPUs: how many, how many have direct access to each other's memory, which copied wrongly."""

    pairs: int
    direct: int
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class TeamTrial:
    """A training step on several devices.

    `difference` is the largest difference of a gradient from that on one device, relative to the largest value;
    `bandwidth` is that of an all_reduce in bytes/s: what a ring moves over each link, 2 (n - 1) / n times the data.
    """

    difference: float
    bandwidth: float | None = None


@dataclass(frozen=True)
class Network:
    """The network of a config: parameter count, checkpoint size, and whether its ImageNet weights are cached."""

    parameters: int
    checkpoint: int
    weights_here: bool


@dataclass(frozen=True)
class StageMemory:
    """Two steps of a stage at its batch and image size: peak GPU memory, or None if they ran out of memory."""

    stage: int
    batch_size: int
    peak: int | None


@dataclass(frozen=True)
class Space:
    """Total and free bytes of a disk or of memory."""

    total: int
    free: int


@dataclass(frozen=True)
class JobLimit:
    """The time limit of the Slurm job that this process belongs to: its name, and seconds left (negative if past)."""

    name: str
    left: float


@dataclass(frozen=True)
class Readings:
    """All readings of a machine. None means not tested, because there are no GPUs, no preset or no Slurm job.

    `gpus` and `torch.gpus` have the same order. `packages` maps installed packages to versions, `imports` maps packages
    to the error of their import, empty if it works. `environment` contains the variables that affect training.
    `compiler` is what torch.compile lacks on this machine's GPUs, or on its CPU if it has none; empty if nothing.
    """

    driver: Driver | Failure
    torch: Torch | Failure
    imports: Mapping[str, str] | Failure
    network: Network | Failure
    internet: str | Failure
    cores: int
    ram: Space | Failure
    shared_memory: Space | Failure
    disk: Space | Failure
    folder: str
    gpus: tuple[GpuTrial | Failure, ...] = ()
    peers: Peers | Failure | None = None
    data_parallel: TeamTrial | Failure | None = None
    ddp: TeamTrial | Failure | None = None
    ddp_without_peers: TeamTrial | Failure | None = None
    recipe: tuple[StageMemory, ...] | Failure | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    compiler: str = ""
    kaggle: bool = False
    job_limit: JobLimit | Failure | None = None

    @property
    def seen(self) -> tuple[Gpu, ...]:
        """The GPUs that torch sees."""
        return self.torch.gpus if isinstance(self.torch, Torch) else ()

    @property
    def working(self) -> tuple[int, ...]:
        """The numbers of the GPUs on which a convolution ran, forward and backward."""
        return tuple(
            number
            for number, trial in enumerate(self.gpus)
            if isinstance(trial, GpuTrial) and not trial.kernel and not trial.convolution
        )
