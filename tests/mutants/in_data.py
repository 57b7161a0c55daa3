"""Mistakes in what a run is fed with: images, masks and their order, settings, and the folder that it writes to."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = [
    # Which image goes with which mask, and what is trained on, held out and scored.
    Mutant(
        "data/layouts.py",
        "if (path := pair.image.absolute()) not in train",
        "if (path := pair.image) not in train",
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
        "_find(sorted(kept, key=lambda each: each.report.trains)):",
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
        "data/reading.py",
        "(raw >> 8).astype(np.uint8)",
        "(raw & 255).astype(np.uint8)",
        "unit/data/test_reading.py::test_masks_of_16_bits",
    ),
    Mutant(
        "data/reading.py",
        "raw[..., 3] > np.iinfo(raw.dtype).max // 2",
        "raw[..., 3] > OBJECT",
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
        "(pair.image, size, pair.mask, self.img_size)",
        "(pair.image, size, pair.mask, None)",
        "unit/data/test_dataset.py::test_cache_changes_nothing",
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
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
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
        "(self.results, self.per_image, self.report, self.curves)",
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
]
