"""Mistakes in what the doctor makes of a machine, and in what the benchmark makes of its measurements."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_JUDGEMENT = "unit/doctor/test_judgement.py"
_SELFTESTS = "behaviour/doctor/test_selftests.py"
_BENCHMARK = "unit/benchmark/test_benchmark.py"

_DOCTOR = [
    Mutant("doctor/check_gpus.py", "version <= 10 * major + minor", "version < 10 * major + minor", _JUDGEMENT),
    Mutant("doctor/check_gpus.py", "trial.free < _FREE * card.memory", "trial.free < 0.3 * card.memory", _JUDGEMENT),
    Mutant(
        "doctor/check_multi_gpu.py",
        "isinstance(readings.ddp, TeamTrial) or works_without_peers(readings)",
        "isinstance(readings.ddp, TeamTrial)",
        _JUDGEMENT,
    ),
    Mutant("doctor/check_preset.py", "card = min(readings.seen", "card = max(readings.seen", _JUDGEMENT),
    Mutant("doctor/check_preset.py", "(-(-batch // 2) for batch", "(batch // 2 for batch", _JUDGEMENT),
    Mutant(
        "doctor/check_preset.py",
        "steps = question.config.train.accumulation_steps * question.config.gpu_count",
        "steps = question.config.gpu_count",
        _JUDGEMENT,
    ),
    Mutant("doctor/check_preset.py", "> _TIGHT * card", "> card", f"{_JUDGEMENT}::test_recipe_that_is_tight"),
    Mutant("doctor/check_machine.py", "processes(readings) * (_AHEAD * workers", "(_AHEAD * workers", _JUDGEMENT),
    Mutant(
        "doctor/check_machine.py",
        "needed = _CHECKPOINTS * network.checkpoint",
        "needed = network.checkpoint",
        _JUDGEMENT,
    ),
    Mutant("doctor/recommend.py", "smallest = min(readings.seen", "smallest = max(readings.seen", _JUDGEMENT),
    Mutant(
        "doctor/recommend.py",
        "max(1, round(images / number))",
        "max(1, round(images / config.gpu_count))",
        f"{_JUDGEMENT}::test_eight_h100s",
    ),
    Mutant(
        "doctor/recommend.py",
        "used = working[:1] if strategy is None else working",
        "used = working",
        f"{_JUDGEMENT}::test_cards_that_do_not_work_together",
    ),
    Mutant(
        "doctor/take_readings.py",
        "smallest = min(cards",
        "smallest = max(cards",
        "unit/doctor/test_take_readings.py::test_memory_on_the_smallest_card",
    ),
    Mutant("doctor/system.py", "limit - usage + int(", "limit - int(", "unit/doctor/test_system.py"),
    Mutant("doctor/selftests.py", "if all(map(math.isfinite, differences)) else math.inf", "", _SELFTESTS),
    Mutant(
        "doctor/selftests.py",
        "    if difference > _TOLERANCE:\n        raise",
        "    if difference < _TOLERANCE:\n        raise",
        f"{_SELFTESTS}::test_a_strategy_that_trains_wrongly",
    ),
    Mutant("doctor/selftests.py", "len(images), first=first)", "len(images))", f"{_SELFTESTS}::test_ddp"),
    Mutant(
        "doctor/selftests.py",
        "2 * (world.size - 1) / world.size",
        "2 * (world.size - 1)",
        "unit/doctor/test_bandwidth.py",
    ),
]

_NUMBERS = [
    Mutant(
        "benchmark/benchmark.py",
        "median(self.measured.end_to_end)",
        "max(self.measured.end_to_end)",
        f"{_BENCHMARK}::test_json",
    ),
    Mutant(
        "benchmark/benchmark.py",
        "self.train / row.images_per_s / 60",
        "(self.train + self.validation) / row.images_per_s / 60",
        f"{_BENCHMARK}::test_json",
    ),
    Mutant("benchmark/benchmark.py", "self.validation / validation", "0.0", f"{_BENCHMARK}::test_tables"),
    Mutant(
        "benchmark/benchmark.py",
        "self.stage.batch_size * self.gpus * self.accumulation",
        "self.stage.batch_size * self.accumulation",
        _BENCHMARK,
    ),
    Mutant("benchmark/benchmark.py", " and each.stage.number == row.stage.number", "", f"{_BENCHMARK}::test_json"),
    Mutant(
        "benchmark/benchmark.py",
        "each.gpus == rows[0].gpus",
        "each.gpus == 1",
        f"{_BENCHMARK}::test_speedups_of_several_strategies",
    ),
    Mutant(
        "benchmark/benchmark.py",
        "max(counts) if on_cpu else processes_of(strategy, count)",
        "count",
        "unit/benchmark/test_trials.py",
    ),
    Mutant(
        "benchmark/benchmark.py",
        "return keep_preset_batches(resolve(preset, {**flags, **run}))",
        "return resolve(preset, {**flags, **run})",
        "unit/benchmark/test_trials.py",
    ),
    Mutant("benchmark/report.py", "row.speedup * result.rows[0].gpus / row.gpus", "row.speedup / row.gpus", _BENCHMARK),
    Mutant(
        "benchmark/report.py",
        "(one.communication or 0.0) * median(one.compute) / row.step_images",
        "(one.communication or 0.0) / median(one.compute)",
        _BENCHMARK,
    ),
    Mutant(
        "benchmark/report.py",
        "one.workers * processes_of(row.strategy, row.gpus) < cores",
        "one.workers < cores",
        _BENCHMARK,
    ),
    Mutant(
        "benchmark/report.py",
        "done, left = done + epochs, left - epochs * seconds",
        "done = done + epochs",
        f"{_BENCHMARK}::test_epochs_of_a_session",
    ),
    Mutant("benchmark/report.py", "each[1].loader) / median(each[1].compute)", "each[1].loader)", _BENCHMARK),
    Mutant("benchmark/report.py", "median(repeats)\n", "max(repeats)\n", _BENCHMARK),
]

MUTANTS = [*_DOCTOR, *_NUMBERS]
