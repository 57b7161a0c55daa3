"""The validation of a run after each epoch."""

from __future__ import annotations

from dataclasses import replace

from camoxpert_cli import console
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.evaluation.test_sets import scoring_workers
from camoxpert_cli.metrics.false_alarms import false_alarms, predicted_area
from camoxpert_cli.metrics.histogram import Mask, Prediction
from camoxpert_cli.metrics.image_scores import Scores, quick_scores
from camoxpert_cli.metrics.score_set import mean_scores


def validate(run: Run) -> Scores | Stop:
    """Score the held-out images, with EMA weights if there is an EMA.

    Returns the mean scores of the images with an object, or why the run stops before all images are scored. If there
    are others, the rate of false alarms in these and the predicted area are among the scores.
    """
    started = run.clock.now()
    scoring = Scoring(
        run.state.scored_network.eval(),
        run.feed.validation,
        run.device,
        run.dtype,
        run.world,
        job=lambda _: _judge,
        # Next to the network if that runs on a GPU; on the CPU, it uses all cores itself.
        workers=scoring_workers(run.world) if run.device.type == "cuda" else 0,
    )
    with console.progress("Validation", len(run.data.validation)) as advance:
        stop = run.clock.score(scoring, advance)
    if stop is not None:
        return stop
    seconds = run.clock.now() - started
    run.state.progress.epoch_seconds += seconds
    run.clock.reserve.note_validation(seconds)
    with_object = [scores for scores, area in scoring.scores if area is None]
    areas = [area for _, area in scoring.scores if area is not None]
    means = mean_scores(with_object or [scores for scores, _ in scoring.scores])
    if not areas:
        return means
    alarms = false_alarms(areas)
    return replace(means, measures={**means.measures, "false_alarms": alarms.rate, "predicted_area": alarms.area})


def _judge(grey: Prediction, mask: Mask) -> tuple[Scores, float | None]:
    """Scores of a prediction, and the predicted area if the mask is empty."""
    return quick_scores(grey, mask), None if mask.any() else predicted_area(grey)
