"""Whether a machine fits the preset that was asked about."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.doctor.check_multi_gpu import best_strategy
from camoxpert_cli.doctor.finding import Finding, Question
from camoxpert_cli.doctor.readings import Readings, StageMemory
from camoxpert_cli.doctor.words import count, listed
from camoxpert_cli.launch.processes import Failure

# Part of a card's memory beyond which a long run may fail where two steps did not: its allocator leaves gaps.
_TIGHT = 0.92
# The finding that smaller batches help against.
MEMORY = "GPU memory"


def recipe_findings(readings: Readings, question: Question) -> list[Finding]:
    """Empty where no preset was asked about."""
    if question.preset is None:
        return []
    if not question.needs_gpu:
        return [Finding("recipe", "ok", f"settings of {question.preset}", "trains on the CPU")]
    return [_gpus(readings, question), _memory(readings, question)]


def _gpus(readings: Readings, question: Question) -> Finding:
    name, ran = "recipe", f"settings of {question.preset}"
    run, train, working = question.config.run, question.config.train, readings.working
    wanted = 1 if run.gpus == "all" else question.config.gpu_count
    here = f"{len(working) or 'none'} work{'s' if len(working) < 2 else ''} here"
    if train.precision == "bf16" and any(not readings.seen[number].native_bf16 for number in working):
        return Finding(
            name, "problem", ran, "asks for bf16, which a GPU here only emulates", command="--precision auto"
        )
    if run.devices is not None and (missing := set(parse_devices(run.devices)) - set(working)):
        asked = listed(tuple(sorted(missing)))
        return Finding(name, "problem", ran, f"asks for GPU {asked}, and {here}", "choose others with --devices")
    if 1 < wanted <= len(working) and best_strategy(readings) is None:
        return Finding(name, "problem", ran, f"asks for {count(wanted, 'GPU')}, which fail together", *_alone(question))
    if wanted <= len(working):
        return Finding(name, "ok", ran, f"asks for {count(wanted, 'GPU')}, and {here}")
    result = f"asks for {count(wanted, 'GPU')}, and {here}"
    if not working:
        return Finding(name, "problem", ran, result, "see what is said about the GPUs above")
    if len(working) == 1:
        return Finding(name, "problem", ran, result, *_alone(question))
    return Finding(name, "problem", ran, result, "with fewer pictures a step:", f"--gpus {len(working)}")


def _alone(question: Question) -> tuple[str, str]:
    """Advice and command for one GPU that makes the steps of several."""
    steps = question.config.train.accumulation_steps * question.config.gpu_count
    return (
        "one GPU makes the same steps from several batches, which takes longer:",
        f"camox train --preset {question.preset} --gpus 1 --accumulation-steps {steps}",
    )


def _memory(readings: Readings, question: Question) -> Finding:
    name, ran = MEMORY, "two steps of each stage, whole backbone trained"
    stages = readings.recipe
    if stages is None:
        return Finding(name, "skipped", ran, "not measured: that takes a GPU that works")
    if isinstance(stages, Failure):
        return Finding("recipe steps", "problem", ran, f"the steps failed: {stages.why}", "training would fail alike")
    card = min(readings.seen[number].memory for number in question.cards(readings))
    too_large = [each for each in stages if each.peak is None]
    if too_large:
        result = f"{_memory_of(too_large)} of {console.byte_size(card)}"
        return Finding(
            name, "problem", ran, result, "the same steps from batches of half the size:", halved_batches(question)
        )
    worst = max(stages, key=lambda each: each.peak or 0)
    result = f"{_memory_of(stages)} of {console.byte_size(card)}"
    if (worst.peak or 0) > _TIGHT * card:
        advice = "it may run out later; the same steps from batches of half the size:"
        return Finding(name, "warning", ran, f"{result}: tight", advice, halved_batches(question))
    return Finding(name, "ok", ran, result)


def _memory_of(stages: list[StageMemory] | tuple[StageMemory, ...]) -> str:
    return ", ".join(
        f"stage {each.stage} with {count(each.batch_size, 'picture')} takes "
        f"{'more than there is' if each.peak is None else console.byte_size(each.peak)}"
        for each in stages
    )


def halved_batches(question: Question) -> str:
    """Flags that make a recipe's steps from batches of half the size."""
    train = question.config.train
    stage1, stage2 = (-(-batch // 2) for batch in (train.batch_size, question.config.stage2_batch_size))
    return f"--batch-size {stage1} --stage2-batch-size {stage2} --accumulation-steps {2 * train.accumulation_steps}"
