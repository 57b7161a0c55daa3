"""What a machine says about itself, unjudged: plain values, sizes in bytes.

This is the seam between machine and judgement: findings and recommendation are functions of a `Readings` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from camoxpert_cli.launch.processes import Failure


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says: the driver's version and the name of every card, whatever CUDA_VISIBLE_DEVICES hides."""

    version: str
    cards: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """A card as torch describes it, before anything ran on it."""

    name: str
    memory: int
    capability: tuple[int, int]
    multiprocessors: int

    @property
    def native_bf16(self) -> bool:
        """Whether it computes in bfloat16 itself; torch's own question says yes to a T4, which emulates it."""
        return self.capability >= (8, 0)


@dataclass(frozen=True)
class Torch:
    """`cuda` is the version that torch was built with, None for none; `complaint` says why it sees no GPU."""

    version: str
    cuda: str | None
    architectures: tuple[str, ...]
    complaint: str = ""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class GpuTrial:
    """What ran on one card. `kernel` and `convolution` are empty where it went well, else say what went wrong."""

    free: int
    kernel: str = ""
    convolution: str = ""
    number_format: str = "float16"


@dataclass(frozen=True)
class Peers:
    """Ordered pairs of cards, those that reach each other's memory directly, and those whose copies were wrong."""

    pairs: int
    direct: int
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class TeamTrial:
    """A step on several devices: the gradients' largest `difference` from one device's, relative to the largest.

    `bandwidth` of an all_reduce in bytes a second: what a ring moves over each link, 2 (n - 1) / n times the data.
    """

    difference: float
    bandwidth: float | None = None


@dataclass(frozen=True)
class Network:
    """A recipe's network: its parameters, the size of its checkpoint, and whether its ImageNet weights are here."""

    parameters: int
    checkpoint: int
    weights_here: bool


@dataclass(frozen=True)
class StageMemory:
    """Two steps of a stage at its batch and size: the most GPU memory they held, None where they ran out of it."""

    stage: int
    batch_size: int
    peak: int | None


@dataclass(frozen=True)
class Space:
    """Of a disk or of memory."""

    total: int
    free: int


@dataclass(frozen=True)
class Readings:
    """Everything that was asked. None is what was not asked, for want of GPUs or of a preset.

    `gpus` and `torch.gpus` go together. `packages` maps each that is installed to its version, `imports` to what its
    import ended with, empty where well. `environment` holds the variables that change how training works.
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
    kaggle: bool = False

    @property
    def seen(self) -> tuple[Gpu, ...]:
        """The cards that torch sees."""
        return self.torch.gpus if isinstance(self.torch, Torch) else ()

    @property
    def working(self) -> tuple[int, ...]:
        """The numbers of the cards that a convolution ran on, forward and backward."""
        return tuple(
            number
            for number, trial in enumerate(self.gpus)
            if isinstance(trial, GpuTrial) and not trial.kernel and not trial.convolution
        )
