"""What the readings of packages, processor, memory, disks, variables and the network mean."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.data.cores import workers_for
from camoxpert_cli.doctor.check_gpus import KAGGLE_CHOICE
from camoxpert_cli.doctor.finding import Finding, Question, Status
from camoxpert_cli.doctor.readings import Driver, Readings
from camoxpert_cli.doctor.system import OPENCV
from camoxpert_cli.doctor.words import count
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.worker import LAUNCHER_VARIABLES, WORKER_VARIABLES

# Batches that torch's loader has each worker prepare ahead, and those that a process holds beside them.
_AHEAD, _IN_HAND = 2, 2
# Bytes of a mask at its own size, as validation reads it: one of 1024 by 1024 pixels.
_MASK = 2**20
# With its imports and edgenext_base a process holds 1.0 GiB on the CPU; twice that leaves some for CUDA's libraries.
_RAM_PER_PROCESS = 2 * 2**30
# Training asks for the room of three checkpoints before it starts.
_CHECKPOINTS = 3


def machine_findings(readings: Readings, question: Question) -> list[Finding]:
    return [
        _imports(readings),
        _opencv(readings),
        _cores(readings, question),
        _ram(readings),
        _shared_memory(readings, question),
        _disk(readings),
        _variables(readings, question),
        _weights(readings, question),
        *_kaggle(readings),
    ]


def processes(readings: Readings) -> int:
    """That would train here: one for each GPU that works."""
    return max(1, len(readings.working))


def shared_memory_needed(readings: Readings, question: Question) -> int:
    """Bytes of the batches that loader workers hand over, at most."""
    config = question.config
    pixels = config.data.img_size**2
    image = max(4 * pixels, 3 * pixels + _MASK)
    batch = max(config.train.batch_size, config.stage2_batch_size)
    workers = _workers(readings, question)
    return 0 if workers == 0 else processes(readings) * (_AHEAD * workers + _IN_HAND) * batch * image


def shared_memory_too_small(readings: Readings, question: Question) -> bool:
    space = readings.shared_memory
    return not isinstance(space, Failure) and space.free < shared_memory_needed(readings, question)


def _workers(readings: Readings, question: Question) -> int:
    asked = question.config.data.num_workers
    return workers_for(readings.cores, processes(readings)) if asked == "auto" else asked


def _imports(readings: Readings) -> Finding:
    ran = "import, and one call of torchvision and cv2"
    ended = readings.imports
    if isinstance(ended, Failure):
        return Finding("packages", "problem", ran, ended.why, "install camox anew, in an environment of its own")
    broken = {name: error for name, error in ended.items() if error}
    versions = ", ".join(f"{name} {readings.packages[name]}" for name in ended if name in readings.packages)
    if not broken:
        return Finding("packages", "ok", ran, versions or "all work")
    # What needs torchvision fails with it, and says the same.
    name = next(iter(broken))
    result = f"{name} fails: {broken[name]}"
    if name == "torchvision":
        pair = f"torch {readings.packages.get('torch', '?')}, torchvision {readings.packages.get('torchvision', '?')}"
        return Finding(
            "packages",
            "problem",
            ran,
            f"{result} ({pair})",
            "torch and torchvision are of different builds: install both from one place",
            "pip install --force-reinstall torch torchvision",
        )
    if name == "cv2":
        return Finding("packages", "problem", ran, result, "install OpenCV anew", _one_opencv(readings))
    return Finding("packages", "problem", ran, result, "install it anew", f"pip install --force-reinstall {name}")


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
        f"{result}: {len(found)} packages write into one folder, cv2",
        "which one is read is chance; where import cv2 fails, keep one",
        _one_opencv(readings),
    )


def _one_opencv(readings: Readings) -> str:
    found = [name for name in OPENCV if name in readings.packages] or ["opencv-python-headless"]
    return f"pip uninstall -y {' '.join(found)} && pip install opencv-python-headless"


def _cores(readings: Readings, question: Question) -> Finding:
    ran = "affinity and container quota"
    ranks, cores, workers = processes(readings), readings.cores, _workers(readings, question)
    shared = f"{count(cores, 'core')}, {count(workers, 'loader worker')}"
    result = shared if ranks == 1 else f"{shared} for each of {ranks} processes"
    if workers * ranks > cores:
        return Finding(
            "CPU", "warning", ran, f"{result}: they take turns", "as many as there are cores:", "--num-workers auto"
        )
    if cores < ranks:
        return Finding("CPU", "warning", ran, f"{result}: fewer cores than GPUs, which will wait for pictures")
    return Finding("CPU", "ok", ran, result)


def _ram(readings: Readings) -> Finding:
    ran = "/proc/meminfo and container limit"
    space = readings.ram
    if isinstance(space, Failure):
        return Finding("RAM", "skipped", ran, space.why)
    result = f"{console.byte_size(space.free)} free of {console.byte_size(space.total)}"
    needed = processes(readings) * _RAM_PER_PROCESS
    if space.free < needed:
        result += f"; {count(processes(readings), 'GPU')} may take {console.byte_size(needed)}"
        return Finding("RAM", "warning", ran, result, "end other programs")
    return Finding("RAM", "ok", ran, result)


def _shared_memory(readings: Readings, question: Question) -> Finding:
    ran = "space of /dev/shm"
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
        f"{result}; loader workers may need {console.byte_size(needed)}, and die of a bus error",
        "give the container more (docker run --shm-size=2g), or load pictures without workers:",
        "--num-workers 0",
    )


def _disk(readings: Readings) -> Finding:
    ran = f"space below {readings.folder}"
    space, network = readings.disk, readings.network
    if isinstance(space, Failure):
        return Finding("disk", "skipped", ran, space.why)
    result = f"{console.byte_size(space.free)} free"
    if isinstance(network, Failure):
        return Finding("disk", "ok", ran, result)
    needed = _CHECKPOINTS * network.checkpoint
    if space.free < needed:
        result += f"; a run asks for {console.byte_size(needed)}, three checkpoints"
        return Finding("disk", "problem", ran, result, "free some space, or write to another disk: --checkpoint-dir")
    return Finding("disk", "ok", ran, f"{result}, a run asks for {console.byte_size(needed)}")


def _variables(readings: Readings, question: Question) -> Finding:
    ran = "environment"
    found = readings.environment
    stray = [name for name in LAUNCHER_VARIABLES if name in found]
    said = ", ".join(f"{name}={found[name]}" for name in found)
    if any(name in stray for name in WORKER_VARIABLES):
        result = f"{said}: camox would take itself for one of several processes, and wait for the others"
        return Finding("variables", "problem", ran, result, "forget them", f"unset {' '.join(stray)}")
    if "CUDA_VISIBLE_DEVICES" in found and isinstance(readings.driver, Driver):
        hidden = len(readings.driver.cards) - len(readings.seen)
        if hidden > 0:
            result = f"{said}: hides {count(hidden, 'GPU')} of {len(readings.driver.cards)}"
            command = f"unset {' '.join(['CUDA_VISIBLE_DEVICES', *stray])}"
            status: Status = "problem" if not readings.seen and question.needs_gpu else "warning"
            return Finding("variables", status, ran, result, "to see all", command)
    if stray:
        result = f"{said}: left by another launcher; camox does not read them, other programs may wait because of them"
        return Finding("variables", "warning", ran, result, "forget them", f"unset {' '.join(stray)}")
    if found.get("CUDA_LAUNCH_BLOCKING", "0") != "0":
        result = f"{said}: each kernel waits for the one before"
        return Finding("variables", "warning", ran, result, "for speed", "unset CUDA_LAUNCH_BLOCKING")
    return Finding("variables", "ok", ran, said or "none that get in the way")


def _weights(readings: Readings, question: Question) -> Finding:
    model, internet, network = question.config.model, readings.internet, readings.network
    ran = "a request to the place of timm's weights"
    reached = f"{internet} answers" if isinstance(internet, str) else internet.why
    if not model.pretrained or model.backbone_weights is not None:
        return Finding("internet", "ok", ran, f"{reached}; {question.preset} does not need it")
    if not isinstance(network, Failure) and network.weights_here:
        return Finding("internet", "ok", ran, f"{reached}; the weights of {model.backbone} are here already")
    if isinstance(internet, str):
        return Finding("internet", "ok", ran, f"{reached}: the weights of {model.backbone} will be fetched once")
    where = (
        "turn the internet on in the notebook's settings, or add the weights as an input and give"
        if readings.kaggle
        else "fetch the weights elsewhere, and give"
    )
    result = f"{reached}: the ImageNet weights of {model.backbone} cannot be fetched"
    return Finding("internet", "warning", ran, result, where, "--backbone-weights FILE")


def _kaggle(readings: Readings) -> list[Finding]:
    if not readings.kaggle:
        return []
    ran = "environment and /kaggle"
    kind = readings.environment.get("KAGGLE_KERNEL_RUN_TYPE", "")
    result = f"a Kaggle session{f' ({kind})' if kind else ''}, {count(len(readings.seen), 'GPU')}"
    if len(readings.seen) == 1 and readings.working:
        return [Finding("Kaggle", "warning", ran, result, f"for two: {KAGGLE_CHOICE}")]
    return [Finding("Kaggle", "ok", ran, result)]
