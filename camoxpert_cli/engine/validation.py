"""The validation of a run after each epoch."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.evaluation.test_sets import scoring_workers
from camoxpert_cli.metrics.image_scores import Scores, quick_scores
from camoxpert_cli.metrics.score_set import mean_scores


def validate(run: Run) -> Scores | Stop:
    """Score the held-out images, with EMA weights if there is an EMA.

    Returns the mean scores, or why the run stops before all images are scored.
    """
    started = run.clock.now()
    scoring = Scoring(
        run.state.scored_network.eval(),
        run.feed.validation,
        run.device,
        run.dtype,
        run.world,
        job=lambda _: quick_scores,
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
    return mean_scores(scoring.scores)
