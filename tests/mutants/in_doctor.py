"""Mistakes in what the doctor makes of a machine, and in what the benchmark makes of its measurements."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_JUDGEMENT = "unit/doctor/test_judgement.py"
_NUMBERS = "unit/doctor/test_numbers.py"
_SELFTESTS = "behaviour/doctor/test_selftests.py"
_BENCHMARK = "unit/benchmark/test_benchmark.py"
_COMPARED = "unit/benchmark/test_trials.py::test_all_that_is_compared"

_DOCTOR_MUTANTS = [
    Mutant(
        "doctor/check_gpus.py",
        "version <= 10 * major + minor",
        "version < 10 * major + minor",
        f"{_JUDGEMENT}::test_supported",
    ),
    Mutant(
        "doctor/check_preset.py",
        "card = min(readings.seen",
        "card = max(readings.seen",
        f"{_NUMBERS}::test_the_smallest_card_counts",
    ),
    Mutant(
        "doctor/check_preset.py",
        "(-(-batch // 2) for batch",
        "(batch // 2 for batch",
        f"{_NUMBERS}::test_halves_of_odd_batches",
    ),
    Mutant(
        "doctor/check_preset.py",
        "steps = question.config.train.accumulation_steps * question.config.gpu_count",
        "steps = question.config.gpu_count",
        f"{_NUMBERS}::test_one_card_for_a_recipe_of_two",
    ),
    Mutant(
        "doctor/check_machine.py",
        "processes(readings) * (_AHEAD * workers",
        "(_AHEAD * workers",
        f"{_NUMBERS}::test_shared_memory_of_all_processes",
    ),
    Mutant(
        "doctor/check_machine.py",
        "needed = _CHECKPOINTS * network.checkpoint",
        "needed = network.checkpoint",
        f"{_NUMBERS}::test_room_for_three_checkpoints",
    ),
    Mutant(
        "doctor/recommend.py",
        "smallest = min(readings.seen",
        "smallest = max(readings.seen",
        f"{_NUMBERS}::test_the_smallest_card_counts",
    ),
    Mutant(
        "doctor/recommend.py",
        "used = working[:1] if strategy is None else working",
        "used = working",
        f"{_JUDGEMENT}::test_cards_that_do_not_work_together",
    ),
    Mutant(
        "doctor/selftests.py",
        "masks[own], len(images), first=first)",
        "masks[own], len(images), first=0)",
        f"{_SELFTESTS}::test_ddp",
    ),
    Mutant(
        "doctor/selftests.py",
        "2 * (world.size - 1) / world.size * values",
        "2 * (world.size - 1) * values",
        "unit/doctor/test_bandwidth.py",
    ),
    Mutant(
        "doctor/check_machine.py",
        "if workers * ranks > cores:",
        "if workers > cores:",
        f"{_JUDGEMENT}::test_loader_workers_of_every_process",
    ),
    Mutant(
        "doctor/check_machine.py",
        "if not model.pretrained or model.backbone_weights is not None:",
        "if not model.pretrained:",
        f"{_JUDGEMENT}::test_weights_that_need_no_internet",
    ),
    Mutant(
        "doctor/check_gpus.py",
        "if trial.free < _FREE * card.memory:",
        "if trial.free < _FREE * card.memory / 2:",
        f"{_NUMBERS}::test_memory_that_others_hold",
    ),
    Mutant(
        "doctor/check_machine.py",
        "    if limit.left <= 0:",
        "    if limit.left > 0:",
        "unit/doctor/test_judgement.py::test_limit_of_a_job",
    ),
]

_BENCHMARK_MUTANTS = [
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
        "each.gpus == rows[0].gpus",
        "each.gpus == 1",
        f"{_BENCHMARK}::test_speedups_of_several_strategies",
    ),
    Mutant(
        "benchmark/benchmark.py",
        "max(counts) if on_cpu else processes_of(strategy, count)",
        "processes_of(strategy, count)",
        _COMPARED,
    ),
    Mutant(
        "benchmark/benchmark.py",
        "return keep_preset_batches(resolve(preset, {**flags, **run}))",
        "return resolve(preset, {**flags, **run})",
        _COMPARED,
    ),
    Mutant(
        "benchmark/report.py",
        "row.speedup * result.rows[0].gpus / row.gpus",
        "row.speedup / row.gpus",
        f"{_BENCHMARK}::test_efficiency_from_two_on",
    ),
    Mutant(
        "benchmark/report.py",
        "median(one.compute) / row.step_images",
        "median(one.end_to_end) / row.step_images",
        f"{_BENCHMARK}::test_verdict_where_summing_takes_long",
    ),
    Mutant(
        "benchmark/report.py",
        "one.workers * processes_of(row.strategy, row.gpus) < cores",
        "one.workers < cores",
        f"{_BENCHMARK}::test_verdict_where_loading_is_the_limit",
    ),
    Mutant(
        "benchmark/report.py",
        "each[1].loader) / median(each[1].compute)",
        "each[1].loader)",
        f"{_BENCHMARK}::test_where_loading_comes_closest",
    ),
]

MUTANTS = [*_DOCTOR_MUTANTS, *_BENCHMARK_MUTANTS]
