"""What a session leaves behind: checkpoints on the way, the exported model at its end."""

import logging
from collections.abc import Callable
from pathlib import Path

from bert_pytorch.checkpoints.format import Checkpoint, DataPosition, vocabulary_entries
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.sources import EXPORTED, load_source
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.pretraining.session import Learner, Session
from bert_pytorch.pretraining.sizes import measured_choices
from bert_pytorch.runtime.device import storable
from bert_pytorch.tracking.records import EndRow
from bert_pytorch.tracking.session import complete_metrics
from bert_pytorch.training.fast_paths import FastPaths
from bert_pytorch.training.feed import Feed
from bert_pytorch.training.loop import Progress

logger = logging.getLogger(__name__)


def checkpoint_writer(
    session: Session, learner: Learner, feed: Feed, fast_paths: FastPaths
) -> Callable[[Progress], None]:
    """Return what writes a checkpoint: the whole state after the last finished update."""
    config, vocabulary = session.config, session.corpus.vocabulary

    def save(progress: Progress) -> None:
        # Ranks hold different parts of it: all of them bring theirs together.
        preconditioner = None if learner.preconditioner is None else learner.preconditioner.state_dict()
        optimizer = learner.sharding.state_dict()
        if not session.world.is_first:
            return
        epoch = progress.samples // session.corpus.training.num_sequences
        checkpoint = Checkpoint(
            model=learner.model.state_dict(),
            model_config=session.model_config.model_dump(mode="json"),
            **vocabulary_entries(vocabulary),
            step=progress.step,
            phase=session.start.phase,
            phase_start=config.previous_phase_end_step,
            phase_end=progress.step == config.previous_phase_end_step + config.max_steps,
            data_position=DataPosition(config.seed, epoch, progress.samples),
            optimizer=optimizer,
            scaler=learner.scaler.state_dict() if learner.scaler.is_enabled() else None,
            preconditioner=preconditioner,
            choices={
                "sequences": session.corpus.training.num_sequences,
                "excluded_shards": feed.excluded(),
                **measured_choices(session),
                **fast_paths.choices(),
            },
            run_config=config.model_dump(mode="json"),
        )
        session.store.save(progress.step, storable(checkpoint.to_dict(), session.device))

    return save


def export_model(session: Session, model: PretrainingModel) -> None:
    """Write `model/` as a Hugging Face folder."""
    folder = session.output_dir / EXPORTED
    export_huggingface(folder, model.state_dict(), session.model_config, session.corpus.vocabulary)
    logger.info("model: %s (opens in transformers)", folder)


def complete_finished_run(output_dir: Path, checkpoint: Path, step: int) -> None:
    """Make up for what a kill after the last checkpoint took: the exported model and the `end` row."""
    logger.info("this phase is finished: %d updates are done, %s. --overwrite starts anew.", step, checkpoint)
    exported = output_dir / EXPORTED / "config.json"
    if not exported.exists() or exported.stat().st_mtime < checkpoint.stat().st_mtime:
        weights = load_source(checkpoint)
        export_huggingface(output_dir / EXPORTED, weights.state_dict, weights.config, weights.vocabulary)
        logger.info("model: %s (opens in transformers)", output_dir / EXPORTED)
    complete_metrics(output_dir, EndRow("finished", step, 0.0, None))
