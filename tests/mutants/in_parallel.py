"""Mistakes in what processes and devices do together."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_WORLD = "unit/parallel/test_world.py"
_GRADIENTS = "unit/parallel/test_gradients.py"
_STATISTICS = "unit/parallel/test_running_statistics.py"
_OVERLAP = "behaviour/parallel/test_overlap.py"
_DATA_PARALLEL = "behaviour/parallel/test_data_parallel.py"
_SYNC = "behaviour/parallel/test_sync_batchnorm.py"

_WORLDS = [
    Mutant(
        "parallel/world.py",
        "not launcher_lives()",
        "launcher_lives()",
        "behaviour/parallel/test_world.py::test_a_rank_that_fails_ends_at_once",
    ),
    # Two machines would write into one run folder.
    Mutant("parallel/world.py", "return self.rank == 0", "return self.local_rank == 0", f"{_WORLD}::test_who_speaks"),
    Mutant(
        "parallel/worker.py",
        "return rank, size, local_rank, local_size",
        "return local_rank, size, rank, local_size",
        f"{_WORLD}::test_as_torchrun_says",
    ),
    Mutant(
        "parallel/world.py",
        "                timeout=timeout,\n            )\n    except",
        "            )\n    except",
        f"{_WORLD}::test_as_torchrun_says",
    ),
    Mutant(
        "parallel/world.py",
        "if to_camox_error(error) is not None:",
        "if to_camox_error(error) is None:",
        f"{_WORLD}::test_what_fails_in_a_collective",
    ),
    Mutant("parallel/world.py", "len(key) < self.size", "len(key) <= self.size", f"{_SYNC}::test_groups"),
]

_RENDEZVOUS = [
    # The addresses of killed processes.
    Mutant(
        "parallel/rendezvous.py",
        "return PrefixStore(agree_on_name(store, rank, size, timeout.total_seconds()), store)",
        "return store",
        "behaviour/launch/test_torchrun_restarts.py",
    ),
    Mutant(
        "parallel/rendezvous.py",
        "    store.set(numbers[rank], secrets.token_hex(16))",
        '    store.set(numbers[rank], "1")',
        "unit/parallel/test_rendezvous.py::test_no_name_is_used_twice",
    ),
    Mutant(
        "parallel/rendezvous.py",
        "while there < size:",
        "while there < 1:",
        "unit/parallel/test_rendezvous.py::test_no_name_is_used_twice",
    ),
    Mutant(
        "parallel/rendezvous.py",
        "int(found != name)",
        "1",
        "unit/parallel/test_rendezvous.py::test_no_name_is_used_twice",
    ),
]

_SUMS = [
    Mutant("parallel/gradients.py", "strict=True) if count]", "strict=True) if count > 1]", _GRADIENTS),
    Mutant("parallel/gradients.py", "size >= _BUCKET or at == len(tensors) - 1", "size >= _BUCKET", _GRADIENTS),
    Mutant("parallel/gradients.py", "torch.tensor([1.0, *(", "torch.tensor([*(", f"{_GRADIENTS}::test_nothing_to_sum"),
    Mutant(
        "parallel/gradients.py",
        "each.as_strided((each.numel(),), (1,))",
        "each.reshape(-1)",
        f"{_GRADIENTS}::test_layouts_stay",
    ),
    # Averages of BatchNorm that do not ask how many images each rank saw.
    Mutant("parallel/running_statistics.py", "(tracked, float(images))", "(tracked, 1.0)", _STATISTICS),
    Mutant("parallel/running_statistics.py", " if each.training]", "]", _STATISTICS),
    Mutant(
        "parallel/running_statistics.py",
        "            torch._foreach_add_(counts, 1)\n",
        "            pass\n",
        _STATISTICS,
    ),
    Mutant(
        "parallel/strategy.py",
        "            self._statistics.count_missed_batch()\n",
        "            pass\n",
        "behaviour/test_ranks.py::test_ranks_stay_the_same_to_the_bit",
    ),
    # A ring of three adds ranks in another order in each part of a bucket.
    Mutant(
        "parallel/world.py",
        "return self.size > 2 and (",
        "return self.size > 3 and (",
        "behaviour/test_resumed_ranks.py",
    ),
    # What DistributedDataParallel sums.
    Mutant("parallel/overlap.py", "[*others, *buffers])", "others)", _OVERLAP),
    Mutant(
        "parallel/overlap.py",
        '"ignore", "Grad strides do not',
        '"ignore", "Grad strides do',
        f"{_OVERLAP}::test_strides_that_mean_nothing",
    ),
    Mutant(
        "parallel/overlap.py",
        "if self._sums == 1:",
        "if self._sums > 2:",
        f"{_OVERLAP}::test_all_are_there_before_buckets_are_settled",
    ),
    Mutant(
        "parallel/overlap.py",
        "if not self._failures:",
        "if self._failures is None:",
        f"{_OVERLAP}::test_other_errors_stay",
    ),
    Mutant(
        "parallel/overlap.py",
        "        except RuntimeError as error:\n            failures.append(error)\n            raise\n",
        "        except ValueError:\n            raise\n",
        "behaviour/test_processes.py::test_a_worker_that_is_killed",
    ),
    # A rank without images would wait for sums that the others make.
    Mutant(
        "parallel/strategy.py",
        "self._is_full = ends_step and size >= self.world.size",
        "self._is_full = size >= self.world.size",
        "behaviour/test_ranks.py::test_two_ranks_are_one_process",
    ),
    Mutant(
        "parallel/strategy.py",
        "each in in_step and each not in experts",
        "each in in_step",
        "behaviour/test_ranks.py::test_two_ranks_are_one_process",
    ),
    Mutant(
        "parallel/gradients.py",
        "            if count == 0:",
        "            if count <= 1:",
        f"{_GRADIENTS}::test_idle_experts",
    ),
]

_STRATEGIES = [
    Mutant(
        "parallel/strategy.py",
        "leave_idle_experts(self.network, chosen)",
        "pass",
        f"{_DATA_PARALLEL}::test_idle_experts_do_not_decay",
    ),
    Mutant(
        "parallel/strategy.py",
        "list(self.devices))",
        "list(self.devices[:1]))",
        "unit/parallel/test_strategy.py::test_its_devices",
    ),
    Mutant(
        "parallel/strategy.py",
        "        self.wrap()\n",
        "        self._wrapped = step\n",
        "unit/parallel/test_strategy.py::test_its_devices",
    ),
    Mutant(
        "parallel/strategy.py",
        "self.world.rank == self.world.size - 1",
        "self.world.rank == 0",
        f"{_SYNC}::test_groups",
    ),
    Mutant(
        "parallel/strategy.py",
        "ranks_with_samples(size, self.world.size)",
        "range(self.world.size)",
        f"{_SYNC}::test_groups",
    ),
    Mutant(
        "parallel/strategy.py", "sync_batchnorm and world.size > 1", "sync_batchnorm", f"{_SYNC}::test_where_it_is_not"
    ),
    Mutant(
        "parallel/strategy.py",
        "        self.world.require_all()  # the layers' own collectives do not detect a missing rank\n",
        "",
        "behaviour/parallel/test_world.py::test_all_are_there_before_batchnorm_is_synchronised",
    ),
    Mutant(
        "parallel/sync_batchnorm.py",
        "norm.process_group = None  # a network with a group cannot be copied",
        "pass",
        f"{_SYNC}::test_layers_are_left_without_a_group",
    ),
]

_ALLOCATOR = "behaviour/parallel/test_allocator.py"
_MEMORY = [
    Mutant(
        "parallel/allocator.py",
        "mallopt(_TRIM_THRESHOLD, -1)",
        "True",
        f"{_ALLOCATOR}::test_freed_memory_is_used_again",
    ),
    Mutant(
        "parallel/allocator.py", "in _OF_USER", "in ()", f"{_ALLOCATOR}::test_the_users_own_allocator_settings_stay"
    ),
    Mutant(
        "engine/run.py",
        "        keep_freed_memory()\n",
        "",
        "unit/engine/test_run.py::test_memory_and_kernels_are_kept_on_the_cpu",
    ),
    Mutant(
        "engine/run.py",
        "        keep_compiled_kernels()\n",
        "",
        "unit/engine/test_run.py::test_memory_and_kernels_are_kept_on_the_cpu",
    ),
    Mutant("parallel/onednn.py", '"8192"', '"1024"', "behaviour/parallel/test_onednn.py::test_shapes_of_a_run"),
    Mutant(
        "parallel/onednn.py",
        "if _FORMER_NAME not in os.environ:",
        "if True:",
        "behaviour/parallel/test_onednn.py::test_the_users_number",
    ),
]

_DEVICES = [
    Mutant(
        "parallel/device.py",
        "return placement.devices[world.local_rank]",
        "return placement.devices[0]",
        "unit/parallel/test_device.py::test_processes_that_do_not_match",
    ),
    Mutant(
        "parallel/device.py",
        "count = processes if processes > 1 else len(devices)",
        "count = len(devices)",
        "unit/parallel/test_device.py::test_processes_that_were_started",
    ),
    Mutant(
        "parallel/device.py",
        "if len(placement.devices) == 1:",
        "if world.local_size == 1:",
        "unit/parallel/test_device.py::test_each_process_sees_its_own_gpu",
    ),
    Mutant(
        "parallel/device.py",
        "own = platform.node(), str(torch.cuda.get_device_properties(device).uuid)",
        "own = platform.node(), str(device)",
        "unit/parallel/test_device.py::test_a_gpu_for_two",
    ),
    # The same cards under other names on two machines are not the same.
    Mutant(
        "parallel/device.py",
        "first.setdefault(gpu, rank)",
        "first.setdefault(gpu[1:], rank)",
        "unit/parallel/test_device.py::test_a_gpu_for_two",
    ),
    Mutant(
        "launch/decide.py",
        "    refuse_shared_gpus(device, world)\n",
        "",
        "behaviour/launch/test_visible_gpus.py::test_one_gpu_for_both",
    ),
    Mutant(
        "evaluation/test_sets.py",
        "        refuse_shared_gpus(device, world)\n",
        "",
        "behaviour/launch/test_visible_gpus.py::test_one_gpu_for_both_in_an_evaluation",
    ),
    # A T4 emulates bfloat16, many times slower.
    Mutant(
        "parallel/precision.py",
        ">= (8, 0)",
        ">= (7, 5)",
        "unit/parallel/test_precision.py::test_gpu",
    ),
    Mutant(
        "parallel/determinism.py",
        "if workspace not in _REPRODUCIBLE:",
        "if workspace is None:",
        "behaviour/parallel/test_determinism.py::test_inside_and_afterwards",
    ),
    Mutant(
        "parallel/determinism.py",
        "        torch.set_deterministic_debug_mode(before)\n",
        "",
        "behaviour/parallel/test_determinism.py::test_inside_and_afterwards",
    ),
]

_WORKERS = [
    Mutant(
        "parallel/worker.py",
        "        **ONE_MACHINE,\n        **os.environ,\n",
        "        **os.environ,\n        **ONE_MACHINE,\n",
        "unit/parallel/test_worker.py::test_what_the_user_set_goes_before",
    ),
    *(
        Mutant(
            "parallel/worker.py",
            old,
            new,
            "behaviour/parallel/test_world.py::test_a_rank_that_succeeds_is_not_taken_down",
        )
        for old, new in (
            ("code = error.code or 0", "code = error.code"),
            ("        threading._shutdown()  # type: ignore[attr-defined]\n", ""),
            ("        atexit._run_exitfuncs()\n", ""),
            ("    if code == 0:\n", "    if code == 0:\n        return\n"),
        )
    ),
]

MUTANTS = [*_WORLDS, *_RENDEZVOUS, *_WORKERS, *_SUMS, *_STRATEGIES, *_MEMORY, *_DEVICES]
