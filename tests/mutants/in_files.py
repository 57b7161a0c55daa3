"""Mistakes in checkpoints, predictions, evaluations and exports: what a user would keep for results."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FIND = "behaviour/checkpoints/test_find_networks.py"
_STORED = "unit/model/test_stored_tensors.py"
_WEIGHTS = "unit/model/test_weights_file.py"
_DAMAGED = "behaviour/engine/test_damaged_contents.py"
_BACKBONE = "unit/model/test_backbone.py"
_FORMAT = "unit/checkpoints/test_format.py"
_LAYOUTS = "unit/checkpoints/test_program_layouts.py"
_CONVERT = "unit/checkpoints/test_convert.py"
_LOAD = "behaviour/checkpoints/test_load.py"
_PREDICTIONS = "unit/inference/test_predictions.py"
_PREDICT = "unit/inference/test_predict.py"
_TILES = "unit/inference/test_tiles.py"
_EXPORT = "behaviour/inference/test_export.py"
_SCORE = "unit/evaluation/test_score.py"
_TEST_SETS = "unit/evaluation/test_test_sets.py"
_IMAGE = "unit/evaluation/test_image.py"
_EVAL = "behaviour/commands/test_eval.py"
_OUTPUTS = "behaviour/commands/test_outputs.py"
_OUTPUT = "unit/evaluation/test_output.py"
_ATOMIC = "unit/test_atomic.py"
_TARGETS = "unit/test_targets.py"

MUTANTS = [
    # Files that are the old one or the whole new one.
    Mutant("atomic.py", "            _flush(folder)", "            pass", f"{_ATOMIC}::test_what_is_flushed"),
    Mutant("atomic.py", "            _flush(temporary)\n", "", f"{_ATOMIC}::test_what_is_flushed"),
    Mutant("atomic.py", "except BaseException:", "except Exception:", f"{_ATOMIC}::test_error_while_writing"),
    Mutant(
        "atomic.py",
        'name[:1] == "." and name[1:] in names',
        'name[:1] == "."',
        f"{_ATOMIC}::test_files_of_others_are_left_alone",
    ),
    Mutant(
        "atomic.py",
        "if not _is_being_written(entry, ending)",
        "if True",
        f"{_ATOMIC}::test_what_a_living_process_writes_stays",
    ),
    Mutant(
        "atomic.py",
        "return name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()",
        "return name",
        f"{_ATOMIC}::test_any_name",
    ),
    Mutant(
        "atomic.py",
        "    if (why := not_a_file(status)) is not None:",
        "    if (why := None) is not None:",
        f"{_ATOMIC}::test_what_is_no_file_stays",
    ),
    Mutant(
        "atomic.py",
        "        temporary.chmod(stat.S_IMODE(before.st_mode))",
        "        pass",
        f"{_ATOMIC}::test_permissions_are_kept",
    ),
    Mutant("atomic.py", " or new.st_nlink > 1", "", f"{_ATOMIC}::test_one_more_name_keeps_its_own_permissions"),
    Mutant(
        "atomic.py",
        "for path in paths if len(paths) > 1 else ():",
        "for path in ():",
        f"{_OUTPUT}::test_killed_in_the_moment_of_replacing",
    ),
    Mutant(
        "atomic.py",
        'text.encode("utf-8", "backslashreplace").decode()',
        "text",
        f"{_ATOMIC}::test_text_that_is_none {_OUTPUT}::test_names_that_are_no_text",
    ),
    # What is there and stays.
    Mutant(
        "targets.py",
        "        if (source := read.get((status.st_dev, status.st_ino))) is not None:",
        "        if (source := None) is not None:",
        f"{_TARGETS}::test_what_is_read_is_never_replaced",
    ),
    Mutant(
        "targets.py", "        if not is_ours(real):", "        if False:", f"{_TARGETS}::test_a_file_that_is_there"
    ),
    Mutant(
        "targets.py",
        "        if real in names:",
        "        if False:",
        f"{_TARGETS}::test_targets_in_each_others_place",
    ),
    Mutant(
        "targets.py",
        "next((names[above] for above in (each, *each.parents) if above in names), None)",
        "None",
        f"{_TARGETS}::test_targets_in_each_others_place",
    ),
    Mutant(
        "targets.py",
        "        if real.is_symlink():\n",
        "        if False:\n",
        f"{_TARGETS}::test_what_is_no_file",
    ),
    Mutant(
        "targets.py",
        'return name not in ("", ".", "..") and "/" not in name',
        'return name not in ("", ".", "..")',
        f"{_TARGETS}::test_names_stay_within_their_folder",
    ),
    Mutant(
        "targets.py",
        "            probe.write(b",
        "            bytes(b",
        f"{_TARGETS}::test_a_disk_that_refuses",
    ),
    Mutant(
        "data/cache.py",
        "re.fullmatch(_NAME, path.name)",
        're.match("images-", path.name)',
        "behaviour/data/test_cache.py::test_unused_files_are_removed",
    ),
    Mutant(
        "data/pairs.py",
        "        if not is_plain(name):",
        "        if False:",
        "unit/data/test_pairs.py::test_set_that_is_called_like_a_path",
    ),
    Mutant(
        "data/layouts.py",
        "Path(os.path.abspath(folder))",
        "Path(folder).absolute()",
        f"{_OUTPUTS}::test_folders_lead_nowhere_else",
    ),
    Mutant(
        "data/writing.py",
        "return content[:at] + mark + noted + content[at:]",
        "return content",
        "unit/data/test_writing.py::test_the_mark",
    ),
    Mutant(
        "evaluation/image.py",
        "            unsaved.append(error)",
        "            raise",
        f"{_OUTPUTS}::test_scores_are_printed_whatever_the_disk_does",
    ),
    Mutant(
        "evaluation/test_sets.py",
        "    if isinstance(plan, UsageError):",
        "    if isinstance(plan, DataError):",
        f"{_OUTPUTS}::test_files_of_others_survive",
    ),
    Mutant(
        "evaluation/output.py",
        "if run.holds_checkpoint or run.metrics.exists():",
        "if False:",
        f"{_OUTPUT}::test_a_runs_folder_is_no_place",
    ),
    Mutant(
        "evaluation/output.py",
        "    return bool(_results_in(content))",
        "    return True",
        f"{_OUTPUT}::test_files_of_others_are_never_overwritten",
    ),
    Mutant(
        "checkpoints/format.py",
        'return archive.comment == _COMMENT or archive.namelist()[0].startswith(".")',
        "return True",
        "unit/checkpoints/test_format.py::test_files_of_ours_are_known",
    ),
    Mutant(
        "inference/onnx.py",
        'return b"\\n\\x05camox\\x12" in path.read_bytes()',
        "return True",
        f"{_OUTPUTS}::test_onnx_of_ours_is_known",
    ),
    Mutant(
        "benchmark/options.py",
        "return file.readline().strip() == TITLE.encode()",
        "return True",
        "unit/benchmark/test_options.py::test_out_that_is_there",
    ),
    Mutant(
        "commands/eval.py",
        "console.result(json.dumps(evaluation.to_json(), indent=2) if as_json else to_text(evaluation))",
        "pass",
        f"{_OUTPUTS}::test_scores_are_printed_whatever_the_disk_does",
    ),
    Mutant(
        "checkpoints/format.py",
        "            verify_archive(temporary)\n",
        "",
        f"{_FORMAT}::test_a_damaged_file_never_takes_the_place",
    ),
    Mutant(
        "checkpoints/format.py",
        "            read_weights_file(temporary)\n",
        "",
        f"{_FORMAT}::test_a_damaged_file_never_takes_the_place",
    ),
    Mutant(
        "checkpoints/format.py",
        "if other.exists() and path.samefile(other):",
        "if False:",
        f"{_FORMAT}::test_two_names_of_one_file",
    ),
    Mutant("checkpoints/format.py", "os.link(path, temporary)", "os.link(other, temporary)", _FORMAT),
    Mutant("checkpoints/format.py", "        _let_go_of(error)\n", "", f"{_FORMAT}::test_full_disk"),
    Mutant("checkpoints/format.py", "(2 if ema else 1) + moments", "(1 if ema else 2) + moments", _FORMAT),
    Mutant(
        "checkpoints/format.py",
        "value.clone() if memory in seen else value",
        "value",
        f"{_CONVERT}::test_tied_tensors",
    ),
    # Which file, which weights, under which names.
    Mutant(
        "checkpoints/newest.py",
        "for path in (folder / name for name in CHECKPOINTS):",
        "for path in (folder / name for name in CHECKPOINTS[::-1]):",
        "unit/checkpoints/test_newest.py::test_the_newest_that_is_whole",
    ),
    Mutant(
        "checkpoints/convert.py",
        "chosen.update(add_prefix(ema) if add else ema)",
        "chosen.update(ema)",
        f"{_CONVERT}::test_the_ema_becomes_the_network",
    ),
    Mutant(
        "checkpoints/convert.py",
        'training=weights == "model"',
        "training=True",
        f"{_CONVERT}::test_the_ema_becomes_the_network",
    ),
    Mutant(
        "checkpoints/convert.py",
        "weights = {key.removeprefix(prefix): value for key, value in network.items()}",
        "weights = dict(network)",
        f"{_CONVERT}::test_dry_run_with_a_prefix",
    ),
    Mutant(
        "checkpoints/convert.py", "target = target.resolve() if same else target", "", f"{_CONVERT}::test_out_is_in"
    ),
    Mutant(
        "checkpoints/repack.py",
        "ema = {key: value for key, value in ema.items() if key in parameters}",
        "ema = dict(ema)",
        "behaviour/checkpoints/test_convert.py::test_to_the_original_program",
    ),
    Mutant(
        "checkpoints/repack.py",
        '"epoch": epochs_complete(content) - 1',
        '"epoch": epochs_complete(content)',
        "behaviour/checkpoints/test_convert.py::test_to_the_original_program",
    ),
    Mutant(
        "checkpoints/program_layouts.py",
        "return {**networks.network.weights, **networks.ema.weights}",
        "return {**networks.ema.weights, **networks.network.weights}",
        f"{_LAYOUTS}::test_original_format",
    ),
    Mutant(
        "checkpoints/program_layouts.py",
        "epoch if layout_of(content) is CAMOX else epoch + 1",
        "epoch",
        f"{_LAYOUTS}::test_epochs_that_are_complete",
    ),
    Mutant(
        "checkpoints/load.py",
        'return there if weights is None else weights == "ema"',
        'return weights != "model"',
        f"{_LAYOUTS}::test_which_weights_are_meant",
    ),
    Mutant(
        "checkpoints/program_layouts.py",
        "for name in [*own, *weights]}",
        "for name in own}",
        f"{_LOAD}::test_nothing_is_loaded_in_part",
    ),
    Mutant("checkpoints/load.py", "    return network.eval()", "    return network", f"{_LOAD}::test_load_model"),
    Mutant("checkpoints/load.py", "    network.img_size = said_size(content)\n", "", f"{_LOAD}::test_load_model"),
    # From the network's logits to a file.
    Mutant(
        "inference/predictions.py",
        "_logits(network, view.flip(-1), dtype).flip(-1)",
        "_logits(network, view.flip(-1), dtype)",
        f"{_PREDICTIONS}::test_mirrored_maps_are_mirrored_back",
    ),
    Mutant(
        "inference/predictions.py",
        "resized.sigmoid_()",
        "resized",
        f"{_PREDICTIONS}::test_logits_are_resized",
    ),
    Mutant(
        "inference/predictions.py",
        "dict.fromkeys(_scaled(side, scale) for scale in tta.scales)",
        "[_scaled(side, scale) for scale in tta.scales]",
        f"{_PREDICTIONS}::test_sides",
    ),
    Mutant("inference/predictions.py", ".logits.float()", ".logits", f"{_PREDICTIONS}::test_half_precision"),
    Mutant(
        "inference/predictions.py",
        "resized.sigmoid() if resized is logits else ",
        "",
        f"{_PREDICTIONS}::test_a_network_that_keeps_its_logits",
    ),
    Mutant("inference/predictions.py", "@cache\n", "", f"{_PREDICTIONS}::test_the_normalization_is_built_once"),
    Mutant(
        "inference/predictions.py",
        "if len(images) == 1 or not is_out_of_memory(error):",
        "if True:",
        f"{_PREDICT}::test_a_batch_too_large_for_the_gpu_is_halved",
    ),
    Mutant(
        "inference/predictions.py",
        "len(images) == 1 or ",
        "len(images) == 0 or ",
        f"{_PREDICT}::test_a_batch_too_large_for_the_gpu_is_halved",
    ),
    Mutant(
        "inference/predict.py",
        "        if len(read) > 1:\n",
        "        if False:\n",
        f"{_PREDICT}::test_a_batch_too_large_for_the_cpu_is_computed_one_by_one",
    ),
    Mutant("inference/predict.py", "        index += isinstance(each, tuple)\n", "", f"{_PREDICT}::test_maps"),
    Mutant("inference/batches.py", "pixels // size**2", "pixels // size", f"{_PREDICT}::test_batches_fit_memory"),
    Mutant(
        "inference/predict.py",
        "dtype = choose_dtype(precision, device_of(network))",
        "dtype = None",
        f"{_PREDICT}::test_half_precision_needs_a_gpu_or_is_refused",
    ),
    # Large images in tiles.
    Mutant(
        "inference/tiles.py",
        "(side - side // 2)",
        "side",
        f"{_TILES}::test_an_object_of_half_a_tile_is_whole_in_one",
    ),
    Mutant(
        "inference/tiles.py",
        "np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2",
        "np.ones(side)",
        f"{_TILES}::test_neighboring_tiles_that_differ_leave_no_seam",
    ),
    Mutant(
        "inference/tiles.py",
        "window / total[start : start + side]",
        "window",
        f"{_TILES}::test_every_pixel_is_covered_by_weights_of_one",
    ),
    Mutant("inference/predict.py", "> tiles:", ">= tiles:", f"{_TILES}::test_an_image_that_a_tile_holds"),
    Mutant(
        "evaluation/score.py",
        "            if score is not None:\n                score()",
        "            pass",
        _SCORE,
    ),
    Mutant(
        "inference/predictions.py",
        "(rows * 255).round()",
        "(rows * 255)",
        f"{_PREDICTIONS}::test_grey_values",
    ),
    Mutant(
        "inference/outputs.py",
        "found = grey >= 255",
        "found = grey > 255",
        f"{_PREDICT}::test_a_threshold_is_inclusive",
    ),
    Mutant(
        "inference/predict.py",
        "        if other != path and not is_file_of(other, path):",
        "        if False:",
        f"{_PREDICT}::test_two_images_of_one_name",
    ),
    Mutant(
        "inference/predict.py",
        "inputs=[*images, *beside],",
        "inputs=beside,",
        f"{_PREDICT}::test_images_are_not_overwritten",
    ),
    Mutant(
        "inference/predict.py",
        "return network, img_size or validated_size(content, source)",
        "return network, validated_size(content, source)",
        "behaviour/commands/test_predict.py::test_size",
    ),
    Mutant(
        "inference/export.py",
        'is_ema = is_ema or _described(content).get("weights") == "ema"',
        "",
        f"{_EXPORT}::test_exported_again",
    ),
    Mutant(
        "inference/export.py",
        "network = network_of(content, checkpoint, is_ema)",
        "network = network_of(content, checkpoint)",
        f"{_EXPORT}::test_safetensors",
    ),
    Mutant(
        "inference/onnx.py",
        "if not difference <= LARGEST_DIFFERENCE:",
        "if difference > LARGEST_DIFFERENCE:",
        f"{_EXPORT}::test_onnx_that_differs_is_not_kept",
    ),
    # Scores.
    Mutant(
        "evaluation/score.py",
        "sorted((row for rows, _ in gathered for row in rows), key=lambda row: row[0])",
        "(row for rows, _ in gathered for row in rows)",
        f"{_TEST_SETS}::test_ranks_score_as_one_process",
    ),
    Mutant(
        "evaluation/score.py",
        "max(self._world.all_gather(len(self._batches)))",
        "len(self._batches)",
        f"{_SCORE}::test_several_ranks",
    ),
    Mutant(
        "evaluation/score.py",
        "batch, problem = None, error",
        "batch = None",
        f"{_SCORE}::test_an_image_that_one_rank_cannot_read",
    ),
    Mutant("evaluation/test_sets.py", "        world.rank,\n        world.size,\n", "", _TEST_SETS),
    Mutant(
        "evaluation/test_sets.py",
        "cores_each(world.local_size) - 1",
        "cores_each(1) // world.local_size - 1",
        f"{_TEST_SETS}::test_scoring_workers",
    ),
    Mutant(
        "evaluation/test_sets.py",
        "uses_ema(content, checkpoint, inference.weights)",
        "uses_ema(content, checkpoint, None)",
        f"{_EVAL}::test_weights_and_size",
    ),
    Mutant(
        "evaluation/test_sets.py",
        "size = inference.img_size or validated_size(content, checkpoint)",
        "size = validated_size(content, checkpoint)",
        f"{_EVAL}::test_weights_and_size",
    ),
    Mutant(
        "evaluation/score_pool.py",
        "pool.shutdown(cancel_futures=True)",
        "pool.shutdown()",
        "unit/evaluation/test_score_pool.py::test_an_exception_drops_what_waits",
    ),
    Mutant("evaluation/image.py", "(size[1], size[0])", "size", f"{_IMAGE}::test_a_map_of_another_size"),
    Mutant("evaluation/image.py", ", empty=empty)", ")", f"{_IMAGE}::test_a_mask_without_object"),
    Mutant(
        "evaluation/given_predictions.py",
        "list_files(predictions, masks, include_noncam=include_noncam)",
        "list_files(predictions, masks)",
        f"{_IMAGE}::test_given_maps",
    ),
    Mutant(
        "evaluation/results.py",
        "for index, area in enumerate(areas) if area < SMALL_OBJECT]",
        "for index, area in enumerate(areas) if area <= SMALL_OBJECT]",
        "unit/evaluation/test_slices.py::test_super_classes_and_sizes",
    ),
    Mutant(
        "evaluation/results.py",
        "(len(indices), mean_scores([scores[index] for index in indices]))",
        "(len(indices), mean_scores(scores[: len(indices)]))",
        "unit/evaluation/test_output.py::test_results",
    ),
    Mutant(
        "evaluation/report.py",
        "order[::-1][:",
        "order[:",
        "unit/evaluation/test_report.py::test_places",
    ),
    Mutant(
        "evaluation/report.py",
        "background=np.sum([score.background for",
        "background=np.sum([score.foreground for",
        "unit/evaluation/test_report.py",
    ),
    Mutant("commands/eval.py", "Protocol(stretch, empty_masks)", "Protocol(stretch)", f"{_EVAL}::test_protocol"),
    Mutant(
        "config/eval_options.py",
        "if (images is None) != (masks is None):",
        "if images is not None and masks is None:",
        "unit/config/test_eval_options.py",
    ),
    Mutant(
        "commands/eval.py",
        "        output.refuse_overwriting(out, destination.replaces, inputs)",
        "        output.refuse_overwriting(out, True, inputs)",
        "unit/commands/test_eval.py::test_scores_that_are_there",
    ),
    # What is promised of other files, and what other programs get.
    Mutant(
        "checkpoints/newest.py",
        "for name in CHECKPOINTS if name != source.name)",
        "for name in CHECKPOINTS)",
        "unit/checkpoints/test_newest.py::test_a_damaged_file_alone",
    ),
    Mutant(
        "run_folder.py",
        "                _locks.discard(self._lock)\n",
        "",
        "unit/test_run_folder.py::test_a_lock_that_was_let_go_is_nothing_to_a_fork",
    ),
    # What a file holds beside the network, in its place, or in other types.
    Mutant(
        "checkpoints/find_networks.py",
        "            name = without_wrappers(",
        "            name = str(",
        f"{_FIND}::test_wherever_it_is",
    ),
    Mutant("checkpoints/find_networks.py", "    if odd:\n", "    if False:\n", f"{_FIND}::test_mixed"),
    Mutant(
        "checkpoints/find_networks.py",
        "(averaged if is_averaged(str(each.place)) else plain)",
        "plain",
        f"{_FIND}::test_an_average_says_what_it_is",
    ),
    Mutant(
        "checkpoints/find_networks.py",
        "    if len(plain) > 1 or len(averaged) > 1:\n",
        "    if len(averaged) > 1:\n",
        f"{_FIND}::test_which_is_meant",
    ),
    Mutant(
        "checkpoints/find_networks.py",
        ' or any("optim" in key for key in keys)',
        "",
        f"{_FIND}::test_a_part_is_no_second_network",
    ),
    Mutant("checkpoints/load.py", "name not in averaged]", "False]", f"{_FIND}::test_an_average_that_is_not_whole"),
    Mutant(
        "checkpoints/load.py",
        "    _refuse_misfits(network, weights, stored, path)\n",
        "",
        f"{_LOAD}::test_nothing_is_loaded_in_part",
    ),
    Mutant(
        "checkpoints/load.py",
        "say_left_out([*networks.others, *foreign], path)",
        "say_left_out(foreign, path)",
        f"{_FIND}::test_one_note_about_the_rest",
    ),
    Mutant(
        "checkpoints/load.py",
        '    refuse_unusable(weights, network.state_dict(), path, "use an earlier checkpoint")\n',
        "",
        f"{_DAMAGED}::test_numbers_that_are_none",
    ),
    Mutant(
        "checkpoints/convert.py",
        "content, source, ema, tells=False)",
        "content, source, ema)",
        "behaviour/checkpoints/test_convert.py::test_what_stays_is_not_said_to_be_left_out",
    ),
    Mutant(
        "checkpoints/convert.py",
        "            if not as_is:\n                raise\n",
        "",
        "behaviour/checkpoints/test_convert.py::test_what_could_not_be_loaded",
    ),
    Mutant(
        "checkpoints/program_layouts.py",
        "if SMALLEST_SIDE <= size <= LARGEST_SIDE:",
        "if SMALLEST_SIDE <= size:",
        f"{_LAYOUTS}::test_unknown_size",
    ),
    Mutant(
        "checkpoints/typed.py",
        "            check(hint, value[name], where)\n",
        "            pass\n",
        f"{_DAMAGED}::test_the_entry_is_named",
    ),
    Mutant("checkpoints/typed.py", " and not isinstance(value, bool):", ":", f"{_DAMAGED}::test_the_entry_is_named"),
    Mutant(
        "checkpoints/format.py",
        "    if progress.epoch != content.epoch:\n",
        "    if False:\n",
        f"{_DAMAGED}::test_the_entry_is_named",
    ),
    Mutant(
        "checkpoints/format.py",
        'check(Amount, row["seconds"]',
        'check(Number, row["seconds"]',
        f"{_DAMAGED}::test_an_impossible_time",
    ),
    Mutant("engine/optimizer.py", "    if wrong:\n", "    if False:\n", f"{_DAMAGED}::test_numbers_that_are_none"),
    Mutant(
        "engine/optimizer.py",
        "value.shape != (() if name",
        "False and value.shape != (() if name",
        f"{_DAMAGED}::test_the_entry_is_named",
    ),
    Mutant(
        "engine/restoring.py",
        "        _refuse_other_position(run, training.progress)\n",
        "",
        f"{_DAMAGED}::test_the_entry_is_named",
    ),
    Mutant(
        "model/stored_tensors.py", "if value.is_complex() or (", "if False and (", f"{_STORED}::test_formats_of_others"
    ),
    Mutant(
        "model/stored_tensors.py",
        "not_finite(value.detach().to(wanted if wanted.is_floating_point else torch.float64))",
        "not_finite(value.detach().to(torch.float64))",
        f"{_STORED}::test_too_large_for_float32",
    ),
    Mutant(
        "model/stored_tensors.py",
        '    return f"{count} of {value.numel()} NaN or infinite" if count else ""\n',
        '    return f"{count} of {value.numel()} NaN or infinite"\n',
        f"{_STORED}::test_numbers_that_are_none",
    ),
    Mutant(
        "checkpoints/load.py",
        "    if any(each.is_meta for each in network.buffers()):",
        "    if False:",
        f"{_LOAD}::test_as_if_it_had_been_built",
    ),
    Mutant(
        "checkpoints/load.py",
        "deepcopy(sketch), sketch",
        "sketch, sketch",
        f"{_LOAD}::test_as_if_it_had_been_built",
    ),
    Mutant(
        "model/backbone.py",
        "if same else without_memory",
        "if True else without_memory",
        f"{_LOAD}::test_load_model",
    ),
    Mutant(
        "checkpoints/find_networks.py",
        "--entry {shlex.quote(entries[0])}",
        "--entry {names[0]}",
        f"{_FIND}::test_the_file_itself_is_meant",
    ),
    Mutant("model/stored_tensors.py", " or id(value) in met", "", f"{_STORED}::test_where_tensors_lie"),
    Mutant(
        "model/weights_archive.py",
        "if unpacked > max(_MOST_UNPACKED, _MOST_TIMES * size):",
        "if False:",
        f"{_WEIGHTS}::test_an_archive_that_would_unpack_to_much_more",
    ),
    Mutant(
        "model/weights_file.py",
        "    if start == _LFS_POINTER:\n",
        "    if False:\n",
        f"{_WEIGHTS}::test_what_a_download_left",
    ),
    Mutant(
        "model/backbone.py",
        "    refuse_unusable({key: value for key, value in weights.items() if key in known}, known, path, hint)\n",
        "",
        f"{_BACKBONE}::test_numbers_that_are_none",
    ),
    Mutant(
        "model/backbone.py",
        'start = f"{best[0]}." if best[0] else ""',
        'start = ""',
        f"{_BACKBONE}::test_wherever_the_weights_are",
    ),
    Mutant("errors.py", 'if not line.endswith(":")', "if line", "unit/test_errors.py::test_first_line"),
    Mutant("errors.py", ".rpartition(' ')[0] or", " or", "unit/test_errors.py::test_one_line"),
    Mutant(
        "regular_file.py",
        "if not content and file.read(1):",
        "if False:",
        "unit/test_regular_file.py::test_what_the_system_makes_up",
    ),
    Mutant("app.py", "    _require_current_folder()\n", "", "unit/test_app.py::test_a_current_folder_that_is_gone"),
]
