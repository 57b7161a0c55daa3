"""Judge the readings of packages, CPU, memory, disk, environment variables and network."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.data.cores import workers_for
from camoxpert_cli.doctor.check_gpus import KAGGLE_CHOICE
from camoxpert_cli.doctor.finding import Finding, Question, Status
from camoxpert_cli.doctor.readings import Driver, Readings
from camoxpert_cli.doctor.system import OPENCV
from camoxpert_cli.engine.time_limit import SLURM_END
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.worker import LAUNCHER_VARIABLES, WORKER_VARIABLES

# Batches that each loader worker prefetches, and those that a process holds in addition.
_AHEAD, _IN_HAND = 2, 2
# Bytes of a mask at its original size, as validation reads it: 1024 by 1024 pixels.
_MASK = 2**20
# With its imports and edgenext_base a process uses 1.0 GiB on the CPU; twice that leaves room for CUDA's libraries.
_RAM_PER_PROCESS = 2 * 2**30
# Training requires free space for three checkpoints before it starts.
_CHECKPOINTS = 3


def machine_findings(readings: Readings, question: Question) -> list[Finding]:
    """Return findings on everything about the machine other than its GPUs."""
    return [
        _imports(readings),
        _opencv(readings),
        _compiler(readings, question),
        _cores(readings, question),
        _ram(readings),
        _shared_memory(readings, question),
        _disk(readings),
        _variables(readings, question),
        _weights(readings, question),
        *_kaggle(readings),
        *_job_limit(readings),
    ]


def processes(readings: Readings) -> int:
    """Return how many processes would train here: one per working GPU."""
    return max(1, len(readings.working))


def shared_memory_needed(readings: Readings, question: Question) -> int:
    """Return the most bytes of shared memory that batches from the loader workers occupy at a time."""
    config = question.config
    pixels = config.data.img_size**2
    image = max(4 * pixels, 3 * pixels + _MASK)
    batch = max(config.train.batch_size, config.stage2_batch_size)
    workers = _workers(readings, question)
    return 0 if workers == 0 else processes(readings) * (_AHEAD * workers + _IN_HAND) * batch * image


def shared_memory_too_small(readings: Readings, question: Question) -> bool:
    """Return whether /dev/shm is known to have less free space than loader workers may need."""
    space = readings.shared_memory
    return not isinstance(space, Failure) and space.free < shared_memory_needed(readings, question)


def _workers(readings: Readings, question: Question) -> int:
    asked = question.config.data.num_workers
    return workers_for(readings.cores, processes(readings), on_gpu=bool(readings.working)) if asked == "auto" else asked


def _imports(readings: Readings) -> Finding:
    ran = "imports, plus one call each to torchvision and cv2"
    ended = readings.imports
    if isinstance(ended, Failure):
        return Finding("packages", "problem", ran, ended.why, "reinstall camox in its own virtual environment")
    broken = {name: error for name, error in ended.items() if error}
    versions = ", ".join(f"{name} {readings.packages[name]}" for name in ended if name in readings.packages)
    if not broken:
        return Finding("packages", "ok", ran, versions or "all work")
    # Packages that import torchvision fail with it, with the same message.
    name = next(iter(broken))
    result = f"{name} fails: {broken[name]}"
    if name == "torchvision":
        pair = f"torch {readings.packages.get('torch', '?')}, torchvision {readings.packages.get('torchvision', '?')}"
        return Finding(
            "packages",
            "problem",
            ran,
            f"{result} ({pair})",
            "torch and torchvision come from different builds: install both from the same index",
            "pip install --force-reinstall torch torchvision",
        )
    if name == "cv2":
        return Finding("packages", "problem", ran, result, "reinstall OpenCV", _one_opencv(readings))
    return Finding("packages", "problem", ran, result, "reinstall it", f"pip install --force-reinstall {name}")


def _opencv(readings: Readings) -> Finding:
    ran = "installed packages"
    found = {name: readings.packages[name] for name in OPENCV if name in readings.packages}
    result = ", ".join(f"{name} {version}" for name, version in found.items()) or "none installed under a known name"
    if len(found) < 2:
        return Finding("OpenCV", "ok", ran, result)
    return Finding(
        "OpenCV",
        "warning",
        ran,
        f"{result}: {len(found)} packages install into the same folder, cv2",
        "which one is imported is undefined; if import cv2 fails, keep only one",
        _one_opencv(readings),
    )


def _one_opencv(readings: Readings) -> str:
    found = [name for name in OPENCV if name in readings.packages] or ["opencv-python-headless"]
    return f"pip uninstall -y {' '.join(found)} && pip install opencv-python-headless"


def _compiler(readings: Readings, question: Question) -> Finding:
    """Whether torch.compile can work: that no run needs it makes what is missing a warning, and only on GPUs."""
    ran = "Triton, a C compiler, Python.h" if readings.seen else "a C++ compiler, Python.h"
    missing, asked = readings.compiler, question.config.train.compile
    if not missing:
        use = "tries it" if readings.seen else "does not use it on the CPU"
        return Finding("compiler", "ok", ran, f"found; --compile auto {use}")
    result = f"{missing}; training works without, but compiled steps may be faster"
    if asked == "off" or (asked == "auto" and not readings.seen):
        return Finding("compiler", "ok", ran, f"{missing}; --compile {asked} does not use it")
    return Finding("compiler", "warning", ran, result, "install it, or turn it off:", "--compile off")


def _cores(readings: Readings, question: Question) -> Finding:
    ran = "CPU affinity and container quota"
    ranks, cores, workers = processes(readings), readings.cores, _workers(readings, question)
    shared = f"{console.counted(cores, 'core')}, {console.counted(workers, 'loader worker')}"
    result = shared if ranks == 1 else f"{shared} for each of {ranks} processes"
    if workers * ranks > cores:
        return Finding(
            "CPU", "warning", ran, f"{result}: more workers than cores", "use one per core:", "--num-workers auto"
        )
    if cores < ranks:
        return Finding("CPU", "warning", ran, f"{result}: fewer cores than GPUs; the GPUs will wait for data")
    return Finding("CPU", "ok", ran, result)


def _ram(readings: Readings) -> Finding:
    ran = "/proc/meminfo and container limit"
    space = readings.ram
    if isinstance(space, Failure):
        return Finding("RAM", "skipped", ran, space.why)
    result = f"{console.byte_size(space.free)} free of {console.byte_size(space.total)}"
    needed = processes(readings) * _RAM_PER_PROCESS
    if space.free < needed:
        result += f"; training on {console.counted(processes(readings), 'GPU')} may need {console.byte_size(needed)}"
        return Finding("RAM", "warning", ran, result, "close other programs")
    return Finding("RAM", "ok", ran, result)


def _shared_memory(readings: Readings, question: Question) -> Finding:
    ran = "free space in /dev/shm"
    space = readings.shared_memory
    if isinstance(space, Failure):
        return Finding("/dev/shm", "skipped", ran, space.why)
    result = f"{console.byte_size(space.free)} free of {console.byte_size(space.total)}"
    if not shared_memory_too_small(readings, question):
        return Finding("/dev/shm", "ok", ran, result)
    needed = shared_memory_needed(readings, question)
    return Finding(
        "/dev/shm",
        "warning",
        ran,
        f"{result}; loader workers may need {console.byte_size(needed)} and crash with a bus error",
        "give the container more (docker run --shm-size=2g), or load images without workers:",
        "--num-workers 0",
    )


def _disk(readings: Readings) -> Finding:
    ran = f"free space in {readings.folder}"
    space, network = readings.disk, readings.network
    if isinstance(space, Failure):
        return Finding("disk", "skipped", ran, space.why)
    result = f"{console.byte_size(space.free)} free"
    if isinstance(network, Failure):
        return Finding("disk", "ok", ran, result)
    needed = _CHECKPOINTS * network.checkpoint
    if space.free < needed:
        result += f"; a run needs {console.byte_size(needed)} (three checkpoints)"
        return Finding("disk", "problem", ran, result, "free some space, or write to another disk: --checkpoint-dir")
    return Finding("disk", "ok", ran, f"{result}; a run needs {console.byte_size(needed)}")


def _variables(readings: Readings, question: Question) -> Finding:
    ran = "environment variables"
    found = readings.environment
    stray = [name for name in LAUNCHER_VARIABLES if name in found]
    said = ", ".join(f"{name}={found[name]}" for name in found)
    if any(name in stray for name in WORKER_VARIABLES):
        result = f"{said}: camox would act as one of several processes and wait for the others"
        return Finding("environment", "problem", ran, result, "unset them", f"unset {' '.join(stray)}")
    if "CUDA_VISIBLE_DEVICES" in found and isinstance(readings.driver, Driver):
        hidden = len(readings.driver.cards) - len(readings.seen)
        if hidden > 0:
            result = f"{said}: hides {hidden} of {console.counted(len(readings.driver.cards), 'GPU')}"
            command = f"unset {' '.join(['CUDA_VISIBLE_DEVICES', *stray])}"
            status: Status = "problem" if not readings.seen and question.needs_gpu else "warning"
            return Finding("environment", status, ran, result, "to use all GPUs", command)
    if stray:
        result = f"{said}: left over from another launcher; camox ignores them, other programs may wait because of them"
        return Finding("environment", "warning", ran, result, "unset them", f"unset {' '.join(stray)}")
    if found.get("CUDA_LAUNCH_BLOCKING", "0") != "0":
        result = f"{said}: every kernel launch waits for the GPU, which is slow"
        return Finding("environment", "warning", ran, result, "for full speed", "unset CUDA_LAUNCH_BLOCKING")
    return Finding("environment", "ok", ran, said or "nothing that affects training")


def _weights(readings: Readings, question: Question) -> Finding:
    model, internet, network = question.config.model, readings.internet, readings.network
    ran = "a request to the host of timm's weights"
    reached = f"{internet} can be reached" if isinstance(internet, str) else internet.why
    if not model.pretrained or model.backbone_weights is not None:
        return Finding("internet", "ok", ran, f"{reached}; {question.preset} does not need it")
    if not isinstance(network, Failure) and network.weights_here:
        return Finding("internet", "ok", ran, f"{reached}; the weights of {model.backbone} are already cached")
    if isinstance(internet, str):
        return Finding("internet", "ok", ran, f"{reached}; the weights of {model.backbone} will be downloaded once")
    where = (
        "turn on the internet in the notebook settings, or add the weights as an input and pass"
        if readings.kaggle
        else "download the weights on another machine and pass"
    )
    result = f"{reached}; the ImageNet weights of {model.backbone} cannot be downloaded"
    return Finding("internet", "warning", ran, result, where, "--backbone-weights FILE")


def _kaggle(readings: Readings) -> list[Finding]:
    if not readings.kaggle:
        return []
    ran = "environment variables and /kaggle"
    kind = readings.environment.get("KAGGLE_KERNEL_RUN_TYPE", "")
    result = f"Kaggle session{f' ({kind})' if kind else ''}, {console.counted(len(readings.seen), 'GPU')}"
    if len(readings.seen) == 1 and readings.working:
        return [Finding("Kaggle", "warning", ran, result, f"for two GPUs, {KAGGLE_CHOICE}")]
    return [Finding("Kaggle", "ok", ran, result)]


def _job_limit(readings: Readings) -> list[Finding]:
    limit = readings.job_limit
    if limit is None:
        return []
    ran = SLURM_END
    if isinstance(limit, Failure):
        return [Finding("time limit", "problem", ran, limit.why, command=f"unset {SLURM_END}")]
    if limit.left <= 0:
        result = f"{limit.name} passed {format_duration(-limit.left)} ago; camox ignores it"
        return [Finding("time limit", "warning", ran, result, "if that job is over", f"unset {SLURM_END}")]
    return [Finding("time limit", "ok", ran, f"{format_duration(limit.left)} remaining of {limit.name}")]
