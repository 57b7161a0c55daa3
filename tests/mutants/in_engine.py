"""Mistakes in the course of a run: steps, stages, clock, saving, going on."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_TRAIN = "behaviour/engine/test_train.py::"
_UPDATES = "behaviour/test_updates.py::"
_SAVING = "behaviour/engine/test_saving.py::"
_BEHIND = "behaviour/engine/test_saving_behind.py::"
_RESTORING = "behaviour/engine/test_restoring.py::"
_ENDING = "unit/engine/test_ending.py"
_TRACKER = "unit/engine/test_tracker.py"
_PATIENCE = "behaviour/engine/test_patience.py"

MUTANTS = [
    # Steps and accumulation.
    Mutant(
        "engine/training_steps.py",
        "share=size / group_images)",
        "share=size / group_size)",
        f"{_UPDATES}test_a_step_is_the_plain_mean_over_its_images",
    ),
    Mutant(
        "engine/training_steps.py",
        "epoch_images(run.config, epoch, run.data.images_per_epoch) - group_start)",
        "epoch_images(run.config, epoch, run.data.images_per_epoch) - progress.samples)",
        f"{_UPDATES}test_a_step_is_the_plain_mean_over_its_images",
    ),
    Mutant("engine/training_steps.py", "        group_losses.zero_()\n", "", f"{_TRAIN}test_steps_are_told_apart"),
    Mutant("engine/training_steps.py", "        group_chosen.zero_()\n", "", f"{_TRAIN}test_steps_are_told_apart"),
    Mutant(
        "engine/train.py",
        "step.losses.total * step.images",
        "step.losses.total * run.config.train.batch_size",
        f"{_TRAIN}test_steps_are_told_apart",
    ),
    Mutant(
        "engine/training_steps.py",
        "        scaler.step(optimizer)\n        run.skipped_in_a_row = 0\n",
        "        scaler.step(optimizer)\n",
        f"{_UPDATES}test_only_many_skipped_steps_in_a_row_end_a_run",
    ),
    Mutant(
        "engine/training_steps.py",
        "    run.state.scaler.unscale_(run.state.optimizer)\n",
        "",
        f"{_UPDATES}test_scaled_run",
    ),
    Mutant(
        "engine/training_steps.py",
        "    optimizer.zero_grad(set_to_none=True)\n",
        "",
        f"{_UPDATES}test_a_step_is_the_plain_mean_over_its_images",
    ),
    Mutant(
        "engine/training_steps.py",
        "clip_gradients(parameters_of(run.state.optimizer), run.clip_norm)",
        "clip_gradients(parameters_of(run.state.optimizer)[:1], run.clip_norm)",
        f"{_UPDATES}test_gradients_are_clipped",
    ),
    # The schedule.
    Mutant(
        "engine/training_steps.py",
        "math.ceil(group_start / group_size)",
        "group_start // group_size",
        f"{_TRAIN}test_other_batches_within_an_epoch_go_on_with_the_schedule",
    ),
    Mutant(
        "engine/epochs.py",
        "(epoch - stage.first) * steps + step",
        "epoch * steps + step",
        f"{_TRAIN}test_rates_of_a_run",
    ),
    Mutant(
        "engine/schedule.py",
        "peak * (step + 1) / warmup_steps",
        "peak * step / warmup_steps",
        "unit/engine/test_schedule.py::test_warm_up_is_linear",
    ),
    # Stages.
    Mutant(
        "engine/state.py", "        previous=state.optimizer,\n", "", f"{_TRAIN}test_thawing_keeps_what_was_learned"
    ),
    Mutant(
        "engine/run.py",
        "if run.state.backbone_stages != phase.backbone_stages:",
        "if run.state.backbone_stages is None:",
        f"{_TRAIN}test_thawing_keeps_what_was_learned",
    ),
    Mutant(
        "engine/stages.py",
        "backbone_stages=max(phase.backbone_stages, backbone_stages)",
        "backbone_stages=backbone_stages",
        "unit/engine/test_stages.py::test_a_longer_plan_freezes_nothing_again",
    ),
    Mutant(
        "engine/restoring.py",
        "        run.phases = keep_unfrozen(run.phases, run.state.progress.epoch, training.backbone_stages)\n",
        "",
        f"{_RESTORING}test_a_longer_run_freezes_nothing_again",
    ),
    # The average, and what is validated.
    Mutant(
        "engine/training_steps.py",
        "if run.skipped_in_a_row == 0 and run.state.ema is not None:",
        "if run.state.ema is not None:",
        f"{_UPDATES}test_step_that_overflows_changes_nothing",
    ),
    Mutant(
        "engine/ema.py",
        "            torch._foreach_copy_(*counters)\n",
        "            pass\n",
        "unit/engine/test_ema.py::test_integers_are_copied",
    ),
    # Values of a network that is no longer there.
    Mutant(
        "engine/ema.py",
        "if self._places is None or not self._places.are_of(self.network, network):",
        "if self._places is None:",
        "unit/engine/test_ema.py::test_copies",
    ),
    # Each read waits for the GPU.
    Mutant(
        "engine/training_steps.py",
        "norm.to(sums).view(1)",
        "torch.full_like(sums[:1], norm.item())",
        "behaviour/engine/test_host_reads.py::test_one_process",
    ),
    Mutant(
        "engine/validation.py",
        "run.state.scored_network.eval(),",
        "run.state.network.eval(),",
        f"{_TRAIN}test_what_is_validated",
    ),
    # Ends of epochs.
    Mutant(
        "engine/train.py",
        "scores.iou > progress.best_iou",
        "scores.iou >= progress.best_iou",
        f"{_TRAIN}test_the_best_epoch_and_the_target",
    ),
    Mutant(
        "engine/train.py",
        "progress.target_seconds is None and scores.iou >= target",
        "scores.iou >= target",
        f"{_TRAIN}test_the_best_epoch_and_the_target",
    ),
    Mutant(
        "engine/train.py",
        "progress.samples, progress.loss_sum, progress.epoch_seconds = 0, 0.0, 0.0",
        "progress.samples, progress.loss_sum = 0, 0.0",
        f"{_TRAIN}test_epochs_begin_anew",
    ),
    Mutant(
        "engine/train.py",
        "progress.experts_chosen, progress.skipped_steps = [], 0",
        "progress.skipped_steps = 0",
        f"{_TRAIN}test_epochs_begin_anew",
    ),
    # The clock and signals.
    Mutant(
        "engine/train.py",
        "            if (stop := _stop_after_step(run, epoch)) is not None:\n                return stop\n",
        "",
        f"{_TRAIN}test_a_signal_ends_a_run_within_an_epoch",
    ),
    Mutant(
        "engine/train.py",
        "if (stop := _stop_after_step(run, epoch)) is not None:",
        "if (stop := _stop_after_step(run, epoch)) is not None and stop.exit_code:",
        f"{_TRAIN}test_the_clock_ends_a_run_within_an_epoch",
    ),
    Mutant(
        "engine/train.py",
        "stop = run.clock.stop_before_step() or train_epoch(run, phase, progress.epoch)",
        "stop = train_epoch(run, phase, progress.epoch)",
        f"{_TRAIN}test_a_run_that_has_no_time_makes_no_step",
    ),
    Mutant(
        "engine/clock.py",
        "exit_code, reason = max(reasons)",
        "exit_code, reason = min(reasons)",
        "unit/engine/test_clock.py::test_a_signal_outranks_the_clock",
    ),
    Mutant(
        "engine/clock.py",
        "self.stopping.due(self.reserve.to_save)",
        "self.stopping.due(self.reserve.seconds)",
        "unit/engine/test_clock.py::test_what_is_kept_for_the_end",
    ),
    Mutant(
        "engine/time_limit.py",
        "_MARGIN * (self.step + validation) + self.to_save",
        "_MARGIN * self.step + self.to_save",
        "unit/engine/test_clock.py::test_what_is_kept_for_the_end",
    ),
    Mutant(
        "engine/stopping.py",
        "now - first > ONE_PRESS",
        "now - first >= 0",
        "unit/engine/test_stopping.py::test_pressed_twice_it_does_not_wait",
    ),
    Mutant(
        "engine/stopping.py",
        "for number in self._received:",
        "for number in reversed(self._received):",
        "unit/engine/test_stopping.py::test_the_first_signal_counts",
    ),
    # Saving.
    Mutant(
        "engine/saving.py",
        "history[-1] if history and state.progress.samples == 0 else None",
        "history[-1] if history else None",
        f"{_SAVING}test_scores_belong_to_the_weights",
    ),
    Mutant(
        "engine/saving.py",
        "keep_as = self._folder.previous if self.trusts_last else None",
        "keep_as = self._folder.previous",
        f"{_SAVING}test_the_file_before_is_kept",
    ),
    Mutant(
        "engine/saving.py",
        "            self._saved_at = written.position\n",
        "            pass\n",
        f"{_SAVING}test_full_for_a_while",
    ),
    Mutant("commands/imports.py", "    gc.disable()\n", "", "unit/commands/test_imports.py"),
    Mutant("commands/imports.py", "        gc.freeze()\n", "        pass\n", "unit/commands/test_imports.py"),
    # Saving behind the next steps.
    Mutant(
        "engine/training_steps.py",
        "        run.saver.settle()  # all",
        "        pass  # all",
        f"{_BEHIND}test_a_loss_that_is_no_number_beside_it",
    ),
    Mutant("engine/state_copy.py", 'to("cpu", copy=True)', 'to("cpu")', f"{_BEHIND}test_training_continues_beside_it"),
    Mutant("engine/state_copy.py", "_ALLOCATOR not in str(error)", "False", f"{_BEHIND}test_too_large_to_copy"),
    Mutant(
        "engine/background.py",
        "        with suppress(KeyboardInterrupt):\n            thread.join()\n",
        "        thread.join()\n",
        "behaviour/engine/test_saving_behind.py::test_a_fork_waits_no_longer_than_the_user",
    ),
    Mutant(
        "engine/background.py",
        "os.register_at_fork(before=_wait_for_jobs)\n",
        "",
        f"{_BEHIND}test_a_fork_waits_for_it",
    ),
    Mutant(
        "engine/writing.py",
        "            content = with_best(content, save.best_before)\n",
        "            pass\n",
        f"{_BEHIND}test_best_weights_that_cannot_be_written",
    ),
    Mutant(
        "engine/saving.py",
        "            progress.best_iou, progress.best_epoch = written.best\n",
        "            pass\n",
        f"{_BEHIND}test_best_weights_that_cannot_be_written",
    ),
    Mutant(
        "engine/saving.py",
        "= self._world.broadcast((progress.best_iou, progress.best_epoch))",
        "= progress.best_iou, progress.best_epoch",
        f"{_BEHIND}test_ranks_agree_on_the_best",
    ),
    Mutant(
        "engine/saving.py",
        "            self._reserve.in_flight = 1 if best_before is None else 2\n",
        "            self._reserve.in_flight = 0\n",
        f"{_BEHIND}test_time_is_reserved_for_it",
    ),
    Mutant(
        "engine/saving.py",
        "            self._reserve.in_flight = 0\n",
        "            pass\n",
        f"{_BEHIND}test_time_is_reserved_for_it",
    ),
    Mutant(
        "engine/saving.py",
        "                try:\n                    self.wait()\n                except Exception as error:",
        "                try:\n                    pass\n                except Exception as error:",
        f"{_BEHIND}test_an_error_waits_for_the_save",
    ),
    Mutant(
        "engine/saving.py", "            self._background.abandon()\n", "", f"{_BEHIND}test_a_second_signal_ends_it"
    ),
    Mutant(
        "engine/saving.py",
        "        self.wait()\n        if not self.is_up_to_date:",
        "        if not self.is_up_to_date:",
        f"{_BEHIND}test_a_position_that_is_being_written_is_saved_once",
    ),
    Mutant(
        "engine/train.py",
        "            run.saver.poll()\n",
        "",
        f"{_BEHIND}test_the_outcome_is_told_after_the_next_step",
    ),
    Mutant(
        "engine/saving.py",
        "            ema_updates=state.ema.updates if state.ema else 0,\n",
        "            ema_updates=0,\n",
        f"{_RESTORING}test_all_that_is_saved_comes_back",
    ),
    # Going on.
    Mutant(
        "engine/restoring.py",
        '        if (scores.get("epoch"), scores.get("iou")) != (progress.best_epoch, progress.best_iou):\n',
        '        if scores.get("epoch") != progress.best_epoch:\n',
        f"{_RESTORING}test_best_weights_of_another_run",
    ),
    Mutant(
        "engine/restoring.py",
        "there = best if best.exists() else source",
        "there = best",
        f"{_RESTORING}test_best_weights_move_to_another_folder",
    ),
    Mutant(
        "engine/restoring.py",
        "        load_state(run.state.optimizer, training.optimizer)\n",
        "        if run.state.progress.epoch:\n            load_state(run.state.optimizer, training.optimizer)\n",
        f"{_RESTORING}test_cut_and_uncut_runs_end_alike",
    ),
    Mutant(
        "engine/restoring.py",
        'group["lr_factor"], group["weight_decay"] = factor, decay',
        'group["lr_factor"] = factor',
        f"{_RESTORING}test_changed_rates_and_decay_count_from_here_on",
    ),
    Mutant(
        "engine/restoring.py",
        "        run.state.ema.updates = training.ema_updates\n",
        "        run.state.ema.updates = 0\n",
        f"{_RESTORING}test_all_that_is_saved_comes_back",
    ),
    Mutant(
        "engine/restoring.py",
        "content, path, ema=True, tells=False)",
        "content, path, ema=False, tells=False)",
        f"{_RESTORING}test_all_that_is_saved_comes_back",
    ),
    Mutant(
        "engine/restoring.py",
        "run.state.scaler.load_state_dict({**run.state.scaler.state_dict(), **training.scaler})",
        "pass",
        f"{_RESTORING}test_scale_goes_on",
    ),
    Mutant(
        "engine/restoring.py",
        "for epoch in range(phase.first, min(phase.end, progress.epoch))",
        "for epoch in range(phase.first, phase.end)",
        f"{_RESTORING}test_from_best_model",
    ),
    Mutant(
        "engine/optimizer.py",
        "                moments[name] = torch.empty_like(parameter).copy_(value)\n",
        "                pass\n",
        "unit/engine/test_optimizer.py::test_goes_on_with_moments_of_another_kind",
    ),
    Mutant(
        "engine/feed.py",
        "self._sampler.start_at(epoch, samples, end)",
        "self._sampler.start_at(epoch, 0, end)",
        f"{_RESTORING}test_cut_and_uncut_runs_end_alike",
    ),
    # Seeds.
    Mutant(
        "engine/seed.py", " + ([rank] if rank else [])", "", "unit/engine/test_seed.py::test_each_rank_drops_its_own"
    ),
    Mutant(
        "engine/training_steps.py",
        "run.state.progress.samples, run.world.rank)",
        "run.state.progress.samples)",
        f"{_TRAIN}test_dropout_depends_on_place_and_rank",
    ),
    Mutant(
        "engine/training_steps.py",
        "seed_step(run.config.train.seed, epoch, run.state.progress.samples",
        "seed_step(run.config.train.seed, epoch, 0",
        f"{_TRAIN}test_dropout_depends_on_place_and_rank",
    ),
    # Use of experts, and the pace.
    Mutant(
        "engine/expert_use.py",
        "shares = [[top_k * count / sum(layer)",
        "shares = [[count / sum(layer)",
        "unit/engine/test_expert_use.py::test_shares_entropy_and_the_dead",
    ),
    Mutant(
        "engine/throughput.py",
        "epoch + 2 + int((clock - rest) / whole)",
        "epoch + 1 + int((clock - rest) / whole)",
        "unit/engine/test_throughput.py::test_where_the_clock_stops",
    ),
    # Found by planting mistakes that the tests' authors had not seen.
    Mutant(
        "engine/epochs.py",
        "config.train.accumulation_steps * config.gpu_count",
        "config.train.accumulation_steps",
        "unit/engine/test_build.py::test_all_devices_share_a_step",
    ),
    Mutant(
        "engine/build.py",
        '{status_of(pair.mask).st_size}" for',
        '{status_of(pair.image).st_size}" for',
        "unit/engine/test_build.py::test_the_digest_tells_other_pictures",
    ),
    Mutant(
        "engine/feed.py",
        "per_process = stage.batch_size * self._devices // self._world.size",
        "per_process = stage.batch_size",
        "unit/engine/test_feed.py::test_a_process_with_two_devices",
    ),
    Mutant(
        "engine/restoring.py",
        "run.folder.last.exists() and path.samefile(run.folder.last)",
        "run.folder.last.exists()",
        "behaviour/engine/test_restoring.py::test_only_a_last_file_that_was_read_is_trusted",
    ),
    Mutant("engine/run.py", "if asked * ranks > (cores", "if asked > (cores", "unit/engine/test_run.py"),
    Mutant(
        "engine/run.py",
        "config.train.seed, weights_follow=True)",
        "config.train.seed, weights_follow=False)",
        "behaviour/engine/test_restoring.py::test_weights_that_a_checkpoint_replaces_are_not_fetched",
    ),
    Mutant(
        "engine/saving.py",
        "return self._saved_at == (self._state.progress.epoch, self._state.progress.samples)",
        "return self._saved_at is not None and self._saved_at[0] == self._state.progress.epoch",
        "behaviour/engine/test_saving.py::test_a_stop_within_an_epoch_is_saved_once",
    ),
    Mutant(
        "engine/writing.py",
        "if full and folder.last.exists()",
        "if folder.last.exists()",
        "behaviour/engine/test_saving.py::test_room_is_made_on_a_full_disk_only",
    ),
    Mutant(
        "engine/stopping.py",
        "self._received.setdefault(signal.Signals(number), now)",
        "min([*self._received.values(), self._received.setdefault(signal.Signals(number), now)])",
        "unit/engine/test_stopping.py::test_only_the_same_signal_twice_does_not_wait",
    ),
    Mutant(
        "engine/stopping.py",
        "        if number in INSISTING and now - first",
        "        if number in INSISTING and number == next(iter(self._received)) and now - first",
        "unit/engine/test_stopping.py::test_pressed_twice_after_another_signal",
    ),
    Mutant(
        "engine/saving.py",
        "        except (FileNotFoundError, NotADirectoryError):\n",
        "        except OSError:\n",
        "behaviour/engine/test_saving.py::test_a_disk_that_does_not_answer_for_a_while",
    ),
    Mutant(
        "engine/time_limit.py",
        " and SESSION_START not in os.environ:",
        ":",
        "unit/engine/test_time_limit.py::test_a_session_that_is_over",
    ),
    # The time limit of a Slurm job.
    Mutant(
        "engine/time_limit.py",
        "job.end - _SLURM_MARGIN, job.name",
        "job.end, job.name",
        "unit/engine/test_time_limit.py::test_a_slurm_job_ends_a_run",
    ),
    Mutant(
        "engine/time_limit.py",
        "(left := job.left(time.monotonic())) > 0:",
        "(left := job.left(time.monotonic())) > -math.inf:",
        "unit/engine/test_time_limit.py::test_a_slurm_job_that_is_over",
    ),
    Mutant(
        "engine/time_limit.py",
        "    if not given:\n",
        "    if given is None:\n",
        "unit/engine/test_time_limit.py::test_an_end_that_could_not_be_found",
    ),
    Mutant(
        "engine/time_limit.py",
        "Deadline(time.monotonic() + end - time.time(), name)",
        "Deadline(end, name)",
        "unit/engine/test_time_limit.py::test_a_slurm_job_ends_a_run",
    ),
    Mutant(
        "engine/training_steps.py",
        "        group_chosen.zero_()\n        group_own = 0\n",
        "        group_chosen.zero_()\n",
        "behaviour/engine/test_train.py::test_statistics_count_the_images_of_their_step",
    ),
    # When a run is trained.
    Mutant("engine/ending.py", "max(best_epoch, epochs_before_patience(config))", "best_epoch", _ENDING),
    Mutant("engine/ending.py", "patience is None or best_epoch is None or", "patience is None or", _ENDING),
    Mutant("engine/ending.py", " + phase.stage.warmup_epochs)", ")", _ENDING),
    Mutant(
        "engine/train.py",
        "(phase := run.world.broadcast(run.next_phase))",
        "(phase := run.next_phase)",
        f"{_ENDING}::test_all_ranks_end_together",
    ),
    Mutant(
        "engine/train.py",
        "        if run.is_trained:\n",
        "        if progress.epoch == run.config.train.epochs:\n",
        _PATIENCE,
    ),
    Mutant("engine/closing.py", '"epochs": progress.epoch,', '"epochs": run.config.train.epochs,', _PATIENCE),
    # What wandb is told.
    Mutant("engine/tracker.py", " or step <= self._logged:", ":", _TRACKER),
    Mutant("engine/tracker.py", "self._note_logged(self._noted)", "self._note_logged(step)", _TRACKER),
    Mutant("engine/tracker.py", " or not os.access(source, os.W_OK)", "", _TRACKER),
    Mutant("engine/tracker.py", "offline or wandb.login(prompt=False, verify=False)", "True", _TRACKER),
    Mutant("engine/tracker.py", 'config, mode="offline")', "config)", _TRACKER),
    Mutant("engine/tracker.py", "        with suppress(Exception, SystemExit):", "        if True:", _TRACKER),
    Mutant("launch/decide.py", "        ready_wandb()\n", "        pass\n", "unit/launch/test_decide.py::test_tracker"),
]
