"""Compile the training steps of a phase, if that is requested or pays; all ranks decide alike."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.compile_choice import Experience, is_measured, share_saved, step_time
from camoxpert_cli.engine.epochs import epoch_images
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.saving import COMPILED, EAGER
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.engine.throughput import roughly
from camoxpert_cli.engine.training_steps import TrainedStep


def describe_compiling(run: Run) -> str:
    """Return when steps will be compiled, or why not; empty if there is nothing to say.

    Warns, instead, if a compiler is missing, or if steps cannot be compiled although that is requested.
    """
    compiling = run.compiling
    if compiling.asked == "off":
        return ""
    if compiling.missing or (compiling.excluded and compiling.asked == "on"):
        console.warn(f"training steps are not compiled: {compiling.missing or compiling.excluded}")
        return ""
    if compiling.excluded:
        return f"no: {compiling.excluded}"
    return "auto: decided in the first steps of each phase" if compiling.asked == "auto" else "before each phase"


def compile_first(run: Run, phase: Phase) -> float:
    """Compile before the first step of `phase` in this session if that is requested; return the seconds it took.

    So all steps over whole batches are compiled, also if the run is interrupted and resumed. Every rank must call this
    before each epoch.
    """
    compiling = run.compiling
    if compiling.kind == phase.kind:
        return 0.0
    compiling.enter(phase.kind)
    run.saver.execution = EAGER
    if compiling.asked != "on" or not compiling.is_possible or run.clock.stop_before_step() is not None:
        return 0.0
    left = run.world.broadcast(_time_left(run))
    if not compiling.experience.fits(left):
        console.warn(
            f"{format_duration(max(0.0, left))} remaining are too short for compiling, which takes about "
            f"{roughly(compiling.experience.seconds)}: this phase is trained without"
        )
        return 0.0
    seconds = _compile(run, phase)
    if compiling.parts.are_compiled:
        compiling.experience = Experience(seconds, compiling.experience.saving)
        console.say(f"Compiled backbone and decoder in {roughly(seconds)}")
    _tell_change(run)
    return seconds


def consider_compiling(run: Run, phase: Phase, step: TrainedStep, seconds: float) -> float:
    """After a step that took `seconds`: decide, with `--compile auto`, whether the next ones are compiled.

    Some eager steps are measured first. Then, if enough training remains in the phase for compiling to pay, as many
    compiled ones are measured, and the faster way is kept. Returns the seconds spent on compiling. Every rank must call
    this after each step.
    """
    compiling = run.compiling
    whole = phase.stage.batch_size * run.config.train.accumulation_steps * run.placement.count
    if compiling.asked != "auto" or not compiling.is_possible or compiling.is_settled or step.images != whole:
        return 0.0
    compiling.steps.append(seconds)
    if not is_measured(compiling.steps):
        return 0.0
    typical = run.world.broadcast(step_time(compiling.steps))
    compiling.steps = []
    if compiling.eager is None:
        compiling.eager = typical
        return _compile_if_it_pays(run, phase, step)
    _keep_if_faster(run, phase, step, compiling.eager, typical)
    return 0.0


def _compile_if_it_pays(run: Run, phase: Phase, step: TrainedStep) -> float:
    compiling = run.compiling
    assert compiling.eager is not None
    training = _images_left(run, phase) / step.images * compiling.eager
    left = run.world.broadcast(min(training, _time_left(run)))
    if left < compiling.experience.pays_from:
        compiling.is_settled = True
        if not compiling.has_said_why_not:
            compiling.has_said_why_not = True
            console.say(
                f"Not compiled: {roughly(max(0.0, left))} of training remain in this phase, and compiling, which takes "
                f"about {roughly(compiling.experience.seconds)}, pays from {roughly(compiling.experience.pays_from)} on"
            )
        _tell_change(run)
        return 0.0
    console.say(
        f"Compiling backbone and decoder: steps take {_ms(compiling.eager)}, and {roughly(left)} of training remain in "
        "this phase"
    )
    seconds = _compile(run, phase)
    compiling.experience = Experience(seconds, compiling.experience.saving)
    return seconds


def _keep_if_faster(run: Run, phase: Phase, step: TrainedStep, eager: float, compiled: float) -> None:
    compiling = run.compiling
    compiling.is_settled = True
    compiling.experience = Experience(compiling.experience.seconds, share_saved(eager, compiled))
    measured = (
        f"Compiled in {roughly(compiling.experience.seconds)}: {_ms(compiled)} per step instead of {_ms(eager)} "
        f"({eager / compiled:.2f}x)"
    )
    if compiling.experience.is_faster:
        saved = _images_left(run, phase) / step.images * (eager - compiled)
        console.say(f"{measured}, which saves about {roughly(saved)} in this phase")
    else:
        compiling.give_up()
        run.saver.execution = EAGER
        console.say(f"{measured}, which is not faster: training continues without")
    _tell_change(run)


def _compile(run: Run, phase: Phase) -> float:
    """Compile, on every rank or on none; return the seconds it took."""
    started = run.clock.now()
    failure = run.compiling.parts.start(phase.stage.batch_size, run.config.data.img_size, run.device)
    failure = next(filter(None, run.world.all_gather(failure)), "")
    if failure:
        run.compiling.give_up()
        console.warn(f"the network cannot be compiled: {failure}; training continues without (see --compile)")
        _tell_change(run)
    else:
        run.saver.execution = COMPILED
    return run.world.broadcast(run.clock.now() - started)


def _tell_change(run: Run) -> None:
    """Report, once it is known, that steps are not executed as before the run was resumed."""
    before, run.compiling.before = run.compiling.before, None
    if before not in (None, run.saver.execution):
        console.say(f"The execution was {before} and is now {run.saver.execution}: results will differ by rounding")


def _images_left(run: Run, phase: Phase) -> int:
    """Training images in the rest of the phase."""
    progress = run.state.progress
    epochs = range(progress.epoch, phase.end)
    return sum(epoch_images(run.config, epoch, run.data.images_per_epoch) for epoch in epochs) - progress.samples


def _time_left(run: Run) -> float:
    """Seconds until the run has to stop and save; infinity without a limit."""
    return run.clock.stopping.deadline.left(run.clock.now()) - run.clock.reserve.seconds


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
