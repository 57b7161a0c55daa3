"""Mistakes in fitting a run to its time, and in epochs that do not have all images."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FIT = "unit/engine/test_fit.py::"
_FITTING = "unit/engine/test_fitting.py::"
_EPOCHS = "unit/engine/test_epochs.py::"
_RUNS = "behaviour/engine/test_fit.py::"

MUTANTS = [
    # Epochs with fewer images.
    Mutant(
        "engine/epochs.py",
        "epoch + 1 == config.train.epochs else",
        "epoch == 0 else",
        f"{_EPOCHS}test_images_of_an_epoch",
    ),
    Mutant("engine/epochs.py", "min(images, last) if", "last if", f"{_EPOCHS}test_images_of_an_epoch"),
    Mutant(
        "engine/epochs.py",
        "steps_in_epoch(config, stage, stage.end - 1, images)",
        "steps",
        f"{_EPOCHS}test_schedule_ends_with_the_last_step",
    ),
    Mutant(
        "data/sampling.py",
        "whole if end is None else end",
        "whole",
        "unit/data/test_sampling.py::test_an_epoch_that_ends_early",
    ),
    Mutant(
        "engine/train.py",
        "end = count if run.fitting is None else None",
        "end = None",
        f"{_RUNS}test_resumed_after_the_last_step",
    ),
    Mutant(
        "engine/train.py",
        "progress.loss_sum / epoch_images(run.config, progress.epoch, run.data.images_per_epoch)",
        "progress.loss_sum / run.data.images_per_epoch",
        f"{_RUNS}test_resumed_after_the_last_step",
    ),
    Mutant(
        "engine/train.py",
        "sum(epoch_images(run.config, epoch, run.data.images_per_epoch) for epoch in epochs)",
        "len(epochs) * run.data.images_per_epoch",
        f"{_RUNS}test_it_is_the_run_with_these_numbers",
    ),
    Mutant(
        "engine/throughput.py",
        "        training -= (images - last_images) / images_per_s\n",
        "        pass\n",
        "unit/engine/test_throughput.py::test_a_last_epoch_with_fewer_images",
    ),
    Mutant(
        "launch/resume.py",
        'if config.train.epochs != before.train.epochs and "train.last_epoch_images" not in asked:',
        "if False:",
        "unit/launch/test_resume.py::test_another_number_of_epochs_has_whole_ones",
    ),
    # The choice.
    Mutant(
        "engine/fit.py",
        "images, pace, at) <= budget\n",
        "images, pace, at) <= 1.1 * budget\n",
        f"{_FIT}test_it_fits_and_more_would_not",
    ),
    Mutant("engine/fit.py", "step * math.floor(", "step * math.ceil(", f"{_FIT}test_it_fits_and_more_would_not"),
    Mutant(
        "engine/fit.py",
        "budget, at) >= _step_at_end(longer, at):",
        "budget, at) >= 2 * _step_at_end(longer, at):",
        f"{_FIT}test_it_fits_and_more_would_not {_FIT}test_proportions",
    ),
    Mutant("engine/fit.py", "    elif at.epoch < first:\n", "    else:\n", f"{_FIT}test_from_the_middle_of_a_run"),
    Mutant(
        "engine/fit.py", "if not _stage2_has_begun(current, at):", "if True:", f"{_FIT}test_from_the_middle_of_a_run"
    ),
    Mutant(
        "engine/fit.py",
        "max(_fitting_part(config, images, pace, budget, at), step, seen)",
        "max(_fitting_part(config, images, pace, budget, at), step)",
        f"{_FIT}test_the_last_epoch_keeps_its_steps",
    ),
    Mutant(
        "engine/fit.py", "epochs - first - 1))", "epochs - first))", f"{_FIT}test_recipes_without_one_of_the_stages"
    ),
    Mutant(
        "engine/fit.py", " - at.samples * pace.per_image[now.kind]", "", f"{_FIT}test_seconds_are_those_of_each_epoch"
    ),
    Mutant(
        "engine/fit.py",
        "epochs=train.epochs - train.stage1_epochs, stage1_epochs=0",
        "stage1_epochs=0",
        f"{_FIT}test_a_skipped_stage_takes_no_time",
    ),
    Mutant(
        "engine/fit.py", "self.session - self.startup - unused", "self.session - unused", f"{_FIT}test_several_sessions"
    ),
    Mutant("engine/fit.py", "return self.sessions * _MARGIN", "return _MARGIN", f"{_FIT}test_several_sessions"),
    # Following the time.
    Mutant(
        "engine/fitting.py",
        "<= _TOLERANCE * max(0.0, left):",
        "<= 0.0:",
        f"{_FITTING}test_small_differences_change_nothing",
    ),
    Mutant(
        "engine/fitting.py",
        "min(max(1.0, pace.between / self.measured.between), _SLOWER)",
        "1.0",
        f"{_FITTING}test_end_is_as_slow_as_validation",
    ),
    Mutant("engine/fitting.py", "weight = 1 / min(", "weight = 1 / max(", f"{_FITTING}test_pace_is_a_mean_over_epochs"),
    Mutant(
        "engine/choosing.py",
        "        config = fitting.refitted(run.config, _position(run), run.clock.now(), _unused(run))\n",
        "        config = run.config\n",
        f"{_RUNS}test_it_follows_the_time",
    ),
    Mutant(
        "engine/choosing.py",
        "        run.folder.write_settings(to_mapping(run.config))\n",
        "        pass\n",
        f"{_RUNS}test_it_follows_the_time",
    ),
    Mutant("engine/train.py", "            refit_last(run)\n", "", f"{_RUNS}test_a_last_epoch_that_is_slower"),
    Mutant(
        "engine/run.py",
        "self.config = self.saver.config = config",
        "self.config = config",
        f"{_RUNS}test_it_follows_the_time",
    ),
    Mutant(
        "engine/run.py",
        "            self.clock.reserve.note_saving(fitting.saving)\n",
        "            pass\n",
        "unit/engine/test_run.py::test_a_run_knows_its_fit",
    ),
    Mutant(
        "engine/run.py",
        "            self.clock.reserve.note_pause(fitting.pause)\n",
        "            pass\n",
        "unit/engine/test_run.py::test_a_run_knows_its_fit",
    ),
    Mutant(
        "engine/train.py",
        "        return run.clock.stop_before_batch()  # no further step is needed\n",
        "        pass\n",
        f"{_RUNS}test_it_is_the_run_with_these_numbers {_RUNS}test_a_last_epoch_that_is_slower",
    ),
    # Measuring.
    Mutant(
        "engine/train.py",
        "        run = renewed(run, plan, checkpoint)\n",
        "        run.follow(plan.config)\n",
        f"{_RUNS}test_it_is_the_run_with_these_numbers",
    ),
    Mutant(
        "engine/measuring.py",
        "            shutil.rmtree(run.folder.path, ignore_errors=True)\n",
        "            pass\n",
        f"{_RUNS}test_what_a_killed_process_left",
    ),
    Mutant(
        "engine/measuring.py",
        "            shutil.rmtree(left, ignore_errors=True)\n",
        "            pass\n",
        f"{_RUNS}test_what_a_killed_process_left",
    ),
    Mutant(
        "engine/measuring.py",
        "        if (stop := run.clock.stop_before_step()) is not None:\n            return stop\n",
        "",
        f"{_RUNS}test_stopped_while_measuring",
    ),
    Mutant(
        "engine/choosing.py",
        "    problem = run.world.broadcast(_too_short(plan, run, fitting, left))\n",
        "    problem = None\n",
        f"{_RUNS}test_too_short",
    ),
    Mutant(
        "engine/choosing.py",
        "replace(plan, config=run.world.broadcast(config)), fitting",
        "replace(plan, config=config), fitting",
        "behaviour/test_ranks.py::test_ranks_are_fitted_together",
    ),
    Mutant(
        "engine/choosing.py",
        "    finally:\n        run.config = plan.config\n",
        "    finally:\n        pass\n",
        f"{_RUNS}test_memory_that_runs_out_while_measuring",
    ),
    Mutant(
        "engine/choosing.py",
        "for key in CHOSEN_BY_FIT}\n    return replace(config",
        "for key in CHOSEN_BY_FIT[:1]}\n    return replace(config",
        f"{_RUNS}test_a_restart_keeps_what_was_chosen",
    ),
    # Limits and settings.
    Mutant(
        "engine/time_limit.py",
        "began + fit.seconds, name",
        "began + fit.count * fit.seconds, name",
        "unit/engine/test_time_limit.py::test_a_fit_is_a_limit_of_each_session",
    ),
    Mutant(
        "engine/time_limit.py",
        "        if self.planned:\n            return self.latest + self.to_save\n",
        "",
        "unit/engine/test_time_limit.py::test_a_planned_end",
    ),
    Mutant(
        "launch/decide.py",
        "began if fit is not None and checkpoint is None else None",
        "began if fit is not None else None",
        "unit/launch/test_decide.py::test_a_new_run_is_fitted",
    ),
    Mutant(
        "launch/continuing.py",
        "    if before.train.fit != now.train.fit:\n",
        "    if False:\n",
        "unit/launch/test_continuing.py::test_another_fit",
    ),
    Mutant(
        "config/resolve.py",
        "*(_refuse_beside_fit(config, origins) if saved is None else []),",
        "*_refuse_beside_fit(config, origins),",
        "unit/config/test_resolve.py::test_numbers_that_the_fit_chooses",
    ),
]
