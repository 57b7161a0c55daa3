"""Mistakes in how processes are started, waited for and resumed, and in what is tried before a run."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_PROCESSES = "behaviour/launch/test_processes.py"
_WORKERS = "behaviour/launch/test_workers.py"
_START = "unit/launch/test_start.py"
_RESUME = "unit/launch/test_resume.py"
_PROBE = "unit/launch/test_memory_probe.py"
_STEPS = "behaviour/launch/test_memory_probe.py::test_the_worst_that_a_long_run_meets"
_BATCHES = "behaviour/launch/test_autobatch.py"
_CHOICE = "unit/launch/test_auto_strategy.py"
_TRIAL = "behaviour/launch/test_trial.py"

_ENDS = [
    # A lost partner blamed before the cause.
    Mutant(
        "launch/processes.py", "return end.code == PEER_LOST, end.was", "return end.was", "unit/launch/test_ends.py"
    ),
    Mutant(
        "launch/processes.py", "0.0 if was_asked else end.told_at, end.rank", "end.rank", "unit/launch/test_ends.py"
    ),
    Mutant("launch/processes.py", "0.0 if was_asked else end.told_at", "end.told_at", "unit/launch/test_ends.py"),
    Mutant(
        "launch/processes.py",
        "os.killpg(each.pid, signal.SIGKILL)",
        "each.kill()",
        f"{_WORKERS}::test_no_process_is_left",
    ),
    Mutant(
        "launch/processes.py",
        "alive_at, last_sign = now, sign",
        "last_sign = sign",
        f"{_PROCESSES}::test_signs_of_life",
    ),
    Mutant("launch/processes.py", "if end == math.inf and (", "if (", f"{_PROCESSES}::test_hurried"),
    Mutant("launch/processes.py", "process_group=0,", "", f"{_WORKERS}::test_no_process_is_left"),
    Mutant("launch/workers.py", "wait(well=(0, *ASKED))", "wait()", f"{_WORKERS}::test_signals_are_passed_on"),
    Mutant(
        "launch/workers.py",
        "self._asked_at > self._one_press",
        "self._asked_at >= 0",
        f"{_WORKERS}::test_signals_are_passed_on",
    ),
    Mutant(
        "launch/workers.py",
        "        self._children.send_signal(number)\n",
        "",
        f"{_WORKERS}::test_signals_are_passed_on",
    ),
    Mutant(
        "launch/run_probe.py",
        " if name not in LAUNCHER_VARIABLES}",
        "}",
        "behaviour/launch/test_run_probe.py::test_launcher_variables_do_not_reach_it",
    ),
    Mutant(
        "launch/run_trial.py",
        "end.code if end.code in _ANNOUNCED else None",
        "end.code",
        "behaviour/launch/test_run_trial.py::test_a_worker_that_tells_why",
    ),
]

_STARTS = [
    Mutant(
        "launch/start.py", "restarts == plan.config.run.max_restarts", "restarts > plan.config.run.max_restarts", _START
    ),
    Mutant("launch/start.py", "            remedied = True\n", "", f"{_START}::test_a_remedy"),
    Mutant("launch/start.py", "            restarts += 1\n", "", f"{_START}::test_no_restart_of_what_would_fail_again"),
    Mutant(
        "launch/start.py",
        "and not (error.exit_code == DeviceError.exit_code and has_begun)",
        "",
        f"{_START}::test_a_gpu_that_fails_on_the_way",
    ),
    Mutant(
        "launch/start.py", "attempt.began and RunFolder", "RunFolder", f"{_START}::test_a_gpu_that_fails_on_the_way"
    ),
    Mutant("launch/resume.py", " or config.run.gpus != before.run.gpus)", ")", _RESUME),
    Mutant(
        "launch/resume.py",
        "config.train.epochs < before.train.epochs",
        "config.train.epochs <= before.train.epochs",
        _RESUME,
    ),
    Mutant("launch/resume.py", " * config.train.accumulation_steps * config.gpu_count)", ")", _RESUME),
    Mutant("launch/resume.py", "and not BATCH_SETTINGS & assigned", "", _RESUME),
    Mutant("launch/resume.py", "checkpoint_dir=str(folder), resume_from=None)", "checkpoint_dir=str(folder))", _RESUME),
    Mutant("launch/decide.py", "world.broadcast(plan.folder)", "plan.folder", "unit/launch/test_decide.py"),
    Mutant(
        "launch/decide.py",
        "checkpoint_dir=str(folder), resume_from=None)",
        "checkpoint_dir=str(folder))",
        "unit/launch/test_decide.py",
    ),
    Mutant("launch/evaluate.py", "and not is_worker()", "", "unit/launch/test_evaluate.py"),
]

_MEMORY = [
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
        "launch/memory_probe.py", "_MARGIN * free / total", "_MARGIN", f"{_PROBE}::test_part_of_the_memory_stays_free"
    ),
    Mutant("launch/memory_probe.py", "while high - low > 1:", "while high - low > 2:", f"{_PROBE}::test_the_largest"),
    Mutant(
        "launch/memory_probe.py",
        "found[stage.number - 1] = largest_that(fits, limits[stage.number - 1])",
        "found[stage.number - 1] = largest_that(fits, limits[0])",
        f"{_PROBE}::test_largest_batches",
    ),
    Mutant(
        "launch/autobatch.py",
        "min(second for _, second in measured)",
        "max(second for _, second in measured)",
        f"{_BATCHES}::test_the_smallest_card_counts",
    ),
    Mutant(
        "launch/autobatch.py",
        "size if key in resolved.typed else size * steps",
        "size * steps",
        f"{_BATCHES}::test_auto",
    ),
    Mutant(
        "launch/autobatch.py",
        "any(few < own for few, own in zip(most, own_batches(asked), strict=True))",
        "most[0] < own_batches(asked)[0]",
        _BATCHES,
    ),
    Mutant(
        "launch/autobatch.py", "        if most.exit_code is not None:", "        if most.exit_code is None:", _BATCHES
    ),
    Mutant(
        "launch/decide.py",
        "    elif not worker.is_worker():\n        resolved = autobatch",
        "    else:\n        resolved = autobatch",
        "unit/launch/test_decide.py",
    ),
]

_TRIALS = [
    Mutant(
        "launch/auto_strategy.py",
        "speeds[best] > _MARGIN * speeds[first_choice]",
        "speeds[best] > speeds[first_choice]",
        f"{_CHOICE}::test_deciding",
    ),
    Mutant(
        "launch/auto_strategy.py",
        "median(each.compute) for name",
        "max(each.compute) for name",
        f"{_CHOICE}::test_deciding",
    ),
    Mutant(
        "launch/auto_strategy.py",
        "train.batch_size, config.stage2_batch_size, train",
        "train.batch_size, train",
        f"{_CHOICE}::test_other_sizes_are_tried_anew",
    ),
    Mutant(
        "launch/auto_strategy.py",
        "build_phases(config)[-1].stage.number\n    outcomes",
        "build_phases(config)[0].stage.number\n    outcomes",
        f"{_CHOICE}::test_choosing_once",
    ),
    Mutant(
        "launch/auto_strategy.py",
        "if kept is not None and kept.key == key:",
        "if kept is not None:",
        f"{_CHOICE}::test_the_run_folder_remembers",
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
    Mutant(
        "launch/trial.py",
        "rates.append(sum(images) / seconds)",
        "rates.append(len(images) / seconds)",
        "unit/launch/test_watch.py",
    ),
    Mutant(
        "launch/trial.py",
        "- started], dtype=torch.float64)",
        "- started / 2], dtype=torch.float64)",
        "unit/launch/test_watch.py",
    ),
    Mutant(
        "launch/trial.py", "world.all_reduce_max(torch.tensor([self", "(torch.tensor([self", "unit/launch/test_watch.py"
    ),
    Mutant("launch/trial.py", "(count - 1)\n", "count\n", "unit/launch/test_watch.py"),
    Mutant("launch/trial.py", "len(self.run.data.validation) /", "1 /", "unit/launch/test_watch.py"),
]

MUTANTS = [*_ENDS, *_STARTS, *_MEMORY, *_TRIALS]
