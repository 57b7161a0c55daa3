"""What `camox benchmark` makes of its measurements."""

from __future__ import annotations

from typing import Any

import pytest

from camoxpert_cli.benchmark.benchmark import Benchmark, Row, benchmark, with_speedups
from camoxpert_cli.benchmark.report import epochs_within, to_json, to_markdown, to_text, verdict
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult
from camoxpert_cli.launch.trial import Measurement

STAGES = {1: Stage(1, 0, 30, 16, 1e-3, 0), 2: Stage(2, 30, 140, 12, 1e-4, 10)}
KEYS = [
    "gpus",
    "strategy",
    "stage",
    "images_per_s",
    "minutes_per_epoch",
    "speedup",
    "efficiency",
    "data_wait",
    "peak_memory_mib",
]


def measured(rate: float, **parts: Any) -> Measurement:
    values: dict[str, Any] = {
        "device": "Tesla T4",
        "workers": 4,
        "threads": 2,
        "compute": [1.1 * rate],
        "loader": [10 * rate],
        "end_to_end": [0.9 * rate, rate, 1.2 * rate],
        "data_wait": 0.01,
        "communication": 0.0,
        "validation": 404.0,
        "peak_memory_mib": 9000.4,
    }
    return Measurement(**{**values, **parts})


def row(gpus: int, stage: int, outcome: TrialResult, strategy: str = "") -> Row:
    return Row(gpus, strategy or ("single" if gpus == 1 else "ddp"), STAGES[stage], 1, outcome)


def result(*rows: Row, preset: str | None = "kaggle-2xT4", **flags: Any) -> Benchmark:
    machine = {"device": "Tesla T4", "gpus": 2, "cores": 4, "threads_per_process": 2, "torch": "2.15.0"}
    config = resolve(preset, flags).config
    return Benchmark(machine, config, preset, "4040 training images per epoch", 4040, 404, with_speedups(rows))


@pytest.fixture
def both() -> Benchmark:
    """One GPU and two, 1.8 times as fast in stage 1 and 1.9 times in stage 2."""
    return result(
        row(1, 1, measured(40.4)),
        row(1, 2, measured(20.2)),
        row(2, 1, measured(72.72)),
        row(2, 2, measured(38.38)),
    )


def test_json(both: Benchmark) -> None:
    """Each row has the documented keys; the speed-up is against the first count in the same stage."""
    content = to_json(both)

    assert list(content) == ["machine", "results"]
    assert [list(each) for each in content["results"]] == [KEYS] * 4
    assert [each["speedup"] for each in content["results"]] == [1, 1, 1.8, 1.9]
    assert [each["efficiency"] for each in content["results"]] == [1, 1, 0.9, 0.95]
    assert content["results"][1] == {
        "gpus": 1,
        "strategy": "single",
        "stage": 2,
        "images_per_s": 20.2,
        "minutes_per_epoch": pytest.approx(4040 / 20.2 / 60, abs=1e-4),
        "speedup": 1,
        "efficiency": 1,
        "data_wait": 0.01,
        "peak_memory_mib": 9000.4,
    }


def test_speedups_of_several_strategies() -> None:
    """Each strategy is compared with itself where the first count has it, else with what that count has."""
    rows = [
        row(2, 2, measured(10), "ddp"),
        row(2, 2, measured(20), "dp"),
        row(4, 2, measured(15), "ddp"),
        row(4, 2, measured(30), "dp"),
        row(1, 2, measured(5), "single"),
    ]

    assert [each.speedup for each in with_speedups(rows)] == [1, 1, 1.5, 1.5, 0.5]


def test_efficiency_from_two_on() -> None:
    """Where the first count has two GPUs, four that are twice as fast waste nothing."""
    pair = result(row(2, 2, measured(10)), row(4, 2, measured(20)))

    assert [each["efficiency"] for each in to_json(pair)["results"]] == [1, 1]


def test_a_failure_excludes_itself_alone(both: Benchmark) -> None:
    """What failed has no numbers, its reason is told, and the others keep theirs."""
    failed = result(*both.rows[:3], row(2, 2, Failure("the GPU ran out of memory")))
    last = to_json(failed)["results"][-1]

    assert [last[key] for key in KEYS] == [2, "ddp", 2, *[None] * 6]
    assert to_json(failed)["results"][:3] == to_json(both)["results"][:3]
    assert verdict(failed)[0] == "ddp, 2 GPUs, stage 2 was not measured: the GPU ran out of memory."
    whole = next(line for line in to_text(failed).split("\n\n") if line.startswith("Full run"))
    assert whole.splitlines()[2].split() == ["ddp,", "2", "GPUs", "-", "-", "-"]


def test_the_first_count_failed(both: Benchmark) -> None:
    """Without a number to compare with there is no speed-up."""
    failed = result(row(1, 2, Failure("crashed")), row(2, 2, measured(10)))

    assert [each.speedup for each in failed.rows] == [None, None]
    assert to_json(failed)["results"][1]["efficiency"] is None


@pytest.mark.parametrize("page", [to_text, to_markdown])
def test_tables(both: Benchmark, page: Any) -> None:
    """Speed, parts and the whole recipe are shown, and beside it what the document claims, as a claim."""
    text = page(both)

    assert "20.2" in text
    assert "18.2-24.2" in text
    assert "Claimed, not measured here: README_MULTI_GPU.md: 2 min/epoch in stage 1, 4 in" in " ".join(text.split())
    # 30 epochs of 100 s and 110 of 200 s on one GPU, each with one second of validation.
    assert "6.98" in text
    assert "2 GPUs with ddp are 1.90 times as fast as 1 in stage 2." in text


def test_text_fits_a_terminal(both: Benchmark) -> None:
    """80 columns are enough, with any claim and any sentence."""
    for preset in (None, "kaggle-2xT4-352"):
        lines = to_text(result(*both.rows, preset=preset)).splitlines()
        assert max(map(len, lines)) <= 80


def test_no_claim_without_a_recipe_of_the_document(both: Benchmark) -> None:
    """Settings of one's own, and our own preset, have no claim beside them."""
    assert "Claimed" not in to_text(result(*both.rows, preset=None))
    assert "Claimed" not in to_text(result(*both.rows, preset="quickstart"))


def test_verdict_where_loading_is_the_limit() -> None:
    """It names both rates and what helps: more cores, all cores, or the cache."""
    # Two workers for each of two processes take all four cores.
    slow = measured(200, compute=[390.0], loader=[210.0], data_wait=0.46, workers=2)
    limit = (
        "ddp, 2 GPUs, stage 1: 4 CPU cores deliver 210 images/s, 2 GPUs can consume 390, and 46% of the time is "
        "spent waiting for images"
    )

    assert verdict(result(row(2, 1, slow)))[0] == f"{limit}: more CPU cores would help, more GPUs would not."
    (uncached, *_) = verdict(result(row(2, 1, slow), **{"data.cache": "off"}))
    assert uncached == f"{limit}: omit --cache off, so that images are resized only once."
    (idle, *_) = verdict(result(row(2, 1, measured(200, compute=[390.0], loader=[210.0], data_wait=0.46, workers=1))))
    assert idle == f"{limit}: --num-workers auto uses all cores."


def test_verdict_where_nothing_else_is_the_limit(both: Benchmark) -> None:
    """Then computing is, and by how much loading could be slower is told."""
    assert verdict(both)[0] == (
        "Training is compute-bound: in stage 1 the loader alone delivers 404 images/s, and 1 GPU can consume 44."
    )


def test_where_loading_comes_closest() -> None:
    """The row is named whose loading has the least to spare, not the one that loads the fewest images."""
    rows = (
        row(1, 1, measured(40, compute=[40.0], loader=[200.0])),
        row(2, 1, measured(80, compute=[80.0], loader=[240.0])),
    )

    assert verdict(result(*rows))[0].endswith("delivers 240 images/s, and 2 GPUs can consume 80.")


@pytest.mark.parametrize(("compute", "said"), [(2.44, "2.4"), (9.94, "9.9"), (9.96, "10"), (43.6, "44")])
def test_verdict_of_few_images_a_second(compute: float, said: str) -> None:
    """Below ten there is a place after the point: from 2.4 to 2 would be a sixth less."""
    slow = result(row(2, 1, measured(200, compute=[compute], loader=[100.0])))

    assert verdict(slow)[0].endswith(f"delivers 100 images/s, and 2 GPUs can consume {said}.")


def test_verdict_where_summing_takes_long() -> None:
    """Its share of a step is told: here 0.2 s of 24 images at 60 images/s."""
    slow = measured(50, compute=[60.0], communication=0.2)

    assert verdict(result(row(2, 2, slow)))[0] == (
        "ddp, 2 GPUs, stage 2: the gradient all-reduce alone takes 50% of the time of a step, and overlaps with the "
        "backward pass only in part: a larger --batch-size, or --accumulation-steps 2, makes it less frequent."
    )


def test_verdict_where_more_gpus_gain_nothing() -> None:
    """It says so."""
    sentences = verdict(result(row(1, 2, measured(20)), row(2, 2, measured(18))))

    assert sentences[-1] == "2 GPUs with ddp are 0.90 times as fast as 1 in stage 2: train with --gpus 1."


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.5, 15), (1, 30), (2, 45), (1 + 110 / 15, 140), (1 + 110 / 15 + 1, 155)],
)
def test_epochs_of_a_session(hours: float, expected: int) -> None:
    """Stage 1's epochs of 2 minutes come first, then stage 2's of 4, and after the recipe more of these."""
    assert epochs_within(hours, [(30, 120.0), (110, 240.0)]) == expected


def test_auto_is_not_measured() -> None:
    """A batch that camox train would look for is refused: the benchmark says how fast given ones are."""
    with pytest.raises(UsageError, match="camox benchmark does not support --batch-size auto"):
        benchmark("quickstart", {"train.batch_size": "auto"}, [1], None, steps=1, repeats=1)
