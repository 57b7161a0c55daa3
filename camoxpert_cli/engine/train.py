"""A training run, from start to finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch.distributed import DistError

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.loader import WorkerLost
from camoxpert_cli.engine.choosing import choose_epochs, refit, refit_last, tell_fit
from camoxpert_cli.engine.closing import close_run
from camoxpert_cli.engine.compile_phase import compile_first, consider_compiling
from camoxpert_cli.engine.ending import describe_trained
from camoxpert_cli.engine.epochs import epoch_images
from camoxpert_cli.engine.expert_use import DEAD, expert_use, format_dead_experts
from camoxpert_cli.engine.opening import announce
from camoxpert_cli.engine.optimizer import learning_rates
from camoxpert_cli.engine.out_of_memory import OutOfMemory
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.restoring import copy_best, report_changes, restore
from camoxpert_cli.engine.run import Run, enter_phase, prepare, renewed
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.engine.status import epoch_line, format_scores, memory_bytes, report_step, tell_forecast
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.training_steps import TrainedStep, training_steps
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import Interrupted, TrainingError
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.parallel.cuda_errors import out_of_memory_line, to_camox_error
from camoxpert_cli.parallel.world import World, peer_lost
from camoxpert_cli.signals import ASKING, number_of


def train(plan: Plan, world: World | None = None, checkpoint: Checkpoint | None = None) -> Outcome:
    """Train according to the plan, then score the best weights on the test sets. Raises CamoxError on any failure.

    Resumes from the plan's checkpoint; pass it as `checkpoint` if it has already been read. `world` is the group of
    processes that share the work; each of them must call this.
    """
    run, checkpoint = prepare(plan, checkpoint, world)
    if plan.fits_since is not None:
        with _explaining_errors(run):
            plan, fitting = choose_epochs(plan, run, checkpoint)
        run = renewed(run, plan, checkpoint)
        run.fit_to(fitting)
    return carry_out(run, plan, checkpoint)


def carry_out(run: Run, plan: Plan, checkpoint: Checkpoint | None) -> Outcome:
    """Carry out a run that `prepare` has made from the plan; the caller must hold the lock of the run folder.

    To observe or steer a run, replace its parts first: see `Run`.
    """
    announce(run)
    with _explaining_errors(run), run.clock, run.saver.finishing(), run.reporter:
        begin(run, plan.config, checkpoint)
        make_resumable(run, plan, checkpoint)
        if plan.choice is not None:
            run.folder.write_strategy(plan.choice.to_text())
        stop = score_start(run) or train_epochs(run)
        if stop is not None:
            return end_early(run, stop)
        if not run.state.progress.has_best:
            raise TrainingError(
                f"all epochs are complete, but no weights could be saved in {run.folder.path}",
                f"free some space, then {run.folder.resume_command}" if run.folder.last.exists() else "free some space",
            )
        results = close_run(run)
        if isinstance(results, Stop):
            return end_early(run, results)
        return outcome_of(run, results=results)


def begin(run: Run, asked: Config, checkpoint: Checkpoint | None) -> None:
    """Bring run folder and training state to where the run starts or resumes; `asked` are the user's settings."""
    run.folder.sweep()
    if checkpoint is None or checkpoint.path.parent.resolve() != run.folder.path.resolve():
        run.folder.remove(run.folder.metrics)  # of a run that stopped before completing an epoch
    if checkpoint is not None:
        report_changes(asked, checkpoint)
        restore(run, checkpoint)
        progress = run.state.progress
        if run.is_trained:
            how = describe_trained(run.config, progress.epoch, progress.epoch_of_best)
            console.say(console.wrapped(f"Training is complete ({how}): scoring the best weights again"))
        else:
            run.folder.remove_results()  # of the shorter run that this one extends
        run.folder.go_on_from(progress.epoch, progress.samples, progress.history, checkpoint.path)
    run.folder.write_settings(to_mapping(run.config))
    if run.config.run.tensorboard and run.world.is_main:
        run.reporter.open_curves()
    if run.config.run.tracker == "wandb" and run.world.is_main:
        continues = checkpoint is not None and (checkpoint.training is not None or run.reporter.position > 0)
        run.reporter.open_tracker(run.config, checkpoint.path.parent if checkpoint and continues else None)


def make_resumable(run: Run, plan: Plan, checkpoint: Checkpoint | None) -> None:
    """Save before the first step if that is requested, or if the checkpoint is in another folder.

    Otherwise a run that is killed before its first save would leave a folder without its state, or with a part of it.
    """
    if (phase := run.next_phase) is not None:
        enter_phase(run, phase)
    is_new = run.state.optimizer is not None and not run.folder.last.exists()
    if is_new and (plan.saves_first or checkpoint is not None):
        run.saver.save_last()
    if checkpoint is not None:
        copy_best(run, checkpoint.path)


def score_start(run: Run) -> Stop | None:
    """Score and save the weights of `model.init_from` before a run's first step: the best until an epoch beats them.

    Returns why the run stops instead, if it does.
    """
    progress = run.state.progress
    if run.config.model.init_from is None or progress.has_best or progress.history or progress.samples:
        return None
    scores = validate(run)
    if isinstance(scores, Stop):
        return scores
    best_before = Best(progress.best_iou, progress.best_epoch)
    progress.best_iou, progress.best_epoch = scores.iou, 0
    run.saver.save_start({"epoch": 0, **scores.measures}, best_before)
    run.saver.settle()
    run.reporter.record("epoch", epoch=0, **scores.measures)
    console.say(f"Start  {format_scores(scores)}  best until an epoch is better")
    return None


def train_epochs(run: Run) -> Stop | None:
    """Train the remaining epochs, phase by phase; return why the run stopped early, if it did."""
    progress = run.state.progress
    # Only the main rank knows at once if the best weights could not be written.
    while (phase := run.world.broadcast(run.next_phase)) is not None:
        enter_phase(run, phase)
        progress.epoch_seconds += compile_first(run, phase)
        stop = run.clock.stop_before_step() or train_epoch(run, phase, progress.epoch)
        if stop is not None:
            return stop
        scores = validate(run)
        if isinstance(scores, Stop):
            return scores
        close_epoch(run, phase, scores)
    run.saver.settle()
    return None


def train_epoch(run: Run, phase: Phase, epoch: int) -> Stop | None:
    """Train on the remaining images of an epoch, saving between steps when due.

    Returns why no further step may start, also after the last one; None if the run may continue.
    """
    progress, count = run.state.progress, epoch_images(run.config, epoch, run.data.images_per_epoch)
    started = saved = stepped = run.clock.now()
    before, whole, seen, compiling = progress.epoch_seconds, progress.samples, progress.samples, 0.0
    # If their number is fitted while the epoch goes on, it may become larger.
    end = count if run.fitting is None else None
    batches, sizes = run.feed.training(phase.stage, epoch, progress.samples, end)
    waited_before = batches.waited
    run.state.network.train()
    with (
        console.progress(f"Epoch {epoch + 1}/{run.config.train.epochs}", count, progress.samples) as advance,
        _saving_what_is_whole(run, lambda: progress.samples == whole),
    ):
        for step in training_steps(run, phase.stage, epoch, zip(sizes, batches, strict=True)):
            now, whole = run.clock.now(), progress.samples
            progress.loss_sum += step.losses.total * step.images
            progress.epoch_seconds = before + now - started
            run.clock.reserve.note_step(now - stepped, step.images)
            run.reporter.throughput.note_step(phase, now - stepped, step.images)
            wait = (batches.waited - waited_before) / (now - started)
            advance(step.images, partial(report_step, run, phase, step.number, step.losses, wait))
            record_step(run, epoch, step)
            run.saver.poll()
            if run.save_every is not None and run.save_every.is_due(now - saved, step.number + 1):
                run.saver.save_behind()
                saved = now
            refit_last(run)
            if (stop := _stop_after_step(run, epoch)) is not None:
                return stop
            compiling += consider_compiling(run, phase, step, now - stepped)
            stepped = run.clock.now()
    now = run.clock.now()
    if now > started:
        run.reporter.data_wait = (batches.waited - waited_before) / (now - started)
    if run.fitting is not None:
        run.fitting.note_training(phase.kind, now - started - compiling, progress.samples - seen, now)
    return None


def _stop_after_step(run: Run, epoch: int) -> Stop | None:
    if run.ends_in_time and run.state.progress.samples >= epoch_images(run.config, epoch, run.data.images_per_epoch):
        return run.clock.stop_before_batch()  # no further step is needed
    return run.clock.stop_before_step()


@contextmanager
def _saving_what_is_whole(run: Run, is_whole: Callable[[], bool]) -> Iterator[None]:
    """If the loader loses a worker, save the progress unless a step is half done; other ranks cannot be notified."""
    try:
        yield
    except WorkerLost:
        if run.world.size == 1 and is_whole():
            run.saver.ensure_saved()
        raise


def record_step(run: Run, epoch: int, step: TrainedStep) -> None:
    """Log a step."""
    assert run.state.optimizer is not None
    run.reporter.record(
        "step",
        epoch=epoch + 1,
        samples=run.state.progress.samples,
        lr=step.rate,
        group_lr=learning_rates(run.state.optimizer),
        gradient_norm=step.gradient_norm,
        **step.losses._asdict(),
    )


def close_epoch(run: Run, phase: Phase, scores: Scores) -> None:
    """Record a completed epoch, save its weights if they are the best so far, and save the checkpoint."""
    run.saver.settle()
    progress = run.state.progress
    row = {
        "epoch": progress.epoch + 1,
        "stage": phase.stage.number,
        "train_loss": progress.loss_sum / epoch_images(run.config, progress.epoch, run.data.images_per_epoch),
        **scores.measures,
        "lr": progress.rate,
        "seconds": progress.epoch_seconds,
    }
    measured = measure_epoch(run, phase)
    progress.history.append(row)
    progress.epoch += 1
    progress.samples, progress.loss_sum, progress.epoch_seconds = 0, 0.0, 0.0
    progress.experts_chosen, progress.skipped_steps = [], 0
    run.reporter.record(
        "epoch", **row, **measured
    )  # before saving: resuming from an earlier checkpoint removes the line
    best_before, better = Best(progress.best_iou, progress.best_epoch), scores.iou > progress.best_iou
    if better:
        progress.best_iou, progress.best_epoch = scores.iou, progress.epoch
    target = run.config.run.target_iou
    if target is not None and progress.target_seconds is None and scores.iou >= target:
        progress.target_seconds = progress.seconds
        console.say(f"Validation IoU reached {target:g} after {format_duration(progress.seconds)}")
    planned = run.config
    refit(run)
    run.saver.save_behind(best_before if better else None)
    run.folder.write_history(progress.history)
    tell_fit(run, planned)
    console.say(epoch_line(run, row["train_loss"], scores, row["seconds"], better=better))
    if run.early_stop is not None:
        console.say(f"Training ends: {run.early_stop}")
    tell_forecast(run, phase)


def measure_epoch(run: Run, phase: Phase) -> dict[str, Any]:
    """Return what the log records of an epoch in addition to its scores. Warns, once, about dead experts.

    Not after the first epoch, which starts with untrained gates.
    """
    progress = run.state.progress
    use = expert_use(progress.experts_chosen, run.state.network.top_k)
    if any(use.dead) and progress.epoch > 0 and not run.reporter.told_of_dead_experts:
        run.reporter.told_of_dead_experts = True
        console.warn(
            f"{format_dead_experts(use)} selected for fewer than {DEAD:.0%} of the images in epoch "
            f"{progress.epoch + 1}; such experts hardly learn"
        )
    return {
        "data_wait": round(run.reporter.data_wait, 4),
        "images_per_s": round(run.reporter.throughput.images_per_s(phase), 2),
        "memory_bytes": memory_bytes(run),
        "skipped_steps": progress.skipped_steps,
        "expert_use": [[round(share, 4) for share in layer] for layer in use.shares],
        "routing_entropy": [round(each, 4) for each in use.entropy],
        "dead_experts": [len(experts) for experts in use.dead],
    }


def end_early(run: Run, stop: Stop) -> Outcome:
    """Save the run's state and report why it stops. Raises Interrupted unless a time limit was the reason."""
    progress = run.state.progress
    is_new = run.phase is not None or (run.state.optimizer is not None and not run.folder.last.exists())
    if is_new:
        run.saver.ensure_saved()
    if not run.is_trained:
        where = (
            f"in epoch {progress.epoch + 1} of {run.config.train.epochs}, "
            f"{console.counted(progress.samples, 'image')} into it"
        )
    else:
        where = "after the last epoch, before the test sets were scored"
    is_saved = run.saver.unsaved is None and run.folder.last.exists()
    message = f"{stop.reason} {where}; {f'saved to {run.folder.last}' if is_saved else run.last_good}"
    command = run.folder.resume_command if run.folder.holds_checkpoint else ""
    if run.saver.unsaved is not None:
        hint = f"free some space, then {command}" if command else "free some space"
        raise TrainingError(f"{message}; {run.saver.unsaved.message}", hint)
    if stop.exit_code:
        raise Interrupted(message, command, stop.exit_code)
    console.say(console.wrapped(message[0].upper() + message[1:]))
    return outcome_of(run, stop=stop)


def outcome_of(run: Run, *, results: dict[str, Any] | None = None, stop: Stop | None = None) -> Outcome:
    """Return the outcome so far."""
    progress = run.state.progress
    epochs = range(progress.epoch - len(progress.history), progress.epoch)
    images = sum(epoch_images(run.config, epoch, run.data.images_per_epoch) for epoch in epochs)
    outcome = Outcome(run.folder, run.config, progress.epoch, images, progress.seconds, run.data.generated)
    if not run.world.is_main:
        return outcome
    failure = run.saver.unsaved
    unsaved = None if failure is None else (failure.message, failure.hint)
    return replace(outcome, results=results, stop=stop, unsaved=unsaved)


@contextmanager
def _explaining_errors(run: Run) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        number = number_of(error)
        message = f"stopped immediately by a second {ASKING[number]}; {run.last_good}"
        command = run.folder.resume_command if run.folder.holds_checkpoint else ""
        raise Interrupted(message, command, 128 + number) from error
    except WorkerLost as error:
        error.message = f"{error.message}, in epoch {run.state.progress.epoch + 1}; {run.last_good}"
        error.hint = "--num-workers 0, which loads images in the training process"
        if run.folder.last.exists():
            error.hint = f"{run.folder.resume_command} --num-workers 0"
        raise
    except RuntimeError as error:
        epoch = run.state.progress.epoch + 1
        if line := out_of_memory_line(error):
            message = f"the GPU ran out of memory in epoch {epoch}; {run.last_good}"
            stage = run.phases[-1].stage.number if run.phase is None else run.phase.stage.number
            raise OutOfMemory(message, run.folder, run.config, stage, details=line) from error
        explained = to_camox_error(error)
        if isinstance(error, DistError) and explained is None:  # from a collective in torch's own layers
            raise peer_lost(error) from error
        if explained is None:
            raise
        explained.message = f"{explained.message}, in epoch {epoch}; {run.last_good}"
        raise explained from error
