"""Mistakes in what a run is fed with: images, masks and their order, settings, and the folder that it writes to."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = [
    # Which image goes with which mask, and what is trained on, held out and scored.
    Mutant(
        "data/layouts.py",
        "if (path := pair.image.absolute()) not in known",
        "if (path := pair.image) not in known",
        "unit/data/test_layouts.py::test_pair_that_comes_twice",
    ),
    Mutant(
        "data/layouts.py",
        'return sorted(shown, key=attrgetter("name"))',
        "return shown",
        "unit/data/test_layouts.py::test_pair_folders_sorts_by_name",
    ),
    Mutant(
        "data/layouts.py",
        'split.role == "any" and not scoring and not has_train',
        'split.role == "any" and not has_train',
        "unit/data/test_layouts.py::test_explicit_folders_to_score_on",
    ),
    Mutant(
        "data/pairs.py",
        "folder / image, folder / mask))",
        "folder / mask, folder / image))",
        "unit/data/test_pairs.py::test_round_trip",
    ),
    Mutant(
        "data/split.py",
        "_lot(seed, pair.name))",
        "_lot(seed, str(pair.image)))",
        "unit/data/test_split.py::test_split_is_pinned",
    ),
    Mutant(
        "data/split.py",
        'groups.setdefault(super_class(pair.name) or "", [])',
        'groups.setdefault("", [])',
        "unit/data/test_split.py::test_super_classes_are_held_out_in_proportion",
    ),
    Mutant(
        "data/check.py",
        "_find(sorted(kept, key=lambda each: order.index(each.report.use))):",
        "_find(kept):",
        "unit/data/test_check.py::test_leaks_go_by_content",
    ),
    Mutant(
        "data/duplicates.py",
        "@ details[: start + _BLOCK].T",
        "@ details[: start + 1].T",
        "unit/data/test_duplicates.py::test_changed_images_are_found",
    ),
    # Pixels, and augmentation of image and mask together.
    Mutant(
        "data/levels.py",
        "(values.astype(np.uint16) >> 8)",
        "(values.astype(np.uint16) & 255)",
        "unit/data/test_reading.py::test_masks_of_16_bits",
    ),
    Mutant(
        "data/levels.py",
        "alpha = eight_bits(raw[..., 3])",
        "alpha = raw[..., 3].astype(np.uint8)",
        "unit/data/test_reading.py::test_alpha_of_16_bits",
    ),
    Mutant(
        "data/reading.py",
        "return read_mask(path, SCORED_OBJECT)",
        "return read_mask(path)",
        "unit/data/test_reading.py::test_scored_mask_threshold",
    ),
    Mutant(
        "data/reading.py",
        "if min(height, width) >= img_size and",
        "if max(height, width) >= img_size and",
        "unit/data/test_reading.py::test_small_jpeg_is_not_reduced",
    ),
    Mutant(
        "data/reading.py",
        "    if stored_size == mask_size:\n        return stored\n",
        "",
        "unit/data/test_reading.py::test_reduced_pair_follows_its_mask",
    ),
    Mutant(
        "data/resizing.py",
        "longer > 1.6 * img_size and shorter >= img_size",
        "longer > 1.6 * img_size",
        "unit/data/test_resizing.py::test_an_image_that_grows_on_one_side_is_bilinear",
    ),
    Mutant(
        "data/transforms.py",
        "draw.integers(4) if turned",
        "draw.integers(3) if turned",
        "unit/data/test_transforms.py::test_geometry_comes_as_often_as_it_should",
    ),
    Mutant(
        "data/transforms.py",
        "        self._colours.set_random_state(draw, random.Random(seed))\n",
        "",
        "unit/data/test_transforms.py::test_same_seed_same_result_after_other_calls",
    ),
    Mutant(
        "data/dataset.py",
        "(_STREAM, self.seed, epoch, index)",
        "(_STREAM, self.seed, index)",
        "unit/data/test_dataset.py::test_augmentation_differs",
    ),
    Mutant(
        "data/dataset.py",
        "(pair.image, size, pair.mask, self.img_size, resized=True)",
        "(pair.image, size, pair.mask, None, resized=True)",
        "unit/data/test_dataset.py::test_cache_changes_nothing",
    ),
    # What values mean, and what is found before training.
    Mutant(
        "data/levels.py",
        "if levels.grey.max() <= SCORED_OBJECT and",
        "if levels.grey.max() <= 1 and",
        "unit/data/test_levels.py::test_masks_that_would_be_empty",
    ),
    Mutant(
        "data/levels.py",
        "(raw if raw.ndim == 2 else raw[..., :3]).any()",
        "levels.grey.any()",
        "unit/data/test_levels.py::test_masks_that_would_be_empty",
    ),
    Mutant(
        "data/levels.py",
        "    if levels.is_lost(above):\n",
        "    if False:\n",
        "unit/data/test_levels.py::test_a_mask_of_classes_in_colour",
    ),
    Mutant(
        "data/levels.py",
        "values.astype(np.uint8) if high <= 255 else",
        "values.astype(np.uint8) if high <= 1 else",
        "unit/data/test_levels.py::test_masks_without_doubt",
    ),
    Mutant(
        "data/levels.py",
        "return Levels(alpha, from_alpha=True)",
        "return Levels(grey, from_alpha=True)",
        "unit/data/test_levels.py::test_maps_of_every_kind",
    ),
    Mutant(
        "data/reading.py",
        "if len(pages) > 1:",
        "if len(pages) > 2:",
        "unit/data/test_levels.py::test_masks_of_several_pages",
    ),
    Mutant(
        "data/first_look.py",
        "for _ in in_threads(partial(_differs, resized=False), pairs):",
        "for _ in in_threads(partial(_differs, resized=False), pairs[:3]):",
        "unit/data/test_first_look.py::test_a_pair_that_cannot_be_trained_on",
    ),
    Mutant(
        "data/first_look.py",
        "(image == mask or (may_turn and image == mask[::-1]))",
        "(image == mask or image == mask[::-1])",
        "unit/data/test_first_look.py::test_a_mask_of_another_shape",
    ),
    Mutant(
        "data/first_look.py",
        "    if not any(marked):\n",
        "    if not all(marked):\n",
        "unit/data/test_first_look.py::test_nothing_to_learn",
    ),
    Mutant(
        "data/sizes.py",
        "<= _SHARE_OFF",
        "<= 0.5",
        "unit/data/test_first_look.py::test_shapes",
    ),
    Mutant(
        "evaluation/image.py",
        "    if levels.colour:\n",
        "    if False:\n",
        "unit/data/test_levels.py::test_maps_that_are_none",
    ),
    Mutant(
        "evaluation/given_predictions.py",
        "if not protocol.stretch and max",
        "if False and max",
        "unit/data/test_levels.py::test_maps_of_zeros_and_ones",
    ),
    # Names and folders of what is scored and validated on.
    Mutant(
        "data/layouts.py",
        'if name.casefold() == "validation" else name',
        'if name == "validation" else name',
        "unit/data/test_layouts.py::test_test_set_called_validation",
    ),
    Mutant(
        "data/layouts.py",
        "if name.casefold() == other.casefold():",
        "if name == other:",
        "unit/data/test_layouts.py::test_test_sets_whose_names_are_one_on_some_disks",
    ),
    Mutant(
        "data/layouts.py",
        '("val", _VAL_FOLDERS)]',
        '("train", _VAL_FOLDERS)]',
        "unit/data/test_layouts.py::test_validation_folder",
    ),
    Mutant(
        "data/layouts.py",
        "    if both := train.keys() & held_out.keys():\n",
        "    if both := set():\n",
        "unit/data/test_layouts.py::test_explicit_validation_folders",
    ),
    Mutant(
        "data/pairs.py",
        "        _refuse_clash(path, name, pairs)\n",
        "        pass\n",
        "unit/data/test_pairs.py::test_two_pictures_of_one_name",
    ),
    Mutant(
        "data/check.py",
        'if later.report.use not in ("test", first.report.use):',
        'if later.report.use == "train" != first.report.use:',
        "unit/data/test_check.py::test_leaks_of_what_is_validated_on",
    ),
    Mutant(
        "data/check.py",
        "if not (files.pairs or files.lone_images or files.lone_masks):",
        "if False:",
        "unit/commands/test_check_data.py::test_nothing_that_can_be_used",
    ),
    Mutant(
        "engine/build.py",
        "        look_at_test_set(name, pairs)\n",
        "        pass\n",
        "unit/engine/test_build.py::test_masks_that_say_nothing_are_found_before_training",
    ),
    # The order of samples, over ranks and where an epoch goes on, and the loaders.
    Mutant(
        "data/sampling.py",
        "SeedSequence((_STREAM, seed, epoch))",
        "SeedSequence((_STREAM, seed))",
        "unit/data/test_sampling.py::test_order_differs_between_epochs_and_seeds",
    ),
    Mutant(
        "data/sampling.py",
        "epoch, start = self.epoch, self.position\n",
        "epoch, start = self.epoch, self.position // self.world\n",
        "unit/data/test_sampling.py::test_cut_and_go_on_with_other_ranks",
    ),
    Mutant(
        "data/loader.py",
        "    batches = [range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)][rank::world]\n",
        "    own = range(count)[rank::world]\n"
        "    batches = [own[at : at + batch_size] for at in range(0, len(own), batch_size)]\n",
        "behaviour/data/test_loader.py::test_scoring_batches_of_ranks_are_those_of_one",
    ),
    Mutant(
        "data/loader.py",
        "persistent_workers=num_workers > 0",
        "persistent_workers=False",
        "behaviour/data/test_loader.py::test_workers_outlive_signals_and_epochs",
    ),
    Mutant(
        "data/loader.py",
        "_linger if number == signal.SIGTERM else signal.SIG_IGN",
        "_linger if number == signal.SIGTERM else signal.SIG_DFL",
        "behaviour/data/test_loader.py::test_workers_outlive_signals_and_epochs",
    ),
    Mutant(
        "data/loader.py",
        "_linger if number == signal.SIGTERM else signal.SIG_IGN",
        "signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN",
        "behaviour/data/test_loader.py::test_workers_outlive_signals_and_epochs",
    ),
    # Whether a cache is that of the images, and whole, whoever else builds one.
    Mutant(
        "data/cache.py",
        "status.st_mtime_ns, status.st_ctime_ns)",
        "status.st_mtime_ns)",
        "behaviour/data/test_cache.py::test_any_change_makes_another_file",
    ),
    Mutant(
        "data/cache.py",
        "                waiting()\n                fcntl.flock(descriptor, fcntl.LOCK_EX)\n",
        "                waiting()\n",
        "behaviour/data/test_cache.py::test_one_waits_for_another",
    ),
    Mutant(
        "data/cache.py",
        "        if is_complete(path, len(pairs), img_size):\n            return\n",
        "",
        "behaviour/data/test_cache.py::test_complete_file_is_not_built_again",
    ),
    Mutant(
        "data/cache.py",
        'with atomic.replacing(path) as temporary, temporary.open("wb") as file:',
        'with path.open("wb") as file:',
        "behaviour/data/test_cache.py::test_broken_image_leaves_no_file",
    ),
    # Settings: what a text means, whose word counts, and what belongs together.
    Mutant(
        "config/parse.py",
        "return seconds >= self.seconds",
        "return steps >= self.seconds",
        "unit/config/test_parse_durations.py::test_when_an_interval_is_over",
    ),
    Mutant(
        "config/parse.py",
        "steps % self.steps == 0",
        "steps == self.steps",
        "unit/config/test_parse_durations.py::test_when_an_interval_is_over",
    ),
    Mutant(
        "config/values.py",
        "(isinstance(value, float) and number != value)",
        "False",
        "unit/config/test_values.py::test_a_refusal_says_what_was_expected",
    ),
    Mutant(
        "config/presets.py",
        "own = {} if beside == PRESET_FOLDER else own_presets()",
        "own = own_presets()",
        "unit/config/test_presets.py::test_a_name_that_comes_with_camox_is_taken",
    ),
    Mutant(
        "config/resolve.py",
        "        *(_from_sections(*saved, problems) if saved is not None else []),\n"
        "        *(item for level in chain for item in _from_sections(level.sections, "
        "level.origin, problems, PRESET_WORDS)),\n",
        "        *(item for level in chain for item in _from_sections(level.sections, "
        "level.origin, problems, PRESET_WORDS)),\n"
        "        *(_from_sections(*saved, problems) if saved is not None else []),\n",
        "unit/config/test_resolve.py::test_a_preset_wins_over_what_was_saved",
    ),
    Mutant(
        "config/resolve.py",
        "if item.key not in auto and not _is_auto(item)]",
        "if not _is_auto(item)]",
        "unit/config/test_resolve.py::test_auto_that_is_typed_last_wins",
    ),
    Mutant(
        "config/resolve.py",
        "if rate is not None and rate < train.min_lr",
        "if rate and rate < train.min_lr",
        "unit/config/test_resolve.py::test_impossible_combinations_name_both_sides",
    ),
    Mutant(
        "config/resolve.py",
        "masks=_absolute(data.masks),",
        "masks=data.masks,",
        "unit/config/test_resolve.py::test_folders_are_the_same_from_anywhere",
    ),
    Mutant(
        "config/lr_scaling.py",
        "low = min(scale / TOLERANCE, math.sqrt(scale))",
        "low = max(scale / TOLERANCE, math.sqrt(scale))",
        "unit/config/test_lr_scaling.py::test_both_ways_of_scaling_fit",
    ),
    Mutant(
        "config/lr_scaling.py",
        "at_once = own[number].images / train.accumulation_steps",
        "at_once = own[number].images",
        "unit/config/test_lr_scaling.py::test_advice",
    ),
    Mutant(
        "config/diff.py",
        '    "data.num_workers",\n',
        '    "data.num_workers",\n    "train.seed",\n',
        "unit/config/test_diff.py::test_whatever_is_drawn_or_learned_otherwise_makes_another_run",
    ),
    Mutant(
        "config/diff.py",
        "choice for choice in choices if choice[0] <= before.train.batch_size",
        "choice for choice in choices",
        "unit/config/test_diff.py::test_from_two_gpus_to_one",
    ),
    # The run folder: one process's at a time, and true wherever a process dies.
    Mutant(
        "run_folder.py",
        "    for descriptor in _locks:\n        os.close(descriptor)\n",
        "",
        "behaviour/test_run_folder.py::test_a_killed_process_leaves_no_lock",
    ),
    Mutant(
        "run_folder.py",
        "fcntl.LOCK_SH if shared else fcntl.LOCK_EX",
        "fcntl.LOCK_SH",
        "unit/test_run_folder.py::test_lock",
    ),
    Mutant(
        "run_folder.py",
        "        if not self.writes:\n            yield\n            return\n",
        "",
        "behaviour/test_run_folder.py::test_other_ranks_neither_write_nor_lock",
    ),
    Mutant(
        "run_folder.py",
        "for path in (self.last, self.previous) if path.exists()",
        "for path in (self.last,) if path.exists()",
        "unit/test_run_folder.py::test_what_is_there_needs_no_more_space",
    ),
    Mutant(
        "run_folder.py",
        "(self.results, self.per_image, self.curves, self.report)",
        "(self.results, self.per_image, self.curves)",
        "unit/test_run_folder.py::test_what_a_run_ends_with_is_removed",
    ),
    Mutant(
        "run_folder.py",
        'atomic.write_text(self.history, json.dumps(history, indent=2) + "\\n")',
        'self.history.write_text(json.dumps(history, indent=2) + "\\n")',
        "unit/test_run_folder.py::test_history_is_never_half_written",
    ),
    Mutant(
        "run_folder.py",
        "<= (epoch + 1, samples)",
        "<= (epoch, samples)",
        "unit/test_run_folder.py::test_going_on_ends_the_log_where_the_run_goes_on",
    ),
    Mutant(
        "atomic.py",
        "        temporary.replace(path)\n",
        "        path.unlink(missing_ok=True)\n        temporary.replace(path)\n",
        "unit/test_run_folder.py::test_there_is_a_history_at_every_moment",
    ),
    Mutant(
        "commands/check_data.py",
        "key=lambda size: size[0] * size[1]",
        "key=lambda size: size[0]",
        "unit/commands/test_check_data.py::test_sizes_by_area",
    ),
    Mutant(
        "data/duplicates.py",
        "np.flatnonzero(block[:index] >=",
        "np.flatnonzero(block[:row] >=",
        "unit/data/test_duplicates.py::test_blocks_change_nothing",
    ),
    # Files, values and paths that nobody meant to give.
    Mutant(
        "regular_file.py",
        "os.open(path, flags | os.O_NONBLOCK)",
        "os.open(path, flags | os.O_NONBLOCK) if os.path.isfile(path) else os.open(os.devnull, flags)",
        "unit/test_regular_file.py::test_what_is_no_regular_file",
    ),
    Mutant("regular_file.py", "if status.st_size > most:", "if False:", "unit/test_regular_file.py::test_size"),
    Mutant(
        "user_path.py",
        "Path(text).expanduser()",
        "Path(text)",
        "unit/test_user_path.py::test_home_folders",
    ),
    Mutant(
        "user_path.py",
        "(errno.ENAMETOOLONG, errno.ELOOP)",
        "(errno.ENAMETOOLONG,)",
        "unit/test_user_path.py::test_what_no_path_can_be",
    ),
    Mutant(
        "commands/help.py",
        "if isinstance(value, Path):",
        "if False:",
        "unit/commands/test_paths.py::test_home_folders",
    ),
    Mutant(
        "config/values.py",
        "return _as_paths(converted) if",
        "return converted if",
        "unit/config/test_odd_presets.py::test_home_folder_in_every_path",
    ),
    Mutant(
        "config/schema.py",
        "if row.high is None and int in",
        "if False and int in",
        "unit/config/test_odd_presets.py::test_odd_contents",
    ),
    Mutant(
        "config/presets.py",
        "if self.check_event(yaml.AliasEvent):",
        "if False:",
        "unit/config/test_odd_presets.py::test_odd_contents",
    ),
    Mutant(
        "config/presets.py",
        "except RecursionError as error:",
        "except ZeroDivisionError as error:",
        "unit/config/test_odd_presets.py::test_odd_contents",
    ),
    Mutant(
        "config/values.py",
        "if isinstance(value, int) and abs(value) >= 2**63:",
        "if False:",
        "unit/config/test_odd_presets.py::test_numbers_of_many_digits",
    ),
    Mutant("errors.py", "_SHORT.maxlevel = 3", "_SHORT.maxlevel = 6", "unit/test_errors.py::test_shown_is_short"),
    Mutant(
        "data/headers.py",
        'at += 12 + int.from_bytes(content[at : at + 4], "big")',
        'at = max(at, content.find(b"IEND") - 4) + (b"IEND" not in content) * len(content)',
        "unit/data/test_headers.py::test_parts_of_a_png",
    ),
    Mutant(
        "data/headers.py",
        "return abs(height), abs(width)",
        "return height, width",
        "unit/data/test_headers.py::test_other_kinds_of_bmp_and_tiff",
    ),
    Mutant(
        "data/reading.py",
        "_refuse_size(path, stated_size(content) if header is None else header.size, most_pixels)",
        "pass",
        "unit/data/test_odd_images.py::test_more_pixels_than_the_memory_holds",
    ),
    Mutant(
        "data/reading.py",
        "and not png_is_whole(content):",
        "and False:",
        "unit/data/test_odd_images.py::test_a_part_of_a_png_that_says_it_has_gigabytes",
    ),
    Mutant(
        "data/reading.py",
        "> _MOST_PASSES:",
        "> 10**9:",
        "unit/data/test_odd_images.py::test_passes_of_a_jpeg",
    ),
    Mutant(
        "__init__.py",
        '"OPENCV_IO_MAX_IMAGE_PIXELS", "200000000"',
        '"OPENCV_IO_MAX_IMAGE_PIXELS", "2000000000"',
        "unit/data/test_odd_images.py",
    ),
    Mutant(
        "data/image_paths.py",
        "if (status.st_dev, status.st_ino) not in seen:",
        "if True:",
        "unit/data/test_image_paths.py::test_a_link_to_the_folder_itself",
    ),
    Mutant(
        "inference/predict.py",
        "    except OSError:  # one of them leads nowhere\n        return False",
        "    except ZeroDivisionError:\n        return False",
        "unit/inference/test_predict.py::test_links_of_one_name_that_lead_nowhere",
    ),
    Mutant(
        "data/synthetic.py",
        "if free < needed:",
        "if False:",
        "unit/data/test_synthetic.py::test_more_than_the_disk_holds",
    ),
]
