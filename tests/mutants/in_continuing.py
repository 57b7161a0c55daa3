"""Mistakes in what a command that is run again keeps: predictions and scores of another kind, or work done twice."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CONTINUE = "behaviour/commands/test_continue.py"
_PROVENANCE = "unit/inference/test_provenance.py"
_SAVING = "unit/evaluation/test_saving.py"
_WRITING = "unit/data/test_writing.py"

MUTANTS = [
    Mutant("rerun.py", " and int(restarts) > 0", "", "unit/test_rerun.py"),
    Mutant("regular_file.py", "if not status.st_size:  # perhaps", "if False:  # perhaps", "unit/test_regular_file.py"),
    # What a file says of itself.
    Mutant("data/writing.py", "        if note and note_in(path) == note:", "        if note:", _WRITING),
    Mutant("data/writing.py", "if note and note_in(path) == note:", "if note_in(path) == note:", _WRITING),
    Mutant(
        "data/writing.py",
        "found is None or not start.startswith(mark + _NOTES[path.suffix](found[0]))",
        "found is None",
        f"{_WRITING}::test_notes_that_are_damaged",
    ),
    Mutant("data/writing.py", "(ValueError, RecursionError)", "ValueError", f"{_WRITING}::test_notes_that_are_no_json"),
    # What is kept.
    Mutant(
        "inference/provenance.py",
        "and all(inputs.values())",
        "",
        f"{_PROVENANCE}::test_an_input_that_cannot_be_read",
    ),
    Mutant("inference/provenance.py", " and is_complete(path)", "", f"{_PROVENANCE}::test_what_is_kept"),
    Mutant(
        "inference/provenance.py",
        "wanted = note_in(path), {**settings, **inputs}",
        "wanted = note_in(path), {**note_in(path), **settings}",
        _PROVENANCE,
    ),
    Mutant("inference/provenance.py", "        if made != wanted:", "        if False:", _PROVENANCE),
    Mutant("inference/provenance.py", "if others and not overwrite:", "if others:", _PROVENANCE),
    Mutant(
        "inference/provenance.py",
        "if not made.keys() & _OTHERS.keys():",
        "if not made:",
        f"{_PROVENANCE}::test_differences",
    ),
    Mutant("inference/provenance.py", '"tta": None if tta == NO_TTA else ",".join(views),', "", _PROVENANCE),
    Mutant(
        "inference/predict.py",
        ', "threshold": outputs.threshold, "tiles": tiles}',
        ', "tiles": tiles}',
        f"{_CONTINUE}::test_predictions_of_two_kinds_are_not_mixed",
    ),
    Mutant(
        "inference/predict.py",
        ', "tiles": tiles}',
        "}",
        f"{_CONTINUE}::test_predictions_of_two_kinds_are_not_mixed",
    ),
    Mutant(
        "inference/predict.py",
        "        if source in kept:\n            continue\n",
        "",
        "unit/inference/test_tiles.py::test_what_is_kept_is_not_computed_again",
    ),
    Mutant(
        "inference/predict.py",
        "else file_digest(source)\n    network",
        'else "same"\n    network',
        f"{_CONTINUE}::test_predictions_of_two_kinds_are_not_mixed",
    ),
    Mutant(
        "inference/predict.py",
        "if earlier.kept.issuperset(outputs.files_of(image))}",
        "if outputs.prediction_of(image) in earlier.kept}",
        f"{_CONTINUE}::test_overlays_that_were_not_asked_for_before",
    ),
    Mutant(
        "inference/batches.py",
        "if not all(each in kept for each in batch)",
        "if not any(each in kept for each in batch)",
        "unit/inference/test_predict.py::test_batches_are_computed_as_a_whole",
    ),
    Mutant(
        "inference/predict.py",
        "new = not overwrite and earlier.outdated.isdisjoint(outputs.files_of(path))",
        "new = not overwrite",
        f"{_CONTINUE}::test_an_image_that_was_replaced",
    ),
    Mutant(
        "inference/predict.py",
        "new = not overwrite and earlier.outdated.isdisjoint(outputs.files_of(path))",
        "new = False",
        f"{_CONTINUE}::test_another_process_with_the_same_command",
    ),
    Mutant(
        "commands/options.py",
        "return scheduler_variable() is not None if asked is None else asked",
        "return bool(asked)",
        f"{_CONTINUE}::test_schedulers_continue",
    ),
    # Evaluations.
    Mutant(
        "evaluation/saving.py",
        "if self.earlier.kept.issuperset(self.paths[each] for each in batch)",
        "",
        f"{_SAVING}::test_batches_are_kept_as_a_whole",
    ),
    Mutant(
        "evaluation/saving.py",
        "for index in kept[world.rank :: world.size]:",
        "for index in kept:",
        f"{_SAVING}::test_ranks_score_what_is_kept",
    ),
    Mutant(
        "evaluation/saving.py",
        "return in_order(rows, problem, world)",
        "return in_order(rows, None, world)",
        f"{_SAVING}::test_ranks_score_what_is_kept",
    ),
    Mutant(
        "evaluation/saving.py",
        "path not in self.earlier.outdated",
        "path not in self.earlier.kept",
        f"{_CONTINUE}::test_a_batch_of_which_some_are_there",
    ),
    Mutant(
        "evaluation/saving.py",
        "if kept == count and results is not None:",
        "if results is not None:",
        f"{_CONTINUE}::test_an_evaluation_whose_predictions_are_incomplete",
    ),
    Mutant(
        "evaluation/data_digest.py",
        'each["image"], each["mask"]]',
        'each["image"]]',
        f"{_SAVING}::test_digests",
    ),
    Mutant(
        "evaluation/output.py",
        "return results if len(there) == len(destination.files) and",
        "return results if",
        f"{_CONTINUE}::test_scores_that_are_incomplete",
    ),
    Mutant(
        "evaluation/output.py",
        'and _are_scores(results["sets"]) else None',
        "else None",
        f"{_CONTINUE}::test_scores_that_are_incomplete",
    ),
    Mutant(
        "evaluation/output.py",
        "    if made == wanted:",
        "    if True:",
        f"{_CONTINUE}::test_scores_of_another_evaluation",
    ),
    Mutant(
        "evaluation/output.py",
        "    if destination.overwrite:\n        return None\n",
        "",
        f"{_CONTINUE}::test_scores_of_another_evaluation",
    ),
    Mutant(
        "evaluation/test_sets.py",
        "zip([*kept, *todo], [*old, *new], strict=True)",
        "zip(range(len(pairs)), [*old, *new], strict=True)",
        f"{_CONTINUE}::test_a_batch_that_is_missing_first",
    ),
    Mutant(
        "evaluation/given_predictions.py",
        'about["data_sha256"] = combined(tests, digests_of(tests))',
        "pass",
        f"{_CONTINUE}::test_given_predictions",
    ),
    Mutant(
        "commands/eval.py",
        "            output.finished_results(destination, evaluation.about)\n",
        "",
        f"{_CONTINUE}::test_another_evaluation_was_faster",
    ),
]
