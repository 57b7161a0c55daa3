"""Which questions are asked, and what becomes of the answers, with processes that answer from a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.doctor import take_readings
from camoxpert_cli.doctor.examine import examine
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import Driver, Gpu, GpuTrial, Peers, StageMemory, TeamTrial
from camoxpert_cli.launch.processes import Failure

Answer = dict[str, Any] | Failure

SMALL, LARGE = (
    {"name": "Tesla T4", "memory": memory, "capability": [7, 5], "multiprocessors": 40}
    for memory in (8 << 30, 15 << 30)
)
WORKS = {"free": 7 << 30, "kernel": "", "convolution": "", "dtype": "float16"}
STAGES = [{"stage": 1, "batch_size": 16, "peak": 5 << 30}, {"stage": 2, "batch_size": 12, "peak": None}]


class Script:
    """Answers by the name of the probe; a function answers by arguments and environment. Keeps what was asked."""

    def __init__(self, cards: Sequence[Mapping[str, Any]], **answers: Any) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answers: dict[str, Any] = {
            "torch_build": {
                "version": "2.10.0",
                "cuda": "13.0",
                "architectures": ["sm_75"],
                "complaint": "",
                "gpus": cards,
            },
            "imports": {"torchvision": ""},
            "network": {"parameters": 1, "checkpoint": 4, "weights_here": True},
            "internet": {"host": "there"},
            "gpu": WORKS,
            "peers": {"pairs": 2, "direct": 1, "wrong": []},
            "data_parallel": {"difference": 0.0, "bandwidth": None},
            "ddp": {"difference": 0.0, "bandwidth": 1e9},
            "recipe": {"stages": STAGES},
            **answers,
        }

    def ask(self, module: str, *probe: str, seconds: float, environment: Mapping[str, str] | None = None) -> Answer:
        self.asked.append(probe)
        answer = self.answers[probe[0]]
        return answer(probe, environment or {}) if callable(answer) else answer

    def ask_together(
        self,
        module: str,
        probes: Sequence[tuple[str, ...]],
        *,
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        answers = [self.ask(module, *probe, seconds=seconds, environment=environment) for probe in probes]
        return answers[0]

    def arguments(self, name: str) -> list[tuple[str, ...]]:
        return [probe[1:] for probe in self.asked if probe[0] == name]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    def answer(
        *cards: Mapping[str, Any], smi: str | Failure = "580.1, Tesla T4\n580.1, Tesla T4\n", **answers: Any
    ) -> Script:
        script = Script(cards, **answers)
        monkeypatch.setattr(take_readings, "ask", script.ask)
        monkeypatch.setattr(take_readings, "ask_together", script.ask_together)
        monkeypatch.setattr(take_readings, "run_together", lambda commands, seconds: [smi])
        return script

    return answer


def readings(preset: str | None = None) -> Any:
    return take_readings.take_readings(Question(preset, resolve(preset or "kaggle-2xT4", {}).config), lambda text: None)


def test_two_cards(answering: Callable[..., Script]) -> None:
    """Everything is asked of each card, then of all together."""
    script = answering(SMALL, LARGE)

    taken = readings()

    assert taken.driver == Driver("580.1", ("Tesla T4", "Tesla T4"))
    assert taken.torch.gpus == (Gpu("Tesla T4", 8 << 30, (7, 5), 40), Gpu("Tesla T4", 15 << 30, (7, 5), 40))
    assert taken.gpus == (GpuTrial(7 << 30), GpuTrial(7 << 30))
    assert taken.peers == Peers(2, 1)
    assert taken.data_parallel == TeamTrial(0.0)
    assert taken.ddp == TeamTrial(0.0, 1e9)
    assert taken.ddp_without_peers is None
    assert taken.recipe is None
    assert sorted(script.arguments("gpu")) == [("cuda:0",), ("cuda:1",)]
    assert script.arguments("peers") == [("0,1",)]
    assert script.arguments("data_parallel") == [("cuda:0,cuda:1",)]
    assert [(rank, devices) for rank, devices, _ in script.arguments("ddp")] == [
        ("0", "cuda:0,cuda:1"),
        ("1", "cuda:0,cuda:1"),
    ]


def test_the_job_is_read(answering: Callable[..., Script], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time limit is among the readings."""
    answering(SMALL)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")

    assert readings().job_limit.left < 0


def test_a_broken_card_is_left_out(answering: Callable[..., Script]) -> None:
    """What all do together is asked of those that work alone."""

    def gpu(probe: tuple[str, ...], environment: Mapping[str, str]) -> Answer:
        return Failure("no answer within 180 s") if probe[1] == "cuda:1" else WORKS

    script = answering(SMALL, LARGE, LARGE, gpu=gpu)

    taken = readings()

    assert taken.working == (0, 2)
    assert script.arguments("peers") == [("0,2",)]
    assert script.arguments("data_parallel") == [("cuda:0,cuda:2",)]


def test_ddp_again_without_peers(answering: Callable[..., Script]) -> None:
    """A ddp that hangs is tried once more without direct access between the cards."""

    def ddp(probe: tuple[str, ...], environment: Mapping[str, str]) -> Answer:
        works = environment.get("NCCL_P2P_DISABLE") == "1"
        return {"difference": 0.0, "bandwidth": 2e9} if works else Failure("no answer within 180 s")

    answering(SMALL, LARGE, ddp=ddp)

    taken = readings()

    assert taken.ddp == Failure("no answer within 180 s")
    assert taken.ddp_without_peers == TeamTrial(0.0, 2e9)


def test_memory_on_the_smallest_card(answering: Callable[..., Script]) -> None:
    """A preset's stages run on the smallest of the cards it takes."""
    script = answering(LARGE, SMALL)

    taken = readings("kaggle-2xT4")

    assert taken.recipe == (StageMemory(1, 16, 5 << 30), StageMemory(2, 12, None))
    ((_, device),) = script.arguments("recipe")
    assert device == "cuda:1"
    readings("kaggle-1xT4")
    assert script.arguments("recipe")[-1][1] == "cuda:0"


def test_nothing_answers(answering: Callable[..., Script]) -> None:
    """Where no process answers, each reading says so, and nothing raises."""
    dead = Failure("its process was killed by SIGKILL")
    answering(smi=dead, torch_build=dead, imports=dead, network=dead, internet=dead)

    examination = examine("kaggle-2xT4", lambda text: None)

    assert examination.readings.torch == dead
    assert [each.name for each in examination.problems] == ["torch", "packages", "preset"]


@pytest.mark.parametrize("said", ["", "No devices were found\n"])
def test_driver_without_cards(answering: Callable[..., Script], said: str) -> None:
    """nvidia-smi may run and list nothing."""
    answering(SMALL, smi=said)

    assert readings().driver == Failure("nvidia-smi lists no GPU")
