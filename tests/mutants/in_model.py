"""Mistakes in the network, in which of its parts train, in losses, measures and the report."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MOE = "unit/model/test_moe.py"
NETWORK = "behaviour/model/test_camoxpert.py"
IN_TRAINING = f"{NETWORK}::test_parity_in_training[test_efficientnet-1-1-64-96]"
PLAN = "unit/engine/test_keep_unfrozen.py"
THRESHOLDS = "unit/metrics/test_thresholds.py"
SCORES = "unit/metrics/test_image_scores.py"
_ARCHIVE = "unit/model/test_weights_archive.py"

MUTANTS = [
    # The mixture of experts and its balance.
    Mutant(
        "model/routes.py",
        "pairs = order.argsort(dim=1)",
        "pairs = order",
        f"{MOE}::test_images_do_not_mix",
    ),
    Mutant(
        "model/routes.py",
        "self._weights = top_logits.softmax(dim=2)",
        "self._weights = self._gate_logits.softmax(dim=2).gather(2, self._chosen)",
        f"{MOE}::test_parity",
    ),
    Mutant(
        "model/routes.py",
        "@cached_property\n    def dispatches",
        "@property\n    def dispatches",
        f"{MOE}::test_one_host_read_for_all_layers",
    ),
    Mutant(
        "model/moe.py",
        "for number, count in enumerate(counts) if count]",
        "for number, count in enumerate(counts)]",
        f"{MOE}::test_unchosen_expert_has_no_gradient",
    ),
    Mutant(
        "model/routes.py",
        "at_least_float32(torch.stack([logits.flatten(1) for logits in gate_logits]))",
        "torch.stack([logits.flatten(1) for logits in gate_logits])",
        f"{MOE}::test_half_precision",
    ),
    Mutant(
        "model/dispatch.py",
        "products.sum(dim=0, dtype=weights.dtype)",
        "products.sum(dim=0)",
        f"{MOE}::test_gradient_of_weights_in_half_precision",
    ),
    Mutant(
        "model/dispatch.py",
        "torch.baddbmm(own, weights.to(results.dtype).unsqueeze(1), of_image).view(features.shape)",
        "torch.addmm(own[:, 0], torch.zeros(len(features), len(results), dtype=results.dtype)"
        ".scatter(1, pairs, weights.to(results.dtype)), results.flatten(1)).view(features.shape)",
        f"{MOE}::test_an_overflow_stays_where_it_is",
    ),
    # Weights and layers under autocast.
    Mutant(
        "model/cast_weights.py",
        "context.set_materialize_grads(False)",
        "pass",
        "unit/model/test_cast_weights.py::test_unused_weights_have_no_gradient",
    ),
    Mutant(
        "model/cast_weights.py",
        "if not isinstance(part, _KEEP_FLOAT32):",
        "if True:",
        "unit/model/test_cast_weights.py::test_all_at_once",
    ),
    Mutant(
        "model/cast_weights.py",
        "part.__dict__ if former else part._parameters",
        "part._parameters",
        "behaviour/model/test_cast_weights.py::test_replicas",
    ),
    Mutant(
        "model/layers.py",
        "            torch.set_autocast_enabled(device_type, True)\n",
        "            pass\n",
        "unit/model/test_layers.py::test_layer_norm_in_half_precision",
    ),
    Mutant(
        "model/backbone_layers.py",
        "of_size(self._waves, key, self._compute_waves)",
        "of_size(self._waves, key[:1], lambda *_: self._compute_waves(*key))",
        "unit/model/test_backbone_layers.py::test_same_results",
    ),
    Mutant(
        "model/backbone_layers.py",
        "    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]\n",
        "",
        "behaviour/model/test_compiled_backbone.py",
    ),
    Mutant(
        "model/per_size.py",
        "if len(kept) >= _MOST:",
        "if False:",
        "unit/model/test_per_size.py::test_layers_keep_few_sizes",
    ),
    Mutant(
        "model/cast_weights.py",
        "partial(type(module).forward, module)",
        "module.forward",
        "unit/model/test_cast_weights.py::test_threads_that_share_a_network",
    ),
    Mutant("losses.py", 'if x.device.type == "cpu":', "if True:", "unit/test_losses.py::test_edges_on_a_gpu"),
    Mutant(
        "data/reading.py",
        "clear_frames(error.__traceback__)",
        "pass",
        "unit/inference/test_predict.py::test_a_batch_too_large_for_the_cpu_is_computed_one_by_one",
    ),
    Mutant(
        "model/backbone_layers.py",
        "torch.inference_mode(False), torch.no_grad()",
        "torch.no_grad()",
        "unit/model/test_backbone_layers.py::test_nothing_is_computed_again",
    ),
    Mutant(
        "model/pyramid.py",
        "inside / most, most / (end - start)",
        "inside * 1.0, 1.0 / (end - start)",
        "unit/model/test_pyramid.py::test_means_in_half_precision",
    ),
    Mutant(
        "model/edge_strength.py",
        "if one.dtype in _HALF_PRECISION:",
        "if False:",
        "unit/model/test_edge_strength.py::test_half_precision",
    ),
    Mutant("model/moe.py", "max(2, num_experts // 2)", "max(1, num_experts // 2)", f"{MOE}::test_experts_per_image"),
    Mutant(
        "model/moe.py",
        "gate_logits.softmax(dim=2).sum(dim=1)",
        "gate_logits.softmax(dim=2).mean(dim=1)",
        f"{MOE}::test_balance_from_parts",
    ),
    Mutant(
        "model/moe.py", "sums.chosen / (images * top_k)", "sums.chosen / images", f"{MOE}::test_balance_of_even_use"
    ),
    Mutant(
        "model/moe.py", "return sums.chosen.shape[1]", "return sums.chosen.shape[0]", f"{MOE}::test_balance_of_even_use"
    ),
    Mutant(
        "model/dense_moe.py",
        "fixed = copy.deepcopy(network)",
        "fixed = network",
        "unit/model/test_dense_moe.py::test_whole_network",
    ),
    # Routing by plan, on which the memory that a run needs is measured.
    Mutant(
        "model/routing.py",
        "[-network.top_k :]",
        "[: network.top_k]",
        "behaviour/model/test_routing.py::test_the_costliest",
    ),
    Mutant(
        "model/routing.py",
        "return own - own.detach() + torch",
        "return torch",
        "behaviour/model/test_routing.py::test_gates_still_learn",
    ),
    # Which parts train.
    Mutant("model/camoxpert.py", "stage >= len", "stage > len", f"{NETWORK}::test_set_trainable"),
    Mutant(
        "model/camoxpert.py",
        "self._frozen_backbone = backbone_stages == 0",
        "self._frozen_backbone = self._frozen_backbone or backbone_stages == 0",
        f"{NETWORK}::test_thawed_backbone",
    ),
    Mutant("model/camoxpert.py", "self.backbone.requires_grad_(True)", "pass", f"{NETWORK}::test_thawed_backbone"),
    Mutant(
        "model/camoxpert.py",
        "        self.train(self.training)\n",
        "",
        f"{NETWORK}::test_frozen_backbone_drops_nothing",
    ),
    Mutant(
        "model/camoxpert.py", "requires_grad_(deep_heads)", "requires_grad_(True)", f"{NETWORK}::test_deep_heads_frozen"
    ),
    Mutant("model/camoxpert.py", "not any(parameter", "not all(parameter", f"{NETWORK}::test_partly_frozen_backbone"),
    Mutant(
        "model/camoxpert.py",
        "keeps = self.keep_backbone_statistics and",
        "keeps =",
        f"{NETWORK}::test_statistics_of_a_pretrained_backbone",
    ),
    Mutant("engine/stages.py", "max(phase.backbone_stages, backbone_stages)", "phase.backbone_stages", PLAN),
    Mutant("engine/stages.py", "max(phase.backbone_stages, backbone_stages)", "backbone_stages", PLAN),
    Mutant("engine/stages.py", "if phase.end > epoch:", "if phase.end >= epoch:", PLAN),
    Mutant(
        "engine/stages.py",
        "(kept[-1].stage, kept[-1].backbone_stages) == (phase.stage, phase.backbone_stages)",
        "kept[-1].backbone_stages == phase.backbone_stages",
        PLAN,
    ),
    Mutant(
        "model/backbone.py",
        "for stage in reversed(range(len(STRIDES))):",
        "for stage in range(len(STRIDES)):",
        f"{NETWORK}::test_parameters_by_stage",
    ),
    Mutant("model/backbone.py", "backbone.train(training)", "pass", "unit/model/test_backbone.py::test_fixed_size"),
    Mutant(
        "model/backbone.py",
        "torch.where(value == 0, 1, -value)",
        "-value",
        "unit/model/test_backbone.py::test_fresh_weights_from_file",
    ),
    # The forward pass.
    Mutant(
        "model/normalize.py",
        "statistics.std).view(1, 3, 1, 1) * 255",
        "statistics.std).view(1, 3, 1, 1)",
        "unit/model/test_normalize.py",
    ),
    Mutant(
        "model/camoxpert.py",
        "        if not self.training:\n",
        "        if True:\n",
        f"{NETWORK}::test_clamp_in_eval_mode_alone",
    ),
    Mutant("model/camoxpert.py", "with_cast_weights(head, x)", "with_cast_weights(head, x.detach())", IN_TRAINING),
    Mutant("model/camoxpert.py", "enhanced[-2::-1], self.deep_heads", "maps[-2::-1], self.deep_heads", IN_TRAINING),
    Mutant(
        "model/activation_checkpointing.py",
        "(nullcontext(), _keep_running_statistics(module))",
        "(nullcontext(), nullcontext())",
        "unit/model/test_activation_checkpointing.py::test_batches_counted_once",
    ),
    Mutant(
        "model/experts.py",
        "torch.split(at_least_float32(qkv), [2, 1], dim=1)",
        "torch.split(qkv, [2, 1], dim=1)",
        "unit/model/test_experts.py::test_attention_in_float32",
    ),
    Mutant(
        "model/weights_archive.py",
        "    except zipfile.BadZipFile:\n        return False\n",
        "    except zipfile.BadZipFile:\n        pass\n",
        "unit/model/test_weights_file.py::test_flipped_tensors_are_noticed",
    ),
    Mutant("model/weights_archive.py", "archive.open(member)", "archive.open(member.filename)", _ARCHIVE),
    Mutant("model/weights_archive.py", "return place == length", "return True", _ARCHIVE),
    Mutant("model/weights_archive.py", " or member.volume:", ":", _ARCHIVE),
    Mutant("model/weights_archive.py", "_ENCRYPTED = 0x2041", "_ENCRYPTED = 0x41", _ARCHIVE),
    Mutant("model/weights_archive.py", "member.compress_size != member.file_size", "False", _ARCHIVE),
    Mutant("model/weights_archive.py", "if counts != [0, 0, entries, entries]:", "if False:", _ARCHIVE),
    # Losses, deep supervision among them.
    Mutant(
        "losses.py",
        "+ masks.sum((1, 2, 3)) - intersection",
        "+ masks.sum((1, 2, 3))",
        "unit/test_losses.py::test_formula",
    ),
    Mutant("losses.py", "(terms).mean(dim=0)", "(terms).sum(dim=0)", "unit/test_losses.py::test_deep_formula"),
    Mutant(
        "losses.py",
        'mode="bilinear", align_corners=False',
        'mode="nearest"',
        "unit/test_losses.py::test_deep_formula",
    ),
    Mutant("losses.py", "DEEP_WEIGHT = 0.4", "DEEP_WEIGHT = 0.04", IN_TRAINING),
    Mutant("losses.py", "BALANCE_WEIGHT = 0.1", "BALANCE_WEIGHT = 0.01", IN_TRAINING),
    # Measures and their thresholds.
    Mutant("metrics/thresholds.py", "values > 0.5)", "values >= 0.5)", f"{THRESHOLDS}::test_one_half_is_not_claimed"),
    Mutant(
        "metrics/thresholds.py",
        "histogram.values >= adaptive",
        "histogram.values > adaptive",
        f"{THRESHOLDS}::test_adaptive_threshold_is_at_most_one",
    ),
    Mutant(
        "metrics/thresholds.py",
        "(histogram.values[used] * 255)",
        "np.rint(histogram.values[used] * 255)",
        f"{THRESHOLDS}::test_confusion_counts_are_those_of_the_map",
    ),
    Mutant(
        "metrics/thresholds.py",
        "2 * float(histogram.values[grey].mean())",
        "twice",
        f"{THRESHOLDS}::test_adaptive_threshold_on_a_level",
    ),
    Mutant(
        "metrics/s_measure.py", "/ (number - 1)) if", "/ number) if", "unit/metrics/test_s_measure.py::test_definition"
    ),
    Mutant("metrics/s_measure.py", "return max(0.0, float(ALPHA", "return (float(ALPHA", f"{SCORES}::test_golden"),
    Mutant(
        "metrics/s_measure.py",
        "bool(value in (0, 1) or values[grey][box].mean() == value)",
        "True",
        f"{SCORES}::test_golden",
    ),
    Mutant(
        "metrics/e_measure.py",
        "(confusion.fp, 1, 0),\n            (confusion.fn, 0, 1)",
        "(confusion.fn, 1, 0),\n            (confusion.fp, 0, 1)",
        "unit/metrics/test_e_measure.py::test_is_the_mean_alignment_of_pixels",
    ),
    Mutant(
        "metrics/weighted_f.py",
        "np.minimum(error, smooth)[is_object]",
        "smooth[is_object]",
        "unit/metrics/test_weighted_f.py::test_definition",
    ),
    Mutant(
        "metrics/weighted_f.py",
        "border = RADIUS + 1",
        "border = RADIUS",
        "unit/metrics/test_weighted_f.py::test_definition",
    ),
    Mutant(
        "metrics/weighted_f.py",
        "for step in steps.T[::-1]:",
        "for step in steps.T:",
        "unit/metrics/test_weighted_f.py::test_definition",
    ),
    Mutant(
        "metrics/measures.py",
        'lambda comparison: mae(comparison.histogram),\n        best="lowest",\n',
        "lambda comparison: mae(comparison.histogram),\n",
        f"{SCORES}::test_which_way_is_better",
    ),
    Mutant(
        "metrics/image_scores.py",
        "def quick_scores(grey: Prediction, mask: Mask, *, stretch: bool = True",
        "def quick_scores(grey: Prediction, mask: Mask, *, stretch: bool = False",
        f"{SCORES}::test_stretch",
    ),
    # The mean over a set.
    Mutant(
        "metrics/score_set.py",
        "if name in _MAXIMA else",
        "if not name else",
        "unit/metrics/test_score_set.py::test_maxima_are_of_the_mean_curve",
    ),
    Mutant(
        "metrics/score_set.py",
        "math.fsum(values)",
        "sum(values)",
        "unit/metrics/test_score_set.py::test_order_does_not_matter",
    ),
    Mutant(
        "metrics/baselines.py",
        "max(above.mean(axis=0).max(), below.mean(axis=0).max())",
        "above.mean(axis=0).max()",
        "unit/metrics/test_baselines.py::test_best_threshold_is_the_best",
    ),
    # The report.
    Mutant(
        "report/calibration.py",
        ", weights=pixels[held]",
        "",
        "unit/report/test_calibration.py::test_by_hand",
    ),
    Mutant(
        "report/set_charts.py",
        'curves["recall"], curves["precision"], "precision")',
        'curves["precision"], curves["recall"], "precision")',
        "unit/report/test_set_charts.py",
    ),
    Mutant("report/images.py", "_THRESHOLD = 128", "_THRESHOLD = 127", "unit/report/test_images.py"),
    Mutant(
        "metrics/histogram.py",
        "_EXACT_IN_FLOAT32 = 2**24",
        "_EXACT_IN_FLOAT32 = 2**30",
        "unit/metrics/test_histogram.py::test_counts_that_float32_cannot_hold",
    ),
    Mutant(
        "metrics/baselines.py",
        "kernel - kernel.mean()",
        "kernel",
        "unit/metrics/test_baselines.py::test_orientation_looks_at_edges_and_not_at_brightness",
    ),
    # The backbone's maps, and the hub that its weights come from.
    Mutant(
        "model/backbone.py",
        "len(reductions) - 1 - reductions[::-1].index(stride) for",
        "reductions.index(stride) for",
        "unit/model/test_backbone.py::test_the_deepest_map_of_a_stride",
    ),
    Mutant(
        "model/backbone.py",
        "constants.HF_HUB_OFFLINE = before",
        "constants.HF_HUB_OFFLINE = False",
        "unit/model/test_backbone.py::test_the_hub_is_what_it_was",
    ),
]
