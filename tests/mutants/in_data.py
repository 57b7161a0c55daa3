"""Mistakes in what a run is fed with: images, masks and their order, settings, and the folder it writes to."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_READING = "unit/data/test_reading.py"
_LOADER = "behaviour/data/test_loader.py"
_CACHE = "behaviour/data/test_cache.py"

MUTANTS = [
    # Which image goes with which mask, and what is trained on.
    Mutant(
        "data/layouts.py",
        "if (path := pair.image.absolute()) not in train",
        "if (path := pair.image) not in train",
        "unit/data/test_layouts.py",
    ),
    Mutant(
        "data/layouts.py", 'return sorted(shown, key=attrgetter("name"))', "return shown", "unit/data/test_layouts.py"
    ),
    Mutant(
        "data/layouts.py",
        '(split.role == "any" and not scoring and not has_train)',
        '(split.role == "any" and not has_train)',
        "unit/data/test_layouts.py",
    ),
    Mutant(
        "data/layouts.py",
        "include_noncam)[0] for folder in sharing",
        "True)[0] for folder in sharing",
        "unit/data/test_layouts.py unit/data/test_check.py",
    ),
    Mutant(
        "data/pairs.py",
        "pairs.append(Pair(Path(image).stem, folder / image, folder / mask))",
        "pairs.append(Pair(Path(mask).stem, folder / image, folder / mask))",
        "unit/data/test_pairs.py",
    ),
    Mutant(
        "data/split.py",
        "shuffled = sorted(group, key=lambda pair: _lot(seed, pair.name))",
        "shuffled = sorted(group, key=lambda pair: _lot(seed, str(pair.image)))",
        "unit/data/test_split.py",
    ),
    Mutant(
        "data/split.py",
        "return _by_name(train), _by_name(held_out)",
        "return tuple(train), _by_name(held_out)",
        "unit/data/test_split.py",
    ),
    Mutant(
        "data/split.py",
        'groups.setdefault(super_class(pair.name) or "", [])',
        'groups.setdefault("", [])',
        "unit/data/test_split.py",
    ),
    Mutant(
        "data/check.py",
        "key=lambda each: each.report.trains)):",
        "key=lambda each: not each.report.trains)):",
        "unit/data/test_check.py",
    ),
    Mutant(
        "data/duplicates.py",
        "details[start : start + _BLOCK] @ details[: start + _BLOCK].T",
        "details[start : start + _BLOCK] @ details[: start + 1].T",
        "unit/data/test_duplicates.py",
    ),
    # Pixels.
    Mutant("data/reading.py", "(raw >> 8).astype(np.uint8)", "(raw & 255).astype(np.uint8)", _READING),
    Mutant("data/reading.py", "raw[..., 3] > np.iinfo(raw.dtype).max // 2", "raw[..., 3] > OBJECT", _READING),
    Mutant("data/reading.py", "foreground = grey > above", "foreground = grey >= above", _READING),
    Mutant(
        "data/reading.py",
        "return read_mask(path, SCORED_OBJECT)",
        "return read_mask(path)",
        f"{_READING} unit/data/test_dataset.py unit/evaluation",
    ),
    Mutant(
        "data/reading.py", "if min(height, width) >= img_size and", "if max(height, width) >= img_size and", _READING
    ),
    Mutant(
        "data/reading.py",
        "    if stored_size == mask_size:\n        return stored\n",
        "    if stored_size[::-1] == size:\n        return stored\n",
        _READING,
    ),
    Mutant(
        "data/mask_memory.py", "divmod(size, _WIDEST)", "divmod(size, _WIDEST)[::-1]", "unit/data/test_mask_memory.py"
    ),
    Mutant(
        "data/resizing.py",
        "shrinks = longer > 1.6 * img_size and shorter >= img_size",
        "shrinks = longer > 1.6 * img_size",
        "unit/data/test_resizing.py",
    ),
    # Augmentation.
    Mutant(
        "data/transforms.py",
        "turn = _QUARTER_TURNS[draw.integers(4) if turned else 0]",
        "turn = _QUARTER_TURNS[draw.integers(3) if turned else 0]",
        "unit/data/test_transforms.py",
    ),
    Mutant(
        "data/transforms.py",
        "        self._colours.set_random_state(draw, random.Random(seed))\n",
        "",
        "unit/data/test_transforms.py",
    ),
    Mutant(
        "data/transforms.py",
        "-1 if mirrored and upside_down else int(mirrored)",
        "int(mirrored)",
        "unit/data/test_transforms.py",
    ),
    Mutant(
        "data/dataset.py",
        "(_STREAM, self.seed, epoch, index)",
        "(_STREAM, self.seed, index)",
        "unit/data/test_dataset.py",
    ),
    Mutant(
        "data/dataset.py",
        "MaskMemory(len(pairs) if cache is None else 0, img_size)",
        "MaskMemory(0, img_size)",
        "unit/data/test_dataset.py",
    ),
    Mutant(
        "data/dataset.py",
        "size = (mask.shape[0], mask.shape[1])\n            image = resize_image(read_matching_image(pair.image, size, pair.mask, self.img_size), self.img_size)",
        "size = (mask.shape[0], mask.shape[1])\n            image = resize_image(read_matching_image(pair.image, size, pair.mask, None), self.img_size)",
        "unit/data/test_dataset.py",
    ),
    # Sampling and loading.
    Mutant(
        "data/sampling.py",
        "np.random.SeedSequence((_STREAM, seed, epoch))",
        "np.random.SeedSequence((_STREAM, seed))",
        "unit/data/test_sampling.py",
    ),
    Mutant(
        "data/sampling.py",
        "range(size * rank // world, size * (rank + 1) // world)",
        "range(-(-size * rank // world), -(-size * (rank + 1) // world))",
        "unit/data/test_sampling.py",
    ),
    Mutant(
        "data/sampling.py",
        "epoch, start = self.epoch, self.position\n",
        "epoch, start = self.epoch, self.position // self.world\n",
        "unit/data/test_sampling.py",
    ),
    Mutant(
        "data/sampling.py",
        "batch_sizes(self.count - self.position, self.per_rank, self.world)",
        "batch_sizes(self.count - self.position, self.per_rank * self.world)",
        "unit/data/test_sampling.py",
    ),
    Mutant(
        "data/loader.py",
        "for at in range(0, count, batch_size)][rank::world]",
        "for at in range(0, count, batch_size)][rank :: world + (rank > 1)]",
        _LOADER,
    ),
    Mutant(
        "data/loader.py",
        "range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)",
        "range(at, at + batch_size) for at in range(0, count - batch_size + 1, batch_size)",
        _LOADER,
    ),
    Mutant("data/loader.py", "persistent_workers=num_workers > 0", "persistent_workers=False", _LOADER),
    Mutant("data/loader.py", "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n", "", _LOADER),
    Mutant("data/loader.py", "    signal.signal(signal.SIGTERM, _linger)\n", "", _LOADER),
    Mutant(
        "data/loader.py",
        "            self.waited += time.perf_counter() - asked\n",
        "            self.waited = time.perf_counter() - asked\n",
        _LOADER,
    ),
    Mutant("data/loader.py", "        generator=torch.Generator(),\n", "", _LOADER),
    Mutant(
        "data/threads.py",
        "yield running.popleft().result()\n                running.append",
        "yield running.pop().result()\n                running.append",
        "unit/data/test_threads.py",
    ),
    # The cache.
    Mutant("data/cache.py", "status.st_mtime_ns, status.st_ctime_ns)", "status.st_mtime_ns)", _CACHE),
    Mutant("data/cache.py", "        if is_complete(path, len(pairs), img_size):\n            return\n", "", _CACHE),
    Mutant(
        "data/cache.py",
        "                waiting()\n                fcntl.flock(descriptor, fcntl.LOCK_EX)\n",
        "                waiting()\n",
        _CACHE,
    ),
    Mutant(
        "data/cache.py",
        'with atomic.replacing(path) as temporary, temporary.open("wb") as file:',
        'with path.open("wb") as file:',
        _CACHE,
    ),
    Mutant(
        "data/cache.py",
        "            os.utime(path)  # it is in use",
        "            os.stat(path)  # it is in use",
        _CACHE,
    ),
    Mutant(
        "data/cache.py",
        "path.is_file() and path.stat().st_size == cache_bytes(count, img_size)",
        "path.is_file()",
        _CACHE,
    ),
    Mutant("data/cache.py", 'np.memmap(self.path, np.uint8, "c",', 'np.memmap(self.path, np.uint8, "r+",', _CACHE),
    Mutant(
        "data/cache.py",
        "        if is_sole:\n            _sweep(path.parent)\n",
        "        _sweep(path.parent)\n",
        _CACHE,
    ),
    Mutant(
        "data/cache.py",
        "free < cache_bytes(len(pairs), img_size) + reserve",
        "free < cache_bytes(len(pairs), img_size)",
        _CACHE,
    ),
    Mutant(
        "data/cores.py",
        "return max(1, usable_cores() // processes)",
        "return usable_cores() // processes",
        "unit/data/test_cores.py",
    ),
    # Settings.
    Mutant(
        "config/parse.py",
        "total = 3600 * hours + 60 * minutes + seconds",
        "total = 3600 * hours + 60 * minutes",
        "unit/config/test_parse_durations.py",
    ),
    Mutant(
        "config/parse.py",
        "return seconds >= self.seconds",
        "return steps >= self.seconds",
        "unit/config/test_parse_durations.py",
    ),
    Mutant("config/parse.py", "steps % self.steps == 0", "steps == self.steps", "unit/config/test_parse_durations.py"),
    Mutant(
        "config/presets.py",
        "own = {} if beside == PRESET_FOLDER else own_presets()",
        "own = own_presets()",
        "unit/config/test_presets.py",
    ),
    Mutant(
        "config/presets.py",
        "path = (beside or Path()) / Path(name).expanduser()",
        "path = Path(name).expanduser()",
        "unit/config/test_presets.py",
    ),
    Mutant(
        "config/resolve.py",
        "        *(_from_sections(*saved, problems) if saved is not None else []),\n        *(item for level in chain for item in _from_sections(level.sections, level.origin, problems, PRESET_WORDS)),\n",
        "        *(item for level in chain for item in _from_sections(level.sections, level.origin, problems, PRESET_WORDS)),\n        *(_from_sections(*saved, problems) if saved is not None else []),\n",
        "unit/config/test_resolve.py behaviour/test_resume.py",
    ),
    Mutant(
        "config/resolve.py",
        "if item.key not in auto and not _is_auto(item)]",
        "if not _is_auto(item)]",
        "unit/config/test_resolve.py",
    ),
    Mutant("config/resolve.py", "_build(start, [])[0], auto)", "config, auto)", "unit/config/test_resolve.py"),
    Mutant("config/resolve.py", "masks=_absolute(data.masks),", "masks=data.masks,", "unit/config/test_resolve.py"),
    Mutant(
        "config/resolve.py",
        "if rate is not None and rate < train.min_lr and train.scheduler",
        "if rate and rate < train.min_lr and train.scheduler",
        "unit/config/test_resolve.py",
    ),
    Mutant(
        "config/values.py",
        "(isinstance(value, float) and number != value)",
        "(isinstance(value, float) and number > value)",
        "unit/config/test_values.py",
    ),
    Mutant(
        "config/schema.py",
        "return self.train.batch_size * devices, self.stage2_batch_size * devices",
        "return self.train.batch_size * devices, self.train.batch_size // 2 * devices",
        "unit/config/test_diff.py",
    ),
    Mutant(
        "config/lr_scaling.py",
        "low = min(scale / TOLERANCE, math.sqrt(scale))",
        "low = max(scale / TOLERANCE, math.sqrt(scale))",
        "unit/config/test_lr_scaling.py",
    ),
    Mutant(
        "config/lr_scaling.py",
        "return self.rate / self.images",
        "return self.rate * self.images",
        "unit/config/test_lr_scaling.py",
    ),
    Mutant(
        "config/lr_scaling.py",
        "at_once = own[number].images / train.accumulation_steps",
        "at_once = own[number].images",
        "unit/config/test_lr_scaling.py",
    ),
    Mutant(
        "config/diff.py",
        '"data.num_workers",\n',
        '"data.num_workers",\n    "train.seed",\n',
        "unit/config/test_diff.py",
    ),
    Mutant(
        "config/diff.py",
        '*("model.gradient_checkpointing", "train.deterministic"),',
        '*("model.gradient_checkpointing", "train.deterministic", "train.precision"),',
        "unit/config/test_diff.py",
    ),
    Mutant(
        "config/diff.py",
        'if key == "train.epochs" and after > before:',
        'if key == "train.epochs":',
        "unit/config/test_diff.py",
    ),
    Mutant(
        "config/diff.py",
        "choice[0] <= limits[0] and choice[1] <= limits[1]]",
        "choice[0] <= limits[0]]",
        "unit/config/test_diff.py",
    ),
    Mutant(
        "config/batches.py",
        "if first <= most[0] and second <= most[1]:",
        "if first <= most[0]:",
        "unit/config/test_batches.py",
    ),
    # The run folder.
    Mutant(
        "run_folder.py",
        "    for descriptor in _locks:\n        os.close(descriptor)\n",
        "",
        "behaviour/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        "                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        "unit/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        "        if not self.writes:\n            yield\n            return\n",
        "",
        "unit/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        "        for name in _FILES if self.writes else ():\n",
        "        for name in _FILES:\n",
        "unit/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        "for path in (self.last, self.previous) if path.exists()",
        "for path in (self.last,) if path.exists()",
        "unit/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        "(self.results, self.per_image, self.report, self.curves)",
        "(self.results, self.per_image, self.curves)",
        "unit/test_run_folder.py",
    ),
    Mutant(
        "run_folder.py",
        '            atomic.write_text(self.history, json.dumps(history, indent=2) + "\\n")',
        '            self.history.write_text(json.dumps(history, indent=2) + "\\n")',
        "unit/test_run_folder.py",
    ),
    Mutant("run_folder.py", "<= (epoch + 1, samples)", "<= (epoch, samples)", "unit/test_run_folder.py"),
    Mutant("atomic.py", "        _flush(temporary)\n", "", "unit/test_atomic.py"),
]
