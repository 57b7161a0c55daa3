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
    Mutant("app.py", "raise typer.Exit(_UNHEARD) from error", "return", _APP),
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
        "self.deadline.left(self._clock())",
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
    Mutant("config/values.py", "abs(value) > _BEYOND", "False", "unit/commands/test_numbers.py"),
    Mutant("config/resolve.py", "value_of(key) > _LARGEST", "False", "unit/commands/test_numbers.py"),
    # A worker of the loader that is killed.
    Mutant(
        "data/loader.py", "with _unwatched():", "if True:", f"{_LOADER}::test_a_worker_that_ends_interrupts_nothing"
    ),
    Mutant(
        "data/loader.py",
        "        each.kill()\n",
        "        pass\n",
        "behaviour/data/test_loader.py::test_a_worker_that_is_killed",
    ),
    Mutant(
        "engine/train.py",
        "and is_whole() and not run",
        "and False and not run",
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
        "        check_images(checkpoint, data)\n",
        "",
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
        "(self.results, self.per_image, self.report, self.curves)",
        "(self.results, self.report, self.curves)",
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
        "checkpoint_dir=str(folder), resume_from=None)",
        "checkpoint_dir=str(folder))",
        "unit/launch/test_decide.py::test_settings_lead_back_to_the_run",
    ),
    Mutant(
        "launch/decide.py",
        "find_deadline(time_limit, session_limit, began)",
        "find_deadline(session_limit, time_limit, began)",
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
        "engine/closing.py",
        "score_baselines(run.data.validation)",
        "score_baselines(run.data.train)",
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
        "images_left=len(data.train) - progress.samples,",
        "images_left=len(data.train),",
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
        "img_size=img_size, overwrite=overwrite, tta=views)",
        "img_size=img_size, overwrite=overwrite)",
        "behaviour/test_api.py::test_files",
    ),
    Mutant(
        "api.py",
        "NO_TTA if tta is None else parse_tta(tta), weights)",
        "NO_TTA if tta is None else parse_tta(tta))",
        "behaviour/test_api.py::test_an_evaluation_is_as_asked",
    ),
    Mutant(
        "commands/train.py",
        "print_outcome(start(resolved), as_json=as_json)",
        "print_outcome(start(resolved))",
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
]
