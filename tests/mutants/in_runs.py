"""Mistakes that whole runs show: what they start with, go on from, leave in their folder and tell."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CONSOLE = "unit/test_console.py"
_APP = "unit/test_app.py"
_LOADER = "behaviour/data/test_loader.py"

MUTANTS = [
    # A name steers the terminal: controls, what turns a text, in results, tables, bars, in what was typed.
    Mutant("console.py", "\\x7f-\\x9f", "\\x7f", _CONSOLE),
    Mutant("console.py", "\\u2028-\\u202e\\u2066-\\u2069", "", _CONSOLE),
    Mutant("console.py", "print(printable(text), flush=True)", "print(text, flush=True)", _CONSOLE),
    Mutant("console.py", "print(printable(text), file=sys.stderr", "print(text, file=sys.stderr", _CONSOLE),
    Mutant("console.py", "[printable(cell) for cell in line]", "list(line)", _CONSOLE),
    Mutant("console.py", '"{task.description}", markup=False', '"{task.description}"', _CONSOLE),
    Mutant("console.py", "note=printable(note)", "note=note", _CONSOLE),
    Mutant("app.py", "console.printable(cut(str(error.message)))", "cut(str(error.message))", _APP),
    # A stream that is gone ends the work, or what was not heard is no error.
    Mutant("console.py", "if sys.stderr is not None:  # print", "if True:  # print", _CONSOLE),
    Mutant("console.py", "os.O_RDWR)) <= 2:", "os.O_RDWR)) < 0:", "behaviour/test_closed_streams.py"),
    Mutant("console.py", "_Unbroken(sys.stderr)", "sys.stderr", _CONSOLE),
    Mutant(
        "console.py",
        "        with suppress(OSError):\n            print",
        "        if True:\n            print",
        "behaviour/test_processes.py::test_nobody_listens",
    ),
    Mutant("app.py", "raise typer.Exit(signals.UNHEARD) from error", "return", _APP),
    Mutant("commands/help.py", "option.callback = _print_help", "pass", _APP),
    # Signals: one that is ignored, one that the system repeats, one before the run begins.
    Mutant("signals.py", "if signal.getsignal(number) in free", "", "unit/engine/test_stopping.py"),
    Mutant(
        "signals.py",
        "signal.default_int_handler, interrupt)",
        "signal.default_int_handler)",
        "unit/engine/test_stopping.py",
    ),
    Mutant("engine/stopping.py", "number in INSISTING and ", "", "unit/engine/test_stopping.py"),
    Mutant(
        "app.py",
        "    signals.take_over(signals.interrupt)\n",
        "",
        "behaviour/test_processes.py::test_signals_before_it_begins",
    ),
    # Clocks that are set.
    Mutant(
        "engine/stopping.py",
        "self.deadline.left(self.now())",
        "self.deadline.left(time.time())",
        "unit/engine/test_stopping.py",
    ),
    Mutant(
        "engine/time_limit.py",
        "return time.monotonic() - (now - start)",
        "return start",
        "unit/engine/test_time_limit.py",
    ),
    # Numbers without end.
    Mutant("config/parse.py", "total > _LONGEST", "False", "unit/config/test_parse_durations.py"),
    Mutant("config/parse.py", "max(numbers) < 1024 or", "max(numbers) or", "unit/commands/test_numbers.py"),
    # A worker of the loader that is killed.
    Mutant(
        "data/loader.py",
        "@atexit.register\n",
        "",
        f"{_LOADER}::test_workers_of_a_loader_that_an_error_holds",
    ),
    Mutant(
        "data/loader.py",
        "with _unwatched(), self._telling_of_lost_workers():",
        "with _unwatched():",
        f"{_LOADER}::test_a_worker_that_is_killed_between_epochs",
    ),
    Mutant(
        "launch/processes.py",
        "    signal.signal(signal.SIGINT, signal.SIG_DFL)",
        "    pass",
        "behaviour/launch/test_processes.py::test_interrupted_before_anybody_listens",
    ),
    Mutant(
        "console.py",
        "    atexit.register(_flush)\n",
        "",
        "behaviour/test_closed_streams.py::test_a_log_that_is_full_at_the_end",
    ),
    Mutant(
        "run_folder.py", "flags | os.O_NONBLOCK", "flags", "unit/test_run_folder.py::test_a_pipe_in_place_of_the_log"
    ),
    Mutant(
        "console.py",
        r'"\n(?=\S)", "\n  "',
        r'"\n(?=\S)", "\n"',
        "unit/test_console.py::test_a_name_that_looks_like_a_message",
    ),
    Mutant(
        "launch/start.py",
        "if attempt.outcome is None:",
        "if False:",
        "unit/launch/test_start.py::test_processes_that_could_not_tell",
    ),
    Mutant(
        "data/layouts.py",
        "each not in used and each.name.lower() in known",
        "False",
        "unit/data/test_layouts.py::test_folders_that_are_there_twice",
    ),
    Mutant(
        "evaluation/given_predictions.py",
        "if is_file_of(predictions, masks):",
        "if False:",
        "unit/evaluation/test_image.py::test_masks_as_their_own_maps",
    ),
    Mutant("data/loader.py", "with _unwatched(), ", "with ", f"{_LOADER}::test_a_worker_that_ends_interrupts_nothing"),
    Mutant(
        "data/loader.py",
        "    for each in workers:\n        each.kill()\n",
        "",
        "behaviour/data/test_loader.py::test_a_worker_that_is_killed",
    ),
    Mutant(
        "engine/train.py",
        "run.world.size == 1 and is_whole():",
        "False:",
        "behaviour/test_processes.py::test_what_loads_images_is_killed",
    ),
    Mutant("supported.py", "is None:", "is False:", "unit/test_supported.py"),
    # A run that goes on.
    Mutant(
        "launch/resume.py",
        "config.train.epochs < before.train.epochs",
        "config.train.epochs <= before.train.epochs",
        "unit/launch/test_resume.py::test_fewer_epochs",
    ),
    Mutant(
        "launch/resume.py",
        "(BATCH_SETTINGS & asked or config.run.gpus != before.run.gpus) and",
        "BATCH_SETTINGS & asked and",
        "unit/launch/test_resume.py::test_another_number_of_processes_keeps_the_steps",
    ),
    Mutant(
        "launch/resume.py",
        "and not BATCH_SETTINGS & assigned:",
        "and not BATCH_SETTINGS & {*assignments}:",
        "unit/launch/test_resume.py::test_assigned_batch_size_is_another_run",
    ),
    Mutant(
        "launch/resume.py",
        "replace(config.data, images=(), masks=())",
        "replace(config.data, images=())",
        "unit/launch/test_resume.py::test_images_that_lie_elsewhere_now",
    ),
    Mutant(
        "launch/resume.py",
        '(own / "config.yaml").exists() and ',
        "",
        "unit/launch/test_resume.py::test_a_folder_with_a_checkpoint_alone_is_no_runs_own",
    ),
    Mutant(
        "launch/resume.py",
        "if not check_images(checkpoint, data, folder):",
        "if False:",
        "behaviour/test_resume.py::test_other_images",
    ),
    Mutant(
        "commands/resume.py",
        "go_on(run, flags, assignments or [])",
        "go_on(run, flags, [])",
        "behaviour/test_resume.py::test_going_on_elsewhere",
    ),
    Mutant(
        "run_folder.py",
        '(row["epoch"], row["samples"]) <= (epoch + 1, samples)',
        '(row["epoch"], row["samples"]) < (epoch + 1, samples)',
        "behaviour/test_out_of_memory.py::test_a_run_goes_on",
    ),
    Mutant(
        "run_folder.py",
        "(self.results, self.per_image, self.curves, self.report)",
        "(self.results, self.curves, self.report)",
        "behaviour/test_resume.py::test_an_extended_run_has_no_results_yet",
    ),
    Mutant(
        "run_folder.py",
        "there = sum(path.stat().st_size for path in (self.last, self.previous) if path.exists())",
        "there = sum(path.stat().st_size for path in (self.last,) if path.exists())",
        "unit/test_run_folder.py::test_what_is_there_needs_no_more_space",
    ),
    # What is decided, and started.
    Mutant(
        "launch/decide.py",
        "data=with_absolute_paths(resolved.config.data)",
        "data=resolved.config.data",
        "unit/launch/test_decide.py::test_images_are_found_from_another_folder",
    ),
    Mutant(
        "launch/decide.py",
        "find_deadline(time_limit, session_limit, began, fit)",
        "find_deadline(session_limit, time_limit, began, fit)",
        "behaviour/test_run_files.py::test_json",
    ),
    Mutant(
        "launch/decide.py",
        "folder = world.broadcast(plan.folder)",
        "folder = plan.folder",
        "unit/launch/test_decide.py::test_ranks_agree_on_the_folder",
    ),
    Mutant(
        "launch/start.py",
        "return train(plan.going_on(smaller), world)",
        "return train(plan.going_on(smaller), world, checkpoint)",
        "behaviour/test_out_of_memory.py::test_it_goes_on_from_its_own_last_save",
    ),
    Mutant(
        "launch/start.py",
        "    failed.let_go()\n",
        "",
        "behaviour/test_out_of_memory.py::test_a_run_goes_on",
    ),
    Mutant(
        "launch/start.py",
        "threads = cores_each(count)",
        "threads = cores_each(1)",
        "unit/launch/test_decide.py::test_processes_share_the_cores",
    ),
    Mutant(
        "launch/start.py",
        "        worker.tell_outcome(outcome.to_mapping())\n",
        "        pass\n",
        "behaviour/test_processes.py",
    ),
    # What came out.
    Mutant(
        "engine/build.py",
        "for pair in self.validation if pair.has_mask]",
        "for pair in self.train if pair.has_mask]",
        "unit/engine/test_closing.py::test_baselines_are_of_the_held_out_images",
    ),
    Mutant(
        "engine/closing.py",
        "    best = run.folder.best\n",
        "    best = run.folder.last\n",
        "behaviour/test_run_files.py::test_results",
    ),
    Mutant(
        "engine/closing.py",
        "epoch = run.state.progress.best_epoch",
        "epoch = run.state.progress.epoch",
        "behaviour/test_run_files.py::test_results",
    ),
    Mutant(
        "engine/outcome.py",
        '"stop": None if self.stop is None else asdict(self.stop),',
        '"stop": None,',
        "unit/engine/test_outcome.py::test_the_launcher_hears_all",
    ),
    Mutant(
        "engine/status.py",
        "images_left=epoch_images(run.config, progress.epoch, data.images_per_epoch) - progress.samples,",
        "images_left=epoch_images(run.config, progress.epoch, data.images_per_epoch),",
        "unit/engine/test_status.py::test_a_step",
    ),
    # From Python.
    Mutant(
        "api.py",
        "began=time.monotonic()",
        "began=None",
        "behaviour/test_api.py::test_train",
    ),
    Mutant(
        "api.py",
        "        print_outcome(outcome)\n",
        "        pass\n",
        "behaviour/test_api.py::test_train",
    ),
    Mutant(
        "api.py",
        "            tta=views,\n",
        "",
        "behaviour/test_api.py::test_files",
    ),
    Mutant(
        "api.py",
        "            tiles=tiles,\n",
        "",
        "behaviour/test_api.py::test_tiles",
    ),
    Mutant(
        "api.py",
        "NO_TTA if tta is None else parse_tta(tta), weights)",
        "NO_TTA if tta is None else parse_tta(tta))",
        "behaviour/test_api.py::test_an_evaluation_is_as_asked",
    ),
    Mutant(
        "commands/train.py",
        "finish(outcome, as_json=as_json)",
        "finish(outcome, as_json=False)",
        "behaviour/test_run_files.py::test_commands_print_json",
    ),
    Mutant(
        "api.py",
        "if threshold is not None or overlay or overwrite:",
        "if threshold is not None or overlay:",
        "behaviour/test_api.py::test_refusals[overwrite]",
    ),
    Mutant(
        "launch/resume.py",
        'if "run.devices" in asked and "run.gpus" not in asked:',
        "if False:",
        "unit/launch/test_resume.py::test_named_gpus_take_the_place_of_a_number",
    ),
    # The run folder and what lies in it are this run's, or are left alone.
    Mutant(
        "run_folder.py",
        " if own[name] is False or name not in may_go]",
        " if own[name] is False]",
        "unit/test_foreign_files.py::test_a_new_run_replaces_nothing",
    ),
    Mutant(
        "run_folder.py",
        "path.is_dir() if name in _FOLDERS else path.is_file()",
        "path.is_dir() if name in _FOLDERS else path.exists()",
        "unit/test_foreign_files.py::test_no_regular_file[last.pth-pipe]",
    ),
    Mutant(
        "run_folder.py",
        "for path in map(Path, inputs):",
        "for path in map(Path, []):",
        "unit/test_foreign_files.py::test_what_a_run_reads",
    ),
    Mutant(
        "run_folder.py",
        "if True in own.values() else {*CHECKPOINTS}",
        "if True in own.values() else {*_FILES}",
        "unit/test_foreign_files.py::test_a_checkpoint_beside_somebodys_files",
    ),
    Mutant(
        "run_folder.py",
        "own.get(self.report.name) or False",
        "True",
        "unit/test_foreign_files.py::test_pages_that_no_run_has_written",
    ),
    Mutant(
        "run_folder.py",
        '("history.json", "metrics.jsonl", STRATEGY_FILE) if name in own',
        "() if name in own",
        "unit/test_foreign_files.py::test_a_damaged_file_stops_no_run",
    ),
    Mutant(
        "run_folder.py",
        "isinstance(named, str) and Path(named).resolve() == self.path.resolve()",
        "isinstance(named, str)",
        "unit/test_foreign_files.py::test_killed_between_its_first_two_files",
    ),
    Mutant(
        "run_folder.py",
        "            path.mkdir()\n",
        "            path.mkdir(exist_ok=True)\n",
        "unit/test_run_folder.py::test_names_are_made_by_one_process_each",
    ),
    Mutant(
        "run_folder.py",
        "if status is None or not os.path.samestat(status, os.fstat(self._lock)):",
        "if False:",
        "unit/test_run_folder.py::test_a_folder_that_goes_as_it_is_locked",
    ),
    Mutant(
        "run_folder.py",
        "                        each.rmdir()\n",
        "                        pass\n",
        "unit/test_run_folder.py::test_the_lock_makes_the_folder",
    ),
    Mutant(
        "run_folder.py",
        "except (ValueError, LookupError, TypeError, RecursionError):",
        "except ValueError:",
        "unit/test_run_folder.py::test_a_damaged_log",
    ),
    Mutant(
        "launch/start.py",
        "            folder.share_lock()\n",
        "",
        "behaviour/test_two_starts.py::test_a_launcher_keeps_the_folder",
    ),
    Mutant(
        "launch/start.py",
        "        with folder.locked(wait=WAIT_FOR_FOLDER if waits or worker.is_worker() else 0.0):\n",
        "        folder.create()\n        if True:\n",
        "behaviour/test_two_starts.py::test_pictures_of_a_run_at_work",
    ),
    Mutant(
        "launch/start.py",
        " and own.stamps != as_read:",
        " and False:",
        "unit/launch/test_resume.py::test_saved_by_another_process_in_between",
    ),
    Mutant(
        "launch/resume.py",
        " and holds_cache(Path(choice))",
        "",
        "unit/launch/test_resume.py::test_a_place_that_only_a_checkpoint_names",
    ),
    Mutant(
        "launch/resume.py",
        'beside["data"].get("cache") == choice and ',
        "",
        "unit/launch/test_resume.py::test_a_place_that_only_a_checkpoint_names",
    ),
    Mutant(
        "launch/resume.py",
        "Path(choice).resolve().is_relative_to(folder.resolve())",
        "Path(choice).is_relative_to(folder)",
        "unit/launch/test_resume.py::test_a_cache_in_the_run_folder",
    ),
    Mutant(
        "engine/build.py",
        "own.images in (None, data.full_digest)",
        "True",
        "behaviour/engine/test_restoring.py::test_weights_with_other_images_begin_a_new_run",
    ),
    Mutant(
        "engine/build.py",
        "if path.parent.resolve() == folder.path.resolve():",
        "if False:",
        "behaviour/engine/test_restoring.py::test_a_new_run_does_not_take_the_old_ones_folder",
    ),
    Mutant(
        "engine/restoring.py",
        "if epoch > config.train.epochs:",
        "if False:",
        "behaviour/engine/test_restoring.py::test_fewer_epochs_than_there_are",
    ),
    Mutant(
        "engine/restoring.py",
        "size is not None and size != own_size",
        "False",
        "behaviour/engine/test_restoring.py::test_scores_at_another_size_do_not_count",
    ),
    Mutant(
        "engine/restoring.py",
        "own.training is None and own.images is None",
        "False",
        "behaviour/engine/test_restoring.py::test_scores_of_unknown_images_do_not_count",
    ),
    Mutant(
        "engine/restoring.py",
        "            run.folder.refuse_foreign(best)\n",
        "            pass\n",
        "behaviour/engine/test_restoring.py::test_best_weights_of_another_program",
    ),
    Mutant(
        "engine/train.py",
        "checkpoint is None or checkpoint.path.parent.resolve() != run.folder.path.resolve()",
        "checkpoint is None",
        "behaviour/engine/test_restoring.py::test_the_log_of_an_early_end_is_none_of_a_run_from_elsewhere",
    ),
    Mutant(
        "engine/train.py",
        "    if is_new and (plan.saves_first or checkpoint is not None):",
        "    if is_new and plan.saves_first:",
        "behaviour/engine/test_restoring.py::test_a_complete_run_says_so",
    ),
    Mutant(
        "engine/train.py",
        '        command = run.folder.resume_command if run.folder.holds_checkpoint else ""\n        raise',
        "        command = run.folder.resume_command\n        raise",
        "behaviour/engine/test_saving.py::test_what_can_go_on_is_named_where_there_is_something",
    ),
    Mutant(
        "engine/training_steps.py",
        'return f"--set {key}={value}" if run.folder.last.exists() else f"{SETTINGS[key].flag} {value}"',
        'return f"--set {key}={value}"',
        "behaviour/engine/test_saving.py::test_a_loss_that_is_no_number",
    ),
    Mutant(
        "engine/saving.py",
        "folder.path.mkdir()  # but",
        "folder.path.mkdir(parents=True)  # but",
        "behaviour/engine/test_saving.py::test_a_run_folder_that_goes_with_its_disk",
    ),
    Mutant(
        "engine/saving.py",
        "            folder.write_settings(to_mapping(self.config))\n",
        "",
        "behaviour/engine/test_saving.py::test_a_run_folder_that_goes",
    ),
    Mutant(
        "commands/training_outcome.py",
        "outcome.folder.resume_command if outcome.folder.holds_checkpoint else None",
        "outcome.folder.resume_command",
        "behaviour/engine/test_saving.py::test_what_can_go_on_is_named_where_there_is_something",
    ),
    Mutant(
        "checkpoints/run_search.py",
        "if (real := folder.resolve()) in seen:",
        "if (real := folder.resolve()) in ():",
        "unit/checkpoints/test_newest.py::test_links",
    ),
    Mutant(
        "run_folder.py",
        "return any((self.path / name).is_file() for name in CHECKPOINTS)",
        "return any((self.path / name).exists() for name in CHECKPOINTS)",
        "unit/checkpoints/test_newest.py::test_what_is_no_checkpoint_file",
    ),
    Mutant(
        "checkpoints/run_search.py",
        "                if folder == top:\n",
        "                if True:\n",
        "unit/checkpoints/test_newest.py::test_folders_that_cannot_be_looked_into",
    ),
    Mutant(
        "data/synthetic.py",
        "files == names and ",
        "",
        "unit/data/test_synthetic.py::test_what_is_there_is_left_alone",
    ),
    Mutant(
        "data/synthetic.py",
        "            if not _holds(folder, names, wanted):",
        "            if True:",
        "unit/data/test_synthetic.py::test_a_faster_process",
    ),
]
