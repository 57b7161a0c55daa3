"""Judge whether a machine fits the preset in question."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.doctor.check_multi_gpu import best_strategy
from camoxpert_cli.doctor.finding import Finding, Question
from camoxpert_cli.doctor.formatting import listed
from camoxpert_cli.doctor.readings import Readings, StageMemory
from camoxpert_cli.launch.processes import Failure

# Fraction of a GPU's memory above which a long run may fail although two steps fit: allocations fragment it.
_TIGHT = 0.92
# The finding that smaller batches resolve.
MEMORY = "GPU memory"
_HALVE = "halve the per-GPU batch size and keep the global one"


def recipe_findings(readings: Readings, question: Question) -> list[Finding]:
    """Return findings on the preset in question; an empty list if there is none."""
    if question.preset is None:
        return []
    if not question.needs_gpu:
        return [Finding("preset", "ok", f"settings of {question.preset}", "trains on the CPU")]
    return [_gpus(readings, question), _memory(readings, question)]


def _gpus(readings: Readings, question: Question) -> Finding:
    name, ran = "preset", f"settings of {question.preset}"
    run, train, working = question.config.run, question.config.train, readings.working
    wanted = 1 if run.gpus == "all" else question.config.gpu_count
    here = f"this machine has {console.counted(len(working), 'working GPU') if working else 'no working GPU'}"
    if train.precision == "bf16" and any(not readings.seen[number].native_bf16 for number in working):
        return Finding(name, "problem", ran, "uses bf16, which a GPU here only emulates", command="--precision auto")
    if run.devices is not None and (missing := set(parse_devices(run.devices)) - set(working)):
        asked = listed(tuple(sorted(missing)))
        return Finding(
            name,
            "problem",
            ran,
            f"needs {'GPU' if len(missing) == 1 else 'GPUs'} {asked}; {here}",
            "choose other GPUs with --devices",
        )
    if 1 < wanted <= len(working) and best_strategy(readings) is None:
        result = f"needs {console.counted(wanted, 'GPU')}, which fail when used together"
        return Finding(name, "problem", ran, result, *_alone(question))
    result = f"needs {console.counted(wanted, 'GPU')}; {here}"
    if wanted <= len(working):
        return Finding(name, "ok", ran, result)
    if not working:
        return Finding(name, "problem", ran, result, "see the GPU findings above")
    if len(working) == 1:
        return Finding(name, "problem", ran, result, *_alone(question))
    return Finding(name, "problem", ran, result, "with a smaller global batch size:", f"--gpus {len(working)}")


def _alone(question: Question) -> tuple[str, str]:
    """Advice and command for one GPU at the global batch size of several."""
    steps = question.config.train.accumulation_steps * question.config.gpu_count
    return (
        "one GPU reaches the same global batch size with gradient accumulation, which takes longer:",
        f"camox train --preset {question.preset} --gpus 1 --accumulation-steps {steps}",
    )


def _memory(readings: Readings, question: Question) -> Finding:
    name, ran = MEMORY, "two steps of each stage, training the whole backbone"
    stages = readings.recipe
    if stages is None:
        return Finding(name, "skipped", ran, "not measured: needs a working GPU")
    if isinstance(stages, Failure):
        advice = "fix the error above first: training would fail the same way"
        return Finding("preset steps", "problem", ran, f"the steps failed: {stages.why}", advice)
    card = min(readings.seen[number].memory for number in question.cards(readings))
    too_large = [each for each in stages if each.peak is None]
    if too_large:
        result = f"{_memory_of(too_large)}; the GPU has {console.byte_size(card)}"
        return Finding(name, "problem", ran, result, f"{_HALVE}:", halved_batches(question))
    worst = max(stages, key=lambda each: each.peak or 0)
    result = f"{_memory_of(stages)}; the GPU has {console.byte_size(card)}"
    if (worst.peak or 0) > _TIGHT * card:
        advice = f"a long run may run out of memory; {_HALVE}:"
        return Finding(name, "warning", ran, f"{result}, which is tight", advice, halved_batches(question))
    return Finding(name, "ok", ran, result)


def _memory_of(stages: list[StageMemory] | tuple[StageMemory, ...]) -> str:
    return ", ".join(
        f"stage {each.stage} at batch size {each.batch_size} "
        f"{'runs out of memory' if each.peak is None else f'uses {console.byte_size(each.peak)}'}"
        for each in stages
    )


def halved_batches(question: Question) -> str:
    """Return flags that halve the preset's per-GPU batch sizes and keep its global ones."""
    train = question.config.train
    stage1, stage2 = (-(-batch // 2) for batch in (train.batch_size, question.config.stage2_batch_size))
    return f"--batch-size {stage1} --stage2-batch-size {stage2} --accumulation-steps {2 * train.accumulation_steps}"
