"""What doctor says of machines that are not here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.commands.doctor import to_json
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.doctor.check_gpus import supported
from camoxpert_cli.doctor.examine import judge, refuse_problems
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import (
    Driver,
    Gpu,
    GpuTrial,
    JobLimit,
    Network,
    Peers,
    Readings,
    Space,
    StageMemory,
    TeamTrial,
    Torch,
)
from camoxpert_cli.errors import DeviceError
from camoxpert_cli.launch.processes import Failure
from tests.helpers.machines import CU130, GIB, H100, NO_KERNEL, P100, T4, examined, finding, machine, troubles

HANGS = Failure("no answer within 180 s")
NO_DRIVER = Failure("there is no nvidia-smi on this machine")


def without_gpu(**changes: Any) -> Readings:
    torch = Torch("2.10.0+cu130", "13.0", CU130, "Found no NVIDIA driver on your system.")
    return machine(**{"driver": NO_DRIVER, "torch": torch, **changes})


def test_two_t4s() -> None:
    """Two T4s are what the presets were made for; nothing is to be done."""
    examination = examined(machine(T4, T4))

    assert troubles(examination) == {}
    recommended = examination.recommendation
    assert (recommended.preset, recommended.strategy) == ("kaggle-2xT4", "ddp")
    assert recommended.command == "camox train --preset kaggle-2xT4 --dataset-path DATA"
    first = finding(examination, "GPU 0")
    assert first.result == (
        "Tesla T4, 14.7 GiB, compute capability 7.5, 40 multiprocessors, no native bf16 (uses fp16), 14.3 GiB free"
    )
    assert first.ran == "a convolution in float16, forward and backward"
    assert finding(examination, "ddp").result.endswith("all_reduce at 5.0 GB/s")
    refuse_problems(examination)


def test_one_t4_on_kaggle() -> None:
    """Kaggle's default session has one card: its setting for two is named, and the preset for one recommended."""
    examination = examined(machine(T4, kaggle=True))

    assert troubles(examination) == {"Kaggle": "warning"}
    assert "GPU T4 x2 as the accelerator" in finding(examination, "Kaggle").advice
    assert finding(examination, "several GPUs").status == "skipped"
    assert examination.recommendation.command == "camox train --preset kaggle-1xT4 --dataset-path DATA"
    assert examination.recommendation.strategy == "single"


@pytest.mark.parametrize("kaggle", [True, False])
def test_p100(kaggle: bool) -> None:
    """A P100 is there and holds memory, but a build for newer cards has no kernel for it: only running one shows it."""
    examination = examined(machine(P100, kaggle=kaggle, gpus=(GpuTrial(16 * GIB, kernel=NO_KERNEL),)))

    assert troubles(examination) == {"GPU 0": "problem"}
    card = finding(examination, "GPU 0")
    assert NO_KERNEL in card.result
    if kaggle:
        assert "GPU T4 x2" in card.advice
    else:
        assert card.command == (
            "pip install torch==2.10.0 torchvision==0.25.0 --index-url https://download.pytorch.org/whl/cu126"
        )
    assert examination.recommendation.preset == "quickstart"
    with pytest.raises(DeviceError) as caught:
        refuse_problems(examination)
    assert caught.value.hint == (card.command or card.advice)


def test_the_kernel_is_the_judge() -> None:
    """A card on which kernels run is well, whatever the list of architectures says."""
    readings = machine(T4, torch=Torch("2.10.0", "13.0", ("sm_90",), gpus=(T4,)))

    assert troubles(examined(readings)) == {}


def test_eight_h100s() -> None:
    """On eight cards the nearest preset keeps its images a step, 32 and 24, and ddp is the strategy."""
    examination = examined(machine(*[H100] * 8))

    assert troubles(examination) == {}
    assert finding(examination, "GPU 7").ran == "a convolution in bfloat16, forward and backward"
    assert examination.recommendation.strategy == "ddp"
    assert examination.recommendation.command == (
        "camox train --preset kaggle-2xT4 --gpus 8 --batch-size 4 --stage2-batch-size 3 --dataset-path DATA"
    )


@pytest.mark.parametrize(
    ("version", "command"),
    [
        (
            "535.104.05",
            "pip install torch==2.10.0 torchvision==0.25.0 --index-url https://download.pytorch.org/whl/cu128",
        ),
        ("470.82.01", ""),
    ],
)
def test_driver_too_old(version: str, command: str) -> None:
    """A driver older than torch's CUDA is the one problem; a build for it is named where there is one."""
    torch = Torch("2.14.1+cu130", "13.0", CU130, "The NVIDIA driver on your system is too old (found version 12020).")
    examination = examined(machine(driver=Driver(version, ("Tesla T4",)), torch=torch))

    assert troubles(examination) == {"driver": "problem"}
    driver = finding(examination, "driver")
    assert "needs driver 580 or newer" in driver.result
    assert "install driver 580 or newer" in driver.advice
    assert driver.command == command


def test_torch_without_cuda() -> None:
    """A card beside a build without CUDA is torch's problem, not the card's."""
    readings = machine(driver=Driver("580.1", ("Tesla T4",)), torch=Torch("2.10.0+cpu", None, (), "not compiled"))

    examination = examined(readings)

    assert troubles(examination) == {"torch": "problem"}
    assert finding(examination, "torch").command.endswith("/cu130")


def test_torch_that_cannot_be_imported() -> None:
    """Where torch itself does not start, the rest is still told."""
    broken = Failure("ImportError: libcudart.so.13: cannot open shared object file")
    examination = examined(machine(torch=broken, imports=broken, network=broken))

    assert troubles(examination) == {"torch": "problem", "packages": "problem"}
    assert finding(examination, "disk").status == "ok"


def test_a_driver_that_hides_its_cards() -> None:
    """Cards that the driver has and torch does not get, without a known cause, are told with torch's own words."""
    torch = Torch("2.10.0+cu130", "13.0", CU130, "CUDA unknown error")
    examination = examined(machine(driver=Driver("580.1", ("Tesla T4",)), torch=torch))

    assert troubles(examination) == {"GPUs": "problem"}
    assert finding(examination, "GPUs").result == "none, although the driver lists 1 GPU: CUDA unknown error"


def test_no_gpu() -> None:
    """Without a GPU that is the problem, and what trains without one is named."""
    examination = examined(without_gpu())

    assert troubles(examination) == {"GPUs": "problem"}
    assert finding(examination, "GPUs").command == "camox train --preset quickstart"
    assert examination.recommendation.command == "camox train --preset quickstart"
    with pytest.raises(DeviceError, match="cannot train on GPUs; failed checks: GPUs"):
        refuse_problems(examination)


@pytest.mark.parametrize(
    ("settings", "flags", "reason"),
    [
        ({"data.generated_images": 40}, "", "It trains on the CPU and needs no data."),
        ({}, " --dataset-path DATA", "It trains on the CPU."),
        ({"data.generated_images": 40, "data.dataset_path": ["data"]}, "", "It trains on the CPU."),
    ],
)
def test_a_cpu_preset_of_ones_own(settings: dict[str, Any], flags: str, reason: str) -> None:
    """Its data are asked for unless it names them or has them generated."""
    config = resolve(None, {"run.device": "cpu", **settings}).config
    recommended = judge(without_gpu(), Question("mine.yaml", config)).recommendation

    assert recommended.command == f"camox train --preset mine.yaml{flags}"
    assert recommended.why == (reason,)


def test_no_gpu_on_kaggle() -> None:
    """A Kaggle session without an accelerator is told which to choose."""
    examination = examined(without_gpu(kaggle=True))

    assert "GPU T4 x2" in finding(examination, "GPUs").advice


def test_a_recipe_for_the_cpu_needs_no_gpu() -> None:
    """quickstart fits a machine without a GPU."""
    examination = examined(without_gpu(internet=Failure("no network")), "quickstart")

    assert troubles(examination) == {}
    assert examination.recommendation.command == "camox train --preset quickstart"


def test_hanging_peer_access() -> None:
    """Cards whose copies hang train without direct access, which was tried; the command says so."""
    readings = machine(T4, T4, peers=HANGS, data_parallel=HANGS, ddp=HANGS, ddp_without_peers=TeamTrial(1e-7, 2e9))
    examination = examined(readings)

    assert troubles(examination) == {"peer access": "warning", "dp": "warning", "ddp": "warning"}
    assert "no answer within 180 s" in finding(examination, "ddp").result
    assert finding(examination, "ddp").command == "export NCCL_P2P_DISABLE=1"
    assert examination.recommendation.command == (
        "NCCL_P2P_DISABLE=1 camox train --preset kaggle-2xT4 --dataset-path DATA"
    )


def test_wrong_copies() -> None:
    """Copies that arrive wrong are told with their direction."""
    examination = examined(machine(T4, T4, peers=Peers(2, 2, ("0 to 1",))))

    assert finding(examination, "peer access").result == "wrong values copied from GPU 0 to 1"


def test_only_data_parallel() -> None:
    """Where ddp fails and DataParallel does not, that is the strategy."""
    examination = examined(machine(T4, T4, ddp=HANGS, ddp_without_peers=HANGS))

    assert examination.recommendation.strategy == "dp"
    assert examination.recommendation.command == ("camox train --preset kaggle-2xT4 --strategy dp --dataset-path DATA")
    assert finding(examination, "ddp").advice == "train with --strategy dp"


def test_cards_that_do_not_work_together() -> None:
    """Where neither works one card trains, and a recipe for two does not fit."""
    readings = machine(T4, T4, data_parallel=HANGS, ddp=HANGS, ddp_without_peers=HANGS, recipe=(fits_on_t4(),))

    alone, asked = examined(readings), examined(readings, "kaggle-2xT4")

    assert alone.recommendation.command == "camox train --preset kaggle-1xT4 --dataset-path DATA"
    assert alone.problems == []
    assert [each.name for each in asked.problems] == ["preset"]


def test_one_of_several_cards_is_broken() -> None:
    """The others train without it; a recipe that needs it too does not fit."""
    readings = machine(T4, T4, gpus=(Failure("its process was killed by SIGSEGV"), GpuTrial(14 * GIB)), ddp=None)

    examination = examined(readings)

    assert troubles(examination) == {"GPU 0": "warning"}
    assert finding(examination, "GPU 0").advice == "leave it out: --devices 1 --gpus 1"
    assert examination.recommendation.command == "camox train --preset kaggle-1xT4 --devices 1 --dataset-path DATA"
    assert [each.name for each in examined(readings, "kaggle-2xT4").problems] == ["preset"]


def test_memory_that_others_hold() -> None:
    """A card that another program uses is a warning."""
    examination = examined(machine(T4, gpus=(GpuTrial(5 * GIB),)))

    assert troubles(examination) == {"GPU 0": "warning"}
    assert "only 5.0 GiB free" in finding(examination, "GPU 0").result


def fits_on_t4() -> StageMemory:
    return StageMemory(2, 12, 9 * GIB)


def test_recipe_that_fits() -> None:
    """A preset that fits is recommended, with what its stages took."""
    stages = (StageMemory(1, 16, 7 * GIB), fits_on_t4())
    examination = examined(machine(T4, T4, recipe=stages), "kaggle-2xT4")

    assert troubles(examination) == {}
    assert finding(examination, "GPU memory").result == (
        "stage 1 at batch size 16 uses 7.0 GiB, stage 2 at batch size 12 uses 9.0 GiB; the GPU has 14.7 GiB"
    )
    assert examination.recommendation.why[0] == "It fits this machine."


def test_recipe_that_runs_out_of_memory() -> None:
    """A preset too large is a problem, and batches of half the size make the same steps."""
    stages = (StageMemory(1, 24, 12 * GIB), StageMemory(2, 16, None))
    examination = examined(machine(T4, T4, recipe=stages), "kaggle-2xT4-fast")

    assert troubles(examination) == {"GPU memory": "problem"}
    memory = finding(examination, "GPU memory")
    assert memory.result == "stage 2 at batch size 16 runs out of memory; the GPU has 14.7 GiB"
    assert memory.command == "--batch-size 12 --stage2-batch-size 8 --accumulation-steps 2"
    assert examination.recommendation.command == (
        f"camox train --preset kaggle-2xT4-fast {memory.command} --dataset-path DATA"
    )


def test_recipe_whose_steps_fail() -> None:
    """Steps that end with another error are a problem that smaller batches do not solve."""
    examination = examined(machine(T4, T4, recipe=Failure("RuntimeError: cuDNN error")), "kaggle-2xT4-fast")

    assert troubles(examination) == {"preset steps": "problem"}
    assert examination.recommendation.preset == "kaggle-2xT4"


def test_recipe_that_is_tight() -> None:
    """A preset that just fits is a warning."""
    examination = examined(machine(T4, T4, recipe=(StageMemory(2, 12, int(14.2 * GIB)),)), "kaggle-2xT4")

    assert troubles(examination) == {"GPU memory": "warning"}


def test_recipe_for_more_cards() -> None:
    """A preset for two cards on one: the flags that keep its steps are named, the preset for one is recommended."""
    examination = examined(machine(T4, recipe=(fits_on_t4(),)), "kaggle-2xT4")

    assert troubles(examination) == {"preset": "problem"}
    recipe = finding(examination, "preset")
    assert recipe.result == "needs 2 GPUs; this machine has 1 working GPU"
    assert recipe.command == "camox train --preset kaggle-2xT4 --gpus 1 --accumulation-steps 2"
    assert examination.recommendation.preset == "kaggle-1xT4"


def test_recipe_without_a_gpu() -> None:
    """Memory that was not measured is not guessed."""
    examination = examined(without_gpu(), "kaggle-2xT4")

    assert troubles(examination) == {"GPUs": "problem", "preset": "problem"}
    assert finding(examination, "GPU memory").result == "not measured: needs a working GPU"


def test_torch_and_torchvision_of_different_builds() -> None:
    """The error that timm's import would end with is torchvision's, and both are to be installed from one place."""
    error = "RuntimeError: operator torchvision::nms does not exist"
    readings = machine(T4, imports={"torchvision": error, "cv2": "", "timm": error})

    examination = examined(readings)

    assert troubles(examination) == {"packages": "problem"}
    packages = finding(examination, "packages")
    assert packages.result == f"torchvision fails: {error} (torch 2.10.0, torchvision 0.25.0)"
    assert packages.command == "pip install --force-reinstall torch torchvision"


def test_two_opencvs() -> None:
    """Two packages in one folder are a warning as long as cv2 works, and a problem once it does not."""
    packages = {"opencv-python": "5.0.0.93", "opencv-python-headless": "4.14.0.94"}
    command = "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless"
    works = examined(machine(T4, packages=packages))
    fails = examined(machine(T4, packages=packages, imports={"torchvision": "", "cv2": "AttributeError: __version__"}))

    assert troubles(works) == {"OpenCV": "warning"}
    assert troubles(fails) == {"OpenCV": "warning", "packages": "problem"}
    assert finding(works, "OpenCV").command == finding(fails, "packages").command == command


def test_tiny_shared_memory() -> None:
    """Docker's 64 MiB do not hold the workers' batches: without workers they are not needed."""
    examination = examined(machine(T4, T4, shared_memory=Space(64 * 2**20, 64 * 2**20)))

    assert troubles(examination) == {"/dev/shm": "warning"}
    assert "--num-workers 0" in examination.recommendation.command


def test_full_disk() -> None:
    """A disk without room for the checkpoints is a problem, for training will not start."""
    assert troubles(examined(machine(T4, disk=Space(20 * GIB, GIB)))) == {"disk": "problem"}


def test_little_main_memory_and_few_cores() -> None:
    """Two processes on one core and 3 GiB are slow, or worse."""
    examination = examined(machine(T4, T4, ram=Space(32 * GIB, 3 * GIB), cores=1))

    assert troubles(examination) == {"CPU": "warning", "RAM": "warning"}


@pytest.mark.parametrize(
    ("given_settings", "status"),
    [({}, "warning"), ({"model.backbone_weights": "weights.pth"}, "ok"), ({"model.pretrained": "false"}, "ok")],
)
def test_weights_that_need_no_internet(given_settings: dict[str, str], status: str) -> None:
    """Where the weights are given, or none are wanted, a machine without internet lacks nothing."""
    question = Question("mine.yaml", resolve("kaggle-1xT4", given_settings).config)
    internet = finding(judge(machine(T4, internet=Failure("nothing answers")), question), "internet")

    assert internet.status == status
    assert ("mine.yaml does not need it" in internet.result) is (status == "ok")


@pytest.mark.parametrize(("cards", "status"), [((T4,), "ok"), ((T4, T4), "warning")])
def test_loader_workers_of_every_process(cards: tuple[Gpu, ...], status: str) -> None:
    """Workers that were asked for are so many in each process: three on four cores are too many for two GPUs."""
    config = resolve("kaggle-2xT4", {"data.num_workers": "3"}).config
    cpu = finding(judge(machine(*cards, cores=4), Question(None, config)), "CPU")

    assert (cpu.status, cpu.command) == (status, "--num-workers auto" if status == "warning" else "")


@pytest.mark.parametrize(
    ("environment", "status", "command"),
    [
        ({"RANK": "0", "NODE_RANK": "0"}, "warning", "unset RANK NODE_RANK"),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, "problem", "unset RANK TORCHELASTIC_RUN_ID"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "warning", "unset CUDA_VISIBLE_DEVICES"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "warning", "unset CUDA_LAUNCH_BLOCKING"),
        ({"NCCL_P2P_DISABLE": "1"}, "ok", ""),
        ({}, "ok", ""),
    ],
)
def test_variables(environment: dict[str, str], status: str, command: str) -> None:
    """Variables that another program left are named, with what makes the shell forget them."""
    readings = machine(T4, driver=Driver("580.1", ("Tesla T4", "Tesla T4")), environment=environment)

    variables = finding(examined(readings), "environment")

    assert (variables.status, variables.command) == (status, command)


def test_variable_that_hides_every_card() -> None:
    """An empty CUDA_VISIBLE_DEVICES is the problem where the driver has cards."""
    readings = without_gpu(driver=Driver("580.1", ("Tesla T4",)), environment={"CUDA_VISIBLE_DEVICES": ""})

    assert troubles(examined(readings)) == {"environment": "problem"}


@pytest.mark.parametrize(
    ("limit", "status", "result", "command"),
    [
        (
            JobLimit("the time limit of Slurm job 7", 5400.0),
            "ok",
            "1h30m remaining of the time limit of Slurm job 7",
            "",
        ),
        (
            JobLimit("the time limit of Slurm job 7", -60.0),
            "warning",
            "the time limit of Slurm job 7 passed 1m ago; camox ignores it",
            "unset SLURM_JOB_END_TIME",
        ),
        (Failure("SLURM_JOB_END_TIME is 'x'"), "problem", "SLURM_JOB_END_TIME is 'x'", "unset SLURM_JOB_END_TIME"),
    ],
)
def test_limit_of_a_job(limit: JobLimit | Failure, status: str, result: str, command: str) -> None:
    """What limits every run that starts here is said before one starts."""
    found = finding(examined(machine(T4, job_limit=limit)), "time limit")

    assert (found.status, found.result, found.command) == (status, result, command)


def test_no_internet() -> None:
    """Without a network the weights have to come from a file, unless they are here already."""
    readings = machine(T4, internet=Failure("https://huggingface.co does not answer"))
    here = replace(readings, network=Network(31_000_000, 500_000_000, weights_here=True))

    internet = finding(examined(readings), "internet")

    assert (internet.status, internet.command) == ("warning", "--backbone-weights FILE")
    assert finding(examined(here), "internet").status == "ok"


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((7, 5), CU130, True),
        ((8, 9), CU130, True),
        ((9, 0), ("sm_90a",), True),
        ((6, 0), CU130, False),
        ((7, 0), CU130, False),
        ((12, 1), ("sm_80", "compute_90"), True),
        ((8, 0), ("sm_86",), False),
        ((8, 0), (), False),
    ],
)
def test_supported(capability: tuple[int, int], architectures: tuple[str, ...], expected: bool) -> None:
    """Code serves later cards of its own generation; intermediate code serves all later ones."""
    assert supported(capability, architectures) is expected


failures = st.builds(Failure, st.sampled_from(["no answer within 180 s", "its process was killed by SIGSEGV"]))


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([T4, P100, H100]), max_size=4),
    st.dictionaries(
        st.sampled_from(
            ["driver", "torch", "imports", "network", "internet", "ram", "shared_memory", "disk", "peers", "ddp"]
        ),
        failures,
    ),
    st.sampled_from([None, "quickstart", "kaggle-2xT4", "baseline"]),
    st.booleans(),
)
def test_any_reading_may_be_missing(
    cards: list[Any], missing: dict[str, Failure], preset: str | None, kaggle: bool
) -> None:
    """Whatever could not be read, all the rest is judged, what is wrong says what to do, and there is a command."""
    if "torch" in missing:
        missing = {**missing, "gpus": ()}  # type: ignore[dict-item]
    examination = examined(machine(*cards, **{"kaggle": kaggle, **missing}), preset)

    assert all(each.advice or each.command for each in examination.problems)
    assert examination.recommendation.command.startswith(("camox train", "NCCL_P2P_DISABLE=1 camox train"))
    assert to_json(examination)["usable"] is not bool(examination.problems)


@pytest.mark.parametrize(
    ("cards", "given_settings", "status", "said"),
    [
        ([T4], {}, "warning", "training works without, but compiled steps may be faster"),
        ([T4], {"train.compile": "off"}, "ok", "--compile off does not use it"),
        ([], {}, "ok", "--compile auto does not use it"),
        ([], {"train.compile": "on"}, "warning", "training works without"),
    ],
)
def test_no_compiler(cards: list[Gpu], given_settings: dict[str, str], status: str, said: str) -> None:
    """It is missing only where steps would be compiled, and no run needs it."""
    question = Question("kaggle-1xT4", resolve("kaggle-1xT4", given_settings).config)
    readings = replace(machine(*cards) if cards else without_gpu(), compiler="no compiler was found")
    compiler = finding(judge(readings, question), "compiler")

    assert compiler.status == status
    assert compiler.result.startswith("no compiler was found; ")
    assert said in compiler.result


def test_a_compiler_that_is_found() -> None:
    """What is done with it depends on the device."""
    assert finding(examined(machine(T4)), "compiler").result == "found; --compile auto tries it"
    assert finding(examined(without_gpu()), "compiler").result == "found; --compile auto does not use it on the CPU"
