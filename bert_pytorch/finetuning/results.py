"""Evaluating and predicting: metrics to `eval_results.json`, predictions in the task's own files."""

import logging
from functools import partial

import numpy as np

from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_write_json
from bert_pytorch.finetuning.curves import save_curves
from bert_pytorch.finetuning.prediction import predict, scorer_of
from bert_pytorch.finetuning.session import Session
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.tasks.scorer import Scorer
from bert_pytorch.tracking.records import TaskEvalRow
from bert_pytorch.tracking.session import METRICS_FILE

logger = logging.getLogger(__name__)

RESULTS, CURVES = "eval_results.json", "curves.png"


def evaluate_and_predict(session: Session, model: TaskModel, scorer: Scorer) -> bool:
    """Do what `--do_eval` and `--do_predict` ask for; all ranks call this together.

    Returns:
        False if a stop was asked for on the way.
    """
    config, task = session.config, session.task
    evaluated = task.eval_parts if config.do_eval else ()
    predicted = task.predict_parts if config.do_predict else ()
    results: dict[str, float] = {}
    for part in dict.fromkeys((*evaluated, *predicted)):
        scores = _scores(session, model, part, scorer)
        if scores is None:
            return False
        metrics = _metrics(session, part, scores)
        results |= metrics
        tells = [task.write_report] if metrics else []
        tells += [task.write_predictions] if part in predicted else []
        for tell in tells:
            session.world.on_first(partial(tell, part, session.parts[part], scores, session.output_dir))
    session.world.on_first(lambda: _write(session, results))
    if config.do_train and config.plots:
        session.world.on_first(lambda: _draw(session))
    return True


def evaluate_while_training(session: Session, model: TaskModel, step: int) -> TaskEvalRow | None:
    """Return the metrics of the first of the task's `eval_parts`; None if a stop was asked for on the way."""
    part = session.task.eval_parts[0]
    scorer = scorer_of(model, session.config, session.device, session.precision, replays=False)
    scores = _scores(session, model, part, scorer)
    return None if scores is None else TaskEvalRow(step, _metrics(session, part, scores))


def _scores(session: Session, model: TaskModel, part: str, scorer: Scorer) -> list[np.ndarray] | None:
    return predict(
        model,
        session.parts[part],
        session.config,
        scorer=scorer,
        world=session.world,
        stop_requested=session.stop_requested,
    )


def _metrics(session: Session, part: str, scores: list[np.ndarray]) -> dict[str, float]:
    return session.world.on_first(lambda: session.task.metrics(part, session.parts[part], scores))


def _draw(session: Session) -> None:
    try:
        save_curves(session.output_dir / CURVES, session.output_dir / METRICS_FILE)
    except MissingDependencyError as error:
        logger.warning("%s", error)


def _write(session: Session, results: dict[str, float]) -> None:
    for name, value in results.items():
        logger.info("%s: %.4f", name, value)
    if results:
        atomic_write_json(session.output_dir / RESULTS, results)
    logger.info("results: %s", session.output_dir)
