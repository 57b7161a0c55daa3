"""A short measurement of training, in separate processes so that a crash affects nothing else.

    python -m camoxpert_cli.launch.trial

`run_trial.py` starts them. Their job file says what to try; the measurement is written next to it.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from camoxpert_cli import console
from camoxpert_cli.config.resolve import from_mapping, to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.cores import auto_workers
from camoxpert_cli.data.noise import noise
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine.build import RunData, build_network
from camoxpert_cli.engine.optimizer import parameters_of
from camoxpert_cli.engine.out_of_memory import SMALLER
from camoxpert_cli.engine.run import Run, assemble
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Stage
from camoxpert_cli.engine.state import set_trained
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.training_steps import SizedBatch, training_steps
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.errors import CamoxError, TrainingError
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.cuda_errors import is_out_of_memory, to_camox_error
from camoxpert_cli.parallel.determinism import deterministic
from camoxpert_cli.parallel.device import own_device, place
from camoxpert_cli.parallel.memory import peak_of_gpus
from camoxpert_cli.parallel.worker import ending_at_once, read_job, shared_folder, tell_launcher
from camoxpert_cli.parallel.world import World, end_with_parent, joined
from camoxpert_cli.run_folder import RunFolder

# A collective that waits longer than this has lost its peers.
_PATIENCE = 120
_WARMUP_STEPS = 3
# Repeats of this many steps are precise enough, however fast they are.
_MOST_STEPS = 50
# Prefetched batches seem to cost nothing, so a repeat of loading alone takes this many times their number.
_LOADER_ROUNDS = 5
_VALIDATION_BATCHES = 2

Alive = Callable[[], None]


@dataclass(frozen=True)
class TrialData:
    """Images of a trial: `files` are all pairs in the order of their cache; `train` and `validation` are indices."""

    files: tuple[Pair, ...]
    train: tuple[int, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """What to measure: a training stage with the devices and the strategy in `config.run`.

    Without `images` only computation is measured, on noise. Each repeat has `steps` optimizer steps; if that is None,
    as many as fit in its share of `seconds`.
    """

    config: Config
    stage: int
    images: TrialData | None = None
    steps: int | None = None
    repeats: int = 3
    seconds: float = 10.0

    @property
    def gpus(self) -> int:
        assert isinstance(self.config.run.gpus, int)
        return self.config.run.gpus

    def to_mapping(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        images = None
        if self.images is not None:
            files = [[pair.name, str(pair.image), str(pair.mask)] for pair in self.images.files]
            images = {**asdict(replace(self.images, files=())), "files": files}
        return {**asdict(self), "config": to_mapping(self.config), "images": images}

    @classmethod
    def from_mapping(cls, content: dict[str, Any]) -> Trial:
        """Read what `to_mapping` wrote."""
        content = {**content, "config": from_mapping(content["config"], "trial")}
        if (images := content["images"]) is not None:
            files = tuple(Pair(name, Path(image), Path(mask)) for name, image, mask in images["files"])
            content["images"] = TrialData(files, tuple(images["train"]), tuple(images["validation"]))
        return cls(**content)


@dataclass(frozen=True)
class Measurement:
    """Images/s over all devices, one value per repeat; None or empty if not measured.

    `compute` has its images on the device already, `loader` only loads them, `end_to_end` trains on them, and
    `data_wait` is the share (0..1) of its time spent waiting for images. `communication` is the time in seconds to sum
    a step's gradients over processes while nothing else is computed; with DataParallel it cannot be separated.
    `peak_memory_mib` is that of the fullest device, on the CPU that of the largest process.
    """

    device: str
    workers: int
    threads: int
    compute: list[float]
    loader: list[float]
    end_to_end: list[float]
    data_wait: float | None
    communication: float | None
    validation: float | None
    peak_memory_mib: float


def measure(trial: Trial, world: World, alive: Alive) -> Measurement:
    """Run the trial on every rank of `world`; `alive` is called after each piece of work. Raises CamoxError."""
    run = _begin(trial, world)
    alive()
    stage = next(phase.stage for phase in run.phases if phase.stage.number == trial.stage)
    set_trained(run.state, run.strategy, run.config, WHOLE_BACKBONE if stage.number == 2 else 0)
    run.state.network.train()
    # Each rank's images follow those of the previous one. Without EMA the scored network is the same one.
    first = world.rank * stage.batch_size
    with spread(run.state.network, first), spread(run.state.scored_network, first):
        return _measure(run, stage, trial, alive)


def _measure(run: Run, stage: Stage, trial: Trial, alive: Alive) -> Measurement:
    watch = Watch(run, trial, alive)
    steps = _steps(run, stage, _resident_batches(run, stage))
    compute = watch.rates(steps, watch.warm_up(steps, _WARMUP_STEPS))
    communication = watch.communication()
    loader: list[float] = []
    end_to_end: list[float] = []
    data_wait = validation = None
    if trial.images is not None:
        loader, _ = watch.with_images(
            stage,
            lambda batches: (size for size, _ in batches),
            at_least=_LOADER_ROUNDS * _prefetched(run.feed.workers),
        )
        end_to_end, data_wait = watch.with_images(stage, lambda batches: _steps(run, stage, batches))
        validation = watch.validation() if run.data.validation else None
    return Measurement(
        run.saver.computed_with["device"],
        run.feed.workers,
        torch.get_num_threads(),
        compute,
        loader,
        end_to_end,
        data_wait,
        communication,
        validation,
        max(run.world.all_gather(_peak_memory(run))),
    )


class Watch:
    """Timer that stays in step with the other ranks; `clock` returns seconds."""

    def __init__(self, run: Run, trial: Trial, alive: Alive, clock: Callable[[], float] = time.perf_counter) -> None:
        self.run, self.trial, self.alive, self.clock = run, trial, alive, clock

    def warm_up(self, steps: Iterator[int], count: int) -> int:
        """Make `count` (at least 2) steps; return the number of steps for each repeat."""
        self._next(steps)  # starts workers and chooses kernels
        seconds = self._time(partial(self._take, steps, count - 1, [])) / (count - 1)
        fitting = int(self.trial.seconds / self.trial.repeats / seconds)
        return self.run.world.broadcast(self.trial.steps or min(max(1, fitting), _MOST_STEPS))

    def rates(self, steps: Iterator[int], count: int) -> list[float]:
        """Return the images/s of each repeat of `count` steps; steps yield their images over all ranks."""
        rates = []
        for _ in range(self.trial.repeats):
            images: list[int] = []
            seconds = self._time(partial(self._take, steps, count, images))
            rates.append(sum(images) / seconds)
        return rates

    def with_images(
        self, stage: Stage, steps_of: Callable[[Iterator[SizedBatch]], Iterator[int]], at_least: int = 1
    ) -> tuple[list[float], float]:
        """Return the images/s of steps over the loader's batches, and the share of time that ranks waited for them.

        A repeat has `at_least` that many steps.
        """
        self.run.state.progress.samples = 0
        batches, sizes = self.run.feed.training(stage, stage.first, samples=0)
        steps = steps_of(zip(sizes, batches, strict=True))
        count = max(at_least, self.warm_up(steps, max(_WARMUP_STEPS, _prefetched(self.run.feed.workers) + 1)))
        waited, started = batches.waited, self.clock()
        rates = self.rates(steps, count)
        share = (batches.waited - waited) / (self.clock() - started)
        return rates, statistics.mean(self.run.world.all_gather(share))

    def communication(self) -> float | None:
        """Return the seconds to sum the gradients of all trained weights over ranks."""
        run = self.run
        assert run.state.optimizer is not None
        if not run.strategy.communication_is_measurable:
            return None
        trained = parameters_of(run.state.optimizer)
        chosen = torch.ones(len(run.state.network.moe_layers), run.state.network.num_experts)
        seconds = []
        for _ in range(1 + self.trial.repeats):
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            seconds.append(self._time(lambda: run.strategy.reduce_gradients(trained, chosen)))
            self.alive()
        run.state.optimizer.zero_grad(set_to_none=True)
        return 0.0 if run.world.size == 1 else statistics.median(seconds[1:])

    def validation(self) -> float:
        """Return the images/s of scoring held-out images."""
        validate(self.run)
        self.alive()
        return len(self.run.data.validation) / self._time(lambda: validate(self.run))

    def _take(self, steps: Iterator[int], count: int, images: list[int]) -> None:
        images.extend(self._next(steps) for _ in range(count))

    def _next(self, steps: Iterator[int]) -> int:
        images = next(steps)
        self.alive()
        return images

    def _time(self, work: Callable[[], object]) -> float:
        """Seconds from when all ranks are ready until the last one is done."""
        world = self.run.world
        self._finish()
        world.all_gather(None)
        started = self.clock()
        work()
        self._finish()
        return world.all_reduce_max(torch.tensor([self.clock() - started], dtype=torch.float64)).item()

    def _finish(self) -> None:
        """Wait for the GPUs, which run asynchronously."""
        for device in self.run.strategy.devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)


def _begin(trial: Trial, world: World) -> Run:
    """A run with random weights, which need no internet; with planned routing they are as fast as any."""
    config = trial.config
    placement = place(config.run, world.size, sync_batchnorm=config.train.sync_batchnorm)
    accumulated = config.train.accumulation_steps * placement.count
    largest = max(config.train.batch_size, config.stage2_batch_size) * accumulated
    asked = config.data.num_workers
    workers = (
        auto_workers(world.local_size, on_gpu=own_device(placement, world).type == "cuda") if asked == "auto" else asked
    )
    ahead = _prefetched(workers)
    steps = _WARMUP_STEPS + ahead + 1 + trial.repeats * max(trial.steps or _MOST_STEPS, _LOADER_ROUNDS * ahead)
    network = build_network(config.model, config.train.seed, weights_follow=True)
    return assemble(
        config,
        RunFolder(shared_folder() or Path(), writes=False),
        _data(trial.images, at_least=steps * largest, validation=_VALIDATION_BATCHES * largest),
        network,
        placement,
        world,
        Deadline(),
    )


def _data(data: TrialData | None, at_least: int, validation: int) -> RunData:
    """Training images, repeated so that no epoch ends during a measurement, and some validation images."""
    if data is None:
        nothing = Pair("", Path(), Path())
        return RunData((), [nothing] * at_least, [], {}, generated=True)
    train = [data.files[row] for row in data.train]
    held_out = [data.files[row] for row in data.validation[:validation]]
    return RunData(data.files, train * -(-at_least // len(train)), held_out, {}, generated=False)


def _prefetched(workers: int) -> int:
    """Batches that a loader prefetches: torch's default is two per worker."""
    return 2 * workers


def _steps(run: Run, stage: Stage, batches: Iterator[SizedBatch]) -> Iterator[int]:
    """Train, and yield the number of images of each optimizer step."""
    run.state.progress.samples = 0
    return (step.images for step in training_steps(run, stage, stage.first, batches))


def _resident_batches(run: Run, stage: Stage) -> Iterator[SizedBatch]:
    """One batch of noise, already on the device, repeated forever."""
    size = stage.batch_size * run.placement.count
    return itertools.repeat((size, noise(size // run.world.size, run.config.data.img_size, run.device)))


def _peak_memory(run: Run) -> float:
    """Peak MiB allocated on this process's fullest device; on the CPU, of the process itself."""
    if run.device.type == "cpu":
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return peak_of_gpus(run.strategy.devices) / 2**20


def main() -> None:
    """Run one process of a trial."""
    end_with_parent()
    folder, rank = shared_folder(), os.environ["RANK"]
    assert folder is not None
    trial = Trial.from_mapping(read_job()["trial"])
    try:
        # A single process does not join a process group, so that cannot fail.
        world_of_trial = joined(_PATIENCE) if int(os.environ["WORLD_SIZE"]) > 1 else nullcontext(World())
        with deterministic(trial.config.train.deterministic), world_of_trial as world:
            measurement = measure(trial, world, (folder / f"alive{rank}").touch)
    except (CamoxError, RuntimeError) as error:
        told = _explained(error)
        if told is None:
            raise
        tell_launcher(told.message, told.hint, told.details)
        console.fail(told.message, told.hint, told.details)
        raise SystemExit(told.exit_code) from error
    if rank == "0":
        result: dict[str, Any] = asdict(measurement)
        (folder / "measurement.json").write_text(json.dumps(result), encoding="utf-8")


def _explained(error: CamoxError | RuntimeError) -> CamoxError | None:
    if isinstance(error, CamoxError):
        return error
    if is_out_of_memory(error):
        return TrainingError("the GPU ran out of memory", SMALLER)
    return to_camox_error(error)


if __name__ == "__main__":
    with ending_at_once():
        main()
