"""Mistakes in what is said of a run that is not complete: by an exit code, and by `camox status`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_UNFINISHED = "unit/launch/test_unfinished.py"
_SUMMARY = "unit/checkpoints/test_summary.py"
_IN_USE = "unit/status/test_in_use.py"
_LOG = "unit/status/test_log_end.py"
_REMAINING = "unit/status/test_remaining.py"
_STATUS = "unit/status/test_run_status.py"
_COMMAND = "unit/commands/test_status.py"

MUTANTS = [
    # The exit code: of signals and clocks alone, before a run begins too, and not under torchrun.
    Mutant("launch/unfinished.py", "            error.exit_code = code\n", "            pass\n", _UNFINISHED),
    Mutant("launch/unfinished.py", "exit_code=code)", "exit_code=130)", _UNFINISHED),
    Mutant(
        "launch/unfinished.py",
        "return None if _is_under_torchrun() else config",
        "return config",
        f"{_UNFINISHED}::test_under_torchrun",
    ),
    Mutant("launch/unfinished.py", " and worker.is_first():", ":", f"{_UNFINISHED}::test_under_torchrun"),
    Mutant(
        "launch/unfinished.py",
        "    except ValueError:\n        return None\n",
        "    except ValueError:\n        raise\n",
        _UNFINISHED,
    ),
    Mutant(
        "launch/start.py",
        "        unfinished.interrupted_with(unfinished.code_of(resolved.config)),\n",
        "",
        f"{_UNFINISHED}::test_the_launcher",
    ),
    Mutant(
        "launch/start.py",
        "        unfinished.warn_of_torchrun(resolved.config, folder.path)\n",
        "",
        "behaviour/test_status.py::test_under_torchrun",
    ),
    Mutant(
        "commands/train.py",
        "with interrupted_with(code_of(resolved.config)):",
        "with interrupted_with(None):",
        f"{_UNFINISHED}::test_a_signal_before_it_starts",
    ),
    Mutant(
        "commands/resume.py",
        "with interrupted_with(code_typed(flags)):",
        "with interrupted_with(None):",
        f"{_UNFINISHED}::test_a_signal_before_it_starts",
    ),
    Mutant(
        "commands/training_outcome.py",
        "if outcome.stop is not None and (code",
        "if (code",
        f"{_UNFINISHED}::test_the_clock",
    ),
    Mutant(
        "commands/resume.py", '    "run.unfinished_exit_code",\n', "", f"{_UNFINISHED}::test_a_signal_before_it_starts"
    ),
    Mutant(
        "config/diff.py",
        '    "run.unfinished_exit_code",\n',
        "",
        "unit/config/test_diff.py::test_effect_of_each_setting",
    ),
    # What a checkpoint says: nothing in it is run, damage is seen, and what is replaced is read again.
    Mutant(
        "checkpoints/summary.py",
        '        raise pickle.UnpicklingError(f"it',
        '        return _Stub\n        str(f"it',
        _SUMMARY,
    ),
    Mutant("checkpoints/summary.py", '    if not content.get("network"):\n', "    if False:\n", _SUMMARY),
    Mutant("checkpoints/summary.py", "cause.errno == errno.ESTALE", "False", _SUMMARY),
    Mutant(
        "checkpoints/summary.py",
        "            return None\n        except OSError as error:",
        "            raise\n        except OSError as error:",
        _SUMMARY,
    ),
    Mutant("checkpoints/summary.py", "abs(value) <= _LARGEST else -1.0", "True else -1.0", _SUMMARY),
    Mutant(
        "checkpoints/summary.py", "type(value) is int and 0 <= value", "isinstance(value, int) and 0 <= value", _SUMMARY
    ),
    # Who uses the folder.
    Mutant("status/in_use.py", ' and fields[1] == "FLOCK"', "", _IN_USE),
    Mutant(
        "status/in_use.py",
        'fields[5] == f"{device}:{status.st_ino}"',
        'fields[5].endswith(f":{status.st_ino}")',
        _IN_USE,
    ),
    Mutant("status/in_use.py", "return any(_has_open(", "return False and any(_has_open(", _IN_USE),
    # The end of the log.
    Mutant("status/log_end.py", "lines[::-1]", "lines", _LOG),
    Mutant("status/log_end.py", "and closed == event.position[0] + 1", "and closed is not None", _LOG),
    Mutant("status/log_end.py", "max(0, size - most)", "0", _LOG),
    Mutant("status/log_end.py", 'samples if kind == "resume" else 0', "0", _LOG),
    # The time that remains.
    Mutant("status/remaining.py", "not own or any(", "any(", _REMAINING),
    Mutant("status/remaining.py", "any(each.first > epoch for each in phases)", "False", _REMAINING),
    Mutant("status/remaining.py", '< row["epoch"] <= phase.end]', '< row["epoch"]]', _REMAINING),
    Mutant("status/remaining.py", "(own or before)[-_RECENT:]", "(own or before)", _REMAINING),
    # The run.
    Mutant("status/run_status.py", "max(saved, log.position or start)", "saved", _STATUS),
    Mutant("run_folder.py", "trained = trained or not (self.last", "trained = True or not (self.last", _STATUS),
    Mutant(
        "run_folder.py",
        "        trained = trained or not (self.last.exists() or self.previous.exists())\n",
        "",
        _STATUS,
    ),
    Mutant(
        "status/run_status.py",
        "ahead = saved if running is False and not complete else position",
        "ahead = position",
        _STATUS,
    ),
    Mutant(
        "status/run_status.py",
        "_first_valid(folder.settings, None if last is None else last.config)",
        "_first_valid(folder.settings)",
        _STATUS,
    ),
    Mutant("status/run_status.py", "[folder.resume_command, *options]", "[folder.resume_command]", _STATUS),
    Mutant("status/run_status.py", " or stopped is not None)", ")", _STATUS),
    Mutant("run_folder.py", ' and {"validation", "tests", "epoch"} <= content.keys()', "", _STATUS),
    Mutant("status/run_status.py", "if all(each.intact is False for", "if all(False for", _STATUS),
    Mutant("status/run_status.py", "rows_of(_json(folder.history))", "()", _STATUS),
    Mutant(
        "status/find_run.py",
        "if not found and is_in_use(source):",
        "if False:",
        "unit/status/test_find_run.py::test_a_run_that_is_being_prepared",
    ),
    Mutant("run_folder.py", "for name in _OF_A_RUN)", "for name in ())", "unit/status/test_find_run.py"),
    Mutant("commands/status.py", "raise typer.Exit(unfinished_exit_code)", "raise typer.Exit(0)", _COMMAND),
    Mutant("commands/status.py", "    if not found.complete:\n", "    if True:\n", _COMMAND),
]
