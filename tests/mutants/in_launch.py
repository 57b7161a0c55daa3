"""Mistakes in how processes are started, waited for and resumed, and in what is tried before a run."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_ENDS = "unit/launch/test_ends.py::test_the_cause"
_PROCESSES = "behaviour/launch/test_processes.py"
_WORKERS = "behaviour/launch/test_workers.py"
_START = "unit/launch/test_start.py"
_RESUME = "unit/launch/test_resume.py"
_DECIDE = "unit/launch/test_decide.py"
_PROBE = "unit/launch/test_memory_probe.py"
_STEPS = "behaviour/launch/test_memory_probe.py::test_the_worst_that_a_long_run_meets"
_BATCHES = "behaviour/launch/test_autobatch.py"
_CHOICE = "unit/launch/test_auto_strategy.py"
_WATCH = "unit/launch/test_watch.py"
_TRIAL = "behaviour/launch/test_trial.py"

_DEATHS = "behaviour/test_processes.py"
_PROCESS_MUTANTS = [
    Mutant(
        "launch/processes.py",
        "            each.kill(0)\n",
        "            pass\n",
        f"{_PROCESSES}::test_threads_that_wait",
    ),
    # A clock that is set back hides all signs of life.
    Mutant(
        "launch/processes.py",
        "(signs := self._signs()) != last_signs",
        "sorted(signs := self._signs()) > sorted(last_signs)",
        f"{_PROCESSES}::test_signs_of_life",
    ),
    # Files of the others are removed, or a living process's.
    Mutant(
        "temporary.py",
        "not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid()",
        "not stat.S_ISDIR(status.st_mode)",
        "behaviour/test_temporary.py",
    ),
    Mutant(
        "temporary.py",
        "                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n                (folder",
        "                (folder",
        "behaviour/test_temporary.py",
    ),
    Mutant("temporary.py", "_sweep(folder.parent)\n", "pass\n", "behaviour/test_temporary.py"),
    # What a rank said goes with its launcher.
    Mutant("engine/run.py", "    keep_log(folder.path)\n", "", f"{_DEATHS}::test_the_launcher_is_killed"),
    Mutant(
        "parallel/worker.py",
        "folder is None or not launcher_lives()",
        "folder is None",
        f"{_DEATHS}::test_the_launcher_is_killed",
    ),
    # Variables that somebody left.
    Mutant("parallel/worker.py", "if number >= count:", "if number > count:", "unit/launch/test_stray_variables.py"),
    Mutant("parallel/worker.py", "[0-9]{1,9}", "[0-9]+", "unit/launch/test_stray_variables.py"),
    # What lies in the current folder is imported: by a process, by what it starts, through an empty PYTHONPATH.
    *(
        Mutant("launch/processes.py", old, new, f"{_PROCESSES}::test_what_lies_in_the_current_folder")
        for old, new in {
            '"PYTHONSAFEPATH": "1"': "",
            "path.split(os.pathsep) if each)": "path.split(os.pathsep))",
        }.items()
    ),
    # A lost partner blamed before the cause.
    Mutant("launch/processes.py", "return end.code == PEER_LOST, end.was", "return end.was", _ENDS),
    Mutant(
        "launch/processes.py",
        "os.killpg(each.pid, signal.SIGKILL)",
        "each.kill()",
        f"{_WORKERS}::test_no_process_is_left",
    ),
    Mutant(
        "launch/processes.py",
        "alive_at, last_signs = now, signs",
        "last_signs = signs",
        f"{_PROCESSES}::test_signs_of_life",
    ),
    Mutant("launch/workers.py", "wait(well=(0, *EXIT_CODES))", "wait()", f"{_WORKERS}::test_signals_are_passed_on"),
    Mutant(
        "launch/workers.py",
        "self._asked_at > self._one_press",
        "self._asked_at >= 0",
        f"{_WORKERS}::test_signals_are_passed_on",
    ),
    Mutant(
        "launch/run_trial.py",
        "end.code if end.code in _ANNOUNCED else None",
        "end.code",
        "behaviour/launch/test_run_trial.py::test_a_worker_that_tells_why",
    ),
    Mutant(
        "launch/workers.py",
        "self._asked == number and now - self._asked_at",
        "now - self._asked_at",
        f"{_WORKERS}::test_asked_in_two_ways",
    ),
    Mutant("parallel/worker.py", 'target.open("ab")', 'target.open("wb")', f"{_WORKERS}::test_logs_of_all_attempts"),
    Mutant(
        "launch/run_probe.py",
        "if each != _ENDED_WITH_ANOTHER), None)",
        "), None)",
        "unit/launch/test_run_probe.py::test_answers_together",
    ),
]

_RUN_MUTANTS = [
    Mutant("launch/start.py", "            remedied = True\n", "", f"{_START}::test_a_remedy"),
    Mutant(
        "launch/start.py", "attempt.began and RunFolder", "RunFolder", f"{_START}::test_a_gpu_that_fails_on_the_way"
    ),
    Mutant(
        "launch/start.py",
        "deterministic(plan.config.train.deterministic)",
        "deterministic(False)",
        f"{_START}::test_deterministic",
    ),
    Mutant(
        "launch/resume.py",
        " * config.train.accumulation_steps * config.gpu_count)",
        ")",
        f"{_RESUME}::test_the_next_rate",
    ),
    Mutant("launch/resume.py", "str(folder), resume_from=None)", "str(folder))", f"{_RESUME}::test_where_it_goes_on"),
    Mutant(
        "launch/decide.py",
        "str(folder), resume_from=None, ",
        "str(folder), ",
        f"{_DECIDE}::test_settings_lead_back_to_the_run",
    ),
    Mutant(
        "launch/decide.py", "world.broadcast(plan.folder)", "plan.folder", f"{_DECIDE}::test_ranks_agree_on_the_folder"
    ),
    Mutant(
        "launch/decide.py",
        "    elif not worker.is_worker():\n        resolved = autobatch",
        "    else:\n        resolved = autobatch",
        f"{_DECIDE}::test_torchrun_measures_later",
    ),
    Mutant(
        "launch/decide.py",
        "for one in world.all_gather(own(config, limits)) for",
        "for one in [own(config, limits)] for",
        f"{_DECIDE}::test_ranks_agree_on_batches",
    ),
    Mutant("launch/evaluate.py", "and not is_worker()", "", "unit/launch/test_evaluate.py::test_in_one_of_several"),
]

_MEMORY_MUTANTS = [
    # The second step finds the memory as the first left it, and the optimizer's moments come with the first.
    Mutant("launch/memory_probe.py", "_STEPS = 2", "_STEPS = 1", _STEPS),
    Mutant("launch/memory_probe.py", "    optimizer.step()\n    for _", "    for _", _STEPS),
    Mutant(
        "launch/memory_probe.py",
        "only(network, _costliest(config, network, device, stage))",
        "only(network, [[0, 1]] * 4)",
        _STEPS,
    ),
    Mutant(
        "launch/memory_probe.py",
        "max(most.get(phase.stage, 0), phase.backbone_stages)",
        "most.get(phase.stage, phase.backbone_stages)",
        f"{_PROBE}::test_each_stage_once",
    ),
    Mutant(
        "launch/memory_probe.py",
        "_MARGIN * free / total",
        "_MARGIN",
        f"{_PROBE}::test_part_of_the_memory_stays_free",
    ),
    Mutant("launch/memory_probe.py", "while high - low > 1:", "while high - low > 2:", f"{_PROBE}::test_the_largest"),
    Mutant(
        "launch/autobatch.py",
        "min(second for _, second in measured)",
        "max(second for _, second in measured)",
        f"{_BATCHES}::test_the_smallest_card_counts",
    ),
    Mutant(
        "launch/autobatch.py",
        "any(few < own for few, own in zip(most, own_batches(asked), strict=True))",
        "most[0] < own_batches(asked)[0]",
        f"{_BATCHES}::test_stage_2_alone_does_not_fit",
    ),
]

_TRIAL_MUTANTS = [
    Mutant(
        "launch/auto_strategy.py",
        "speeds[best] > _MARGIN * speeds[first_choice]",
        "speeds[best] > speeds[first_choice]",
        f"{_CHOICE}::test_deciding",
    ),
    Mutant("launch/auto_strategy.py", "median(each.compute) for", "max(each.compute) for", f"{_CHOICE}::test_deciding"),
    Mutant(
        "launch/auto_strategy.py",
        "train.batch_size, config.stage2_batch_size, train",
        "train.batch_size, train",
        f"{_CHOICE}::test_other_sizes_are_tried_anew",
    ),
    Mutant(
        "launch/trial.py",
        "first = world.rank * stage.batch_size",
        "first = world.rank",
        f"{_TRIAL}::test_ranks_go_on_from_each_other",
    ),
    Mutant("launch/trial.py", ", spread(run.state.scored_network, first):", ":", f"{_TRIAL}::test_all_experts_work"),
    Mutant(
        "launch/trial.py", "noise(size // run.world.size,", "noise(size,", f"{_TRIAL}::test_ranks_go_on_from_each_other"
    ),
    Mutant("launch/trial.py", "rates.append(sum(images)", "rates.append(len(images)", f"{_WATCH}::test_rates"),
    Mutant(
        "launch/trial.py", "world.all_reduce_max(torch.tensor([self", "(torch.tensor([self", f"{_WATCH}::test_rates"
    ),
    Mutant(
        "launch/trial.py",
        "self._next(steps)  # starts workers and chooses kernels\n",
        "\n",
        f"{_WATCH}::test_how_many_steps",
    ),
    Mutant("launch/trial.py", "(batches.waited - waited)", "batches.waited", f"{_WATCH}::test_with_images"),
    Mutant(
        "launch/trial.py",
        "statistics.median(seconds[1:])",
        "statistics.median(seconds)",
        f"{_WATCH}::test_communication",
    ),
    Mutant("launch/trial.py", "        validate(self.run)\n", "", f"{_WATCH}::test_validation"),
    Mutant(
        "launch/auto_strategy.py",
        "asdict(replace(config.model, backbone_weights=None))",
        "asdict(config.model)",
        f"{_CHOICE}::test_a_choice_holds_wherever_weights_lie",
    ),
]

_WORLD = "unit/parallel/test_world.py"
_CONTINUING = "unit/launch/test_continuing.py"
_FOUND = "launch/continuing.py"
_CONTINUE_MUTANTS = [
    # 8 images on 3 GPUs become 6, though 9 are nearer.
    Mutant(
        "config/batches.py",
        "math.ceil(max(wanted) / gpus)",
        "max(wanted) // gpus",
        "unit/config/test_batches.py::test_no_other_batches_come_nearer",
    ),
    # Whether the command continues a run at all.
    Mutant(_FOUND, "if run.continue_ is False or variable is None:", "if variable is None:", _CONTINUING),
    Mutant(_FOUND, "    reason = world.broadcast(reason)\n", "", f"{_CONTINUING}::test_ranks"),
    Mutant(
        _FOUND,
        "        return None  # the command says from where to continue\n",
        "        pass\n",
        f"{_CONTINUING}::test_a_checkpoint_in_the_own_folder",
    ),
    Mutant("launch/start.py", "if waits or worker.is_worker() else 0.0", "", _START),
    Mutant("run_folder.py", "if time.monotonic() >= end:", "if time.monotonic() < end:", "unit/test_run_folder.py"),
    # Another run is taken for this one, or this one for another.
    Mutant(_FOUND, '("none", "rounding")', '("none", "rounding", "longer")', _CONTINUING),
    Mutant(_FOUND, "started = current if checkpoint.start is None else", "started = current if True else", _CONTINUING),
    Mutant(
        _FOUND,
        "if differing and _differences(replace(current, run=started.run), now):",
        "if differing:",
        f"{_CONTINUING}::test_a_run_that_was_extended",
    ),
    Mutant(
        _FOUND,
        'if "all" in (before.run.gpus, now.run.gpus):',
        "if False:",
        f"{_CONTINUING}::test_all_gpus",
    ),
    Mutant(_FOUND, "each and Path(each).name for each", "each for each", f"{_CONTINUING}::test_other_backbone_weights"),
    Mutant(
        _FOUND,
        "for each in weights}) > 1:",
        "for each in weights}) > 2:",
        f"{_CONTINUING}::test_other_backbone_weights",
    ),
    Mutant(_FOUND, "    if starts[0] != starts[1]:", "    if False:", _CONTINUING),
    Mutant("launch/decide.py", "str(Path(path).absolute())", "path + '/'", _CONTINUING),
    # A run that lacks an epoch, or its results, is taken for complete; or one with other images.
    Mutant(_FOUND, "is_trained(before, epochs_done(before, checkpoint), best_epoch)", "True", _CONTINUING),
    Mutant(_FOUND, "epochs_done(before, checkpoint), best_epoch)", "epochs_done(before, checkpoint), 0)", _CONTINUING),
    Mutant("run_folder.py", "return trained and self.results_of_run is not None", "return trained", _CONTINUING),
    Mutant(
        _FOUND,
        "        _refuse_other_images(resolved, checkpoint, folder)\n",
        "",
        f"{_CONTINUING}::test_a_complete_run_with_other_images",
    ),
    # Settings that are not the command's to change, and the other way round.
    Mutant(
        "config/diff.py",
        '    sections["model"]["gradient_checkpointing"] |= run.model.gradient_checkpointing\n',
        "",
        _CONTINUING,
    ),
    Mutant("config/diff.py", "= setting.of(command)", "= setting.of(run)", _CONTINUING),
    Mutant(_FOUND, "if config.gpu_count != before.gpu_count or gives_other_batches:", "if True:", _CONTINUING),
    Mutant(_FOUND, " or gives_other_batches:", ":", f"{_CONTINUING}::test_less_memory"),
    Mutant(_FOUND, "batches_within(config, most, decided.global_batches)", "batches_within(config, most)", _CONTINUING),
    Mutant(_FOUND, "own_batches(now if gives_other_batches else decided)", "own_batches(before)", _CONTINUING),
    # A run that is killed before its first save cannot be continued.
    Mutant("launch/decide.py", "saves_first = bool(run.continue_)", "saves_first = False", _CONTINUING),
    Mutant("engine/train.py", "plan.saves_first or checkpoint is not None", "False", "behaviour/test_continue.py"),
    Mutant("signals.py", "    if _is_importing(frame):", "    if False:", "unit/test_signals.py"),
    # How the run was started is forgotten on the way.
    Mutant("engine/plan.py", "checkpoint=self.folder, as_given=None)", "checkpoint=self.folder)", _START),
    Mutant("engine/run.py", "    if plan.as_given is not None:", "    if checkpoint is None:", _CONTINUING),
    Mutant("engine/saving.py", "            start=self.start,\n", "", "behaviour/test_continue.py"),
    # Restarts by torchrun.
    Mutant(
        "parallel/world.py",
        "with _raising_peer_lost(), _hearing_signals():",
        "with _raising_peer_lost():",
        f"{_WORLD}::test_handlers_after_joining",
    ),
    Mutant("parallel/world.py", "if callable(handler)}", "}", f"{_WORLD}::test_handlers_after_joining"),
    Mutant(
        "parallel/rendezvous.py",
        'machines not in ("0", "1")',
        "True",
        "unit/parallel/test_rendezvous.py::test_machines_that_cannot_join",
    ),
    # Ranks that found different things train together.
    Mutant(_FOUND, "        if each != positions[0]:", "        if False:", _CONTINUING),
    Mutant(_FOUND, "replace(found.outcome, results=None)", "found.outcome", _CONTINUING),
]

MUTANTS = [*_PROCESS_MUTANTS, *_RUN_MUTANTS, *_MEMORY_MUTANTS, *_TRIAL_MUTANTS, *_CONTINUE_MUTANTS]
