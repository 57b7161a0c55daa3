"""Mistakes in what is compiled, when, and what becomes of it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_PARTS = "behaviour/engine/test_compiled_parts.py::"
_RUNS = "behaviour/engine/test_compiling.py::"
_CHOICE = "unit/engine/test_compile_choice.py::"
_TOOLS = "unit/parallel/test_toolchain.py::"

MUTANTS = [
    # The parts.
    Mutant(
        "engine/compiled_parts.py",
        '            part.stance = "eager_on_recompile"  # also for batches of other sizes\n',
        "            pass\n",
        f"{_PARTS}test_life_of_compiled_parts",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "if not self._network.training:",
        "if False:",
        f"{_PARTS}test_life_of_compiled_parts",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "            part.module._compiled_call_impl = None\n",
        "            pass\n",
        f"{_PARTS}test_life_of_compiled_parts",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "                buffer.copy_(value)\n",
        "                pass\n",
        f"{_PARTS}test_compiling_leaves_no_trace",
    ),
    Mutant(
        "engine/compiled_parts.py",
        'with torch.random.fork_rng([device] if device.type == "cuda" else []):',
        "if True:",
        f"{_PARTS}test_compiling_leaves_no_trace",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "            torch.autograd.grad(loss, trained, allow_unused=True)\n",
        "            torch.autograd.backward(loss)\n",
        f"{_PARTS}test_compiling_leaves_no_trace",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "            torch.autograd.grad(loss, trained, allow_unused=True)\n",
        "",
        f"{_PARTS}test_backward_that_cannot_be_compiled",
    ),
    Mutant(
        "engine/compiled_parts.py",
        "            self.stop()\n            return one_line",
        "            return one_line",
        f"{_PARTS}test_compiling_leaves_no_trace",
    ),
    Mutant(
        "engine/compiling.py",
        "    elif strategy.sync_batchnorm:",
        "    elif False:",
        f"{_RUNS}test_what_excludes_compiling",
    ),
    # When they are compiled.
    Mutant(
        "engine/compiling.py",
        "        self.parts.stop()\n        self.kind,",
        "        self.kind,",
        f"{_RUNS}test_auto_keeps_what_is_faster",
    ),
    Mutant(
        "engine/compiling.py",
        "        self.parts.stop()\n        self.asked",
        "        self.asked",
        f"{_RUNS}test_auto_drops_what_is_not_faster",
    ),
    Mutant(
        "engine/compiling.py",
        "    if not strategy.can_compile:",
        "    if False:",
        f"{_RUNS}test_what_excludes_compiling",
    ),
    Mutant(
        "parallel/strategy.py",
        "    can_compile = False",
        "    can_compile = True",
        f"{_RUNS}test_what_excludes_compiling",
    ),
    Mutant(
        "engine/compile_phase.py",
        " or step.images != whole:",
        ":",
        f"{_RUNS}test_auto_keeps_what_is_faster",
    ),
    Mutant(
        "engine/compile_phase.py",
        "min(training, _time_left(run))",
        "training",
        f"{_RUNS}test_auto_in_a_short_session",
    ),
    Mutant(
        "engine/compile_phase.py",
        "    if not compiling.experience.fits(left):",
        "    if False:",
        f"{_RUNS}test_no_time_to_compile",
    ),
    Mutant(
        "engine/compile_phase.py",
        'next(filter(None, run.world.all_gather(failure)), "")',
        "failure",
        f"{_RUNS}test_all_ranks_compile_or_none",
    ),
    Mutant(
        "engine/compile_phase.py",
        "        run.saver.execution = COMPILED\n",
        "        pass\n",
        f"{_RUNS}test_auto_keeps_what_is_faster",
    ),
    Mutant(
        "engine/restoring.py",
        "    if run.compiling.is_possible:  # reported",
        "    if False:  # reported",
        "behaviour/engine/test_restoring.py::test_another_execution_is_reported_once_it_is_known",
    ),
    Mutant(
        "engine/train.py",
        "now - started - compiling, progress",
        "now - started, progress",
        f"{_RUNS}test_compiling_is_no_step",
    ),
    Mutant(
        "engine/train.py",
        "            compiling += consider_compiling(run, phase, step, now - stepped)\n"
        "            stepped = run.clock.now()\n",
        "            stepped = run.clock.now()\n            compiling += consider_compiling(run, phase, step, 0.0)\n",
        f"{_RUNS}test_compiling_is_no_step",
    ),
    # What it is worth, and what it needs.
    Mutant(
        "engine/compile_choice.py",
        "return left >= _PAYBACK * self.seconds",
        "return left >= 0",
        f"{_CHOICE}test_what_is_assumed",
    ),
    Mutant("engine/compile_choice.py", "seconds[_WARM_UP:]", "seconds", f"{_CHOICE}test_time_of_a_step"),
    Mutant(
        "parallel/toolchain.py",
        "    if capability < OLDEST_CAPABILITY:",
        "    if False:",
        f"{_TOOLS}test_gpus_that_triton_does_not_support",
    ),
]
