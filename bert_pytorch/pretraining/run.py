"""A pretraining session from its configuration to its end: what is opened, built, restored, trained and written."""

import contextlib
import logging
from typing import Any

import torch

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.checkpoints.reading import load_checkpoint
from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.config.command_line import Resolved
from bert_pytorch.data.batching import describe_update, sizes_of_ranks
from bert_pytorch.data.recorded import recorded_data
from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.interop.sources import CHECKPOINTS, EXPORTED, load_source
from bert_pytorch.pretraining.agreement import leave_out_together, refuse_differing_data, survey_held_out
from bert_pytorch.pretraining.assembly import assemble
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.recorded import refuse_without_gpu
from bert_pytorch.pretraining.saving import complete_finished_run, export_model
from bert_pytorch.pretraining.session import Learner, Session, build_learner, open_session
from bert_pytorch.pretraining.sizes import settle_sizes, shared_sizes
from bert_pytorch.pretraining.start import Start, decide_start
from bert_pytorch.runtime.device import choose_device, wants_fixed_shapes
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.placement import take_processors
from bert_pytorch.runtime.precision import Precision, agree_on_precision
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tracking.console import console_log
from bert_pytorch.tracking.records import EndReason, StartRow
from bert_pytorch.tracking.run_record import write_run_config
from bert_pytorch.tracking.session import open_tracker
from bert_pytorch.training.fast_paths import FastPaths, sample_lengths, settle_fast_paths
from bert_pytorch.training.folder import claim_folder, remove_run
from bert_pytorch.training.loop import train

logger = logging.getLogger(__name__)


def pretrain(resolved: Resolved[PretrainingConfig], world: World) -> EndReason:
    """Run one session in `--output_dir` and say why it ended.

    Raises:
        BertPytorchError: what a person can mend: data, configuration, another run in the folder.
    """
    asked = resolved.settings
    stop = StopRequests(asked.time_limit_seconds())
    stop.listen()
    processors = take_processors(asked, world)
    chosen = choose_device(asked, world.local_rank, compiles=asked.compile, shapes_vary=asked.packing == "tokens")
    config = asked.with_packing(fixed_shapes=wants_fixed_shapes(chosen.device))
    refuse_without_gpu(config, chosen.device)
    world.connect(chosen.device)
    with contextlib.ExitStack() as held:
        held.callback(world.disconnect)
        output_dir = config.folder()
        config = shared_sizes(config, world)  # refused before anything is written
        store = world.on_first(lambda: claim_folder(output_dir, CHECKPOINTS, config.keep_checkpoints, held))
        log = output_dir / f"{config.log_prefix}.txt"
        world.together(lambda: held.enter_context(console_log(log, rank=world.rank)))
        start = world.on_first(lambda: decide_start(config, store))
        if start.kind == "finished":
            world.on_first(lambda: complete_finished_run(output_dir, store.path_of(start.step), start.step))
            return "finished"
        begun_from = config.init_checkpoint if start.checkpoint is None else None
        sources = [source for source in (begun_from, config.teacher) if source is not None]
        world.on_first(lambda: [local_source(source) for source in sources])  # one rank fetches, the others find it
        logger.info("device: %s; ranks: %d", chosen.reason, world.size)
        logger.info("processors: %s; network: %s", processors, world.network)
        precision = agree_on_precision(config, chosen.device, world)
        session, learner, saved = world.together(
            lambda: _prepare(config, world, chosen.device, stop, store, start, precision)
        )
        for data in (session.corpus.training, session.corpus.evaluation):
            if data is not None:
                held.callback(data.close)  # threads that fetch ahead would keep a failed session waiting
        fast_paths = world.together(lambda: _agree(session, learner, saved))
        session = session._replace(settled=settle_sizes(session, learner, saved))
        if config.overwrite:
            # Only now: nothing can refuse any more.
            world.on_first(lambda: remove_run(output_dir, config.log_prefix, (CHECKPOINTS, EXPORTED)))
        record = output_dir / f"{config.log_prefix}_run_config.json"
        world.on_first(
            lambda: write_run_config(record, resolved, session.model_config.model_dump(mode="json"), world.size)
        )
        return _run(session, learner, fast_paths)


def _prepare(
    config: PretrainingConfig,
    world: World,
    device: torch.device,
    stop: StopRequests,
    store: CheckpointStore,
    start: Start,
    precision: Precision,
) -> tuple[Session, Learner, dict[str, Any]]:
    """Read what the session begins from and build everything; the files' contents are let go of on return.

    No rank waits for another in here, so that all end when one fails.

    Returns:
        The session, its model, and what the run has chosen so far: none for a new run or phase.
    """
    path = start.checkpoint
    checkpoint = None if path is None else Checkpoint.from_dict(load_checkpoint(path), str(path))
    begin_from = config.init_checkpoint if checkpoint is None else None
    initial = load_source(local_source(begin_from), config.hints()) if begin_from is not None else None
    teacher = load_source(local_source(config.teacher)) if config.teacher is not None else None
    session = open_session(config, world, device, precision, stop, store, start, checkpoint, initial)
    saved = checkpoint.choices if start.kind == "resume" and checkpoint is not None else {}
    return session, build_learner(session, checkpoint, initial, teacher), saved


def _agree(session: Session, learner: Learner, saved: dict[str, Any]) -> FastPaths:
    corpus = session.corpus
    refuse_differing_data(session.world, corpus.training, corpus.evaluation)
    left_out = saved.get("excluded_shards", []) if session.config.on_bad_shard == "skip" else []
    leave_out_together(session.world, corpus.training, left_out)
    config = session.config
    longest = corpus.training.sequence_length
    first = sizes_of_ranks(config, session.world.size)[0]  # rank 0 measures
    most = max(1, first if config.max_tokens is None else config.max_tokens // longest)
    fixed_rows = config.packing == "rows"
    return settle_fast_paths(
        learner.model,
        learner.optimizer,
        world=session.world,
        device=session.device,
        precision=session.precision,
        lengths=sample_lengths(most, longest, fixed_rows=fixed_rows),
        fixed_rows=fixed_rows,
        compiled=config.compile,
        saved=saved,
    )


def _run(session: Session, learner: Learner, fast_paths: FastPaths) -> EndReason:
    config, start = session.config, session.start
    last_step = config.previous_phase_end_step + config.max_steps
    _announce(session, last_step)
    session_end = last_step if config.steps is None else min(last_step, start.step + config.steps)
    rank = session.world.rank
    with open_tracker(
        session.output_dir,
        config,
        first_step=start.step,
        last_step=session_end,
        rank=rank,
    ) as tracker:
        tracker.start(_start_row(session))
        run = assemble(session, learner, fast_paths, tracker, last_step, session_end)
        reason = train(run)
    if reason in ("finished", "session_limit"):
        session.world.on_first(lambda: export_model(session, learner.model))
    _say_goodbye(session, reason, run.progress.step, last_step)
    return reason


def _announce(session: Session, last_step: int) -> None:
    config, start = session.config, session.start
    begins = {
        "new": "a new run",
        "next_phase": f"phase {start.phase}, carrying on {start.checkpoint}",
        "resume": f"continuing {start.checkpoint}",
    }[start.kind]
    logger.info("start: %s", begins)
    limit = "no session limit" if config.steps is None else f"this session takes at most {config.steps} (--steps)"
    logger.info("updates: %d to %d of %s; %s", start.step + 1, last_step, describe_update(config), limit)
    if session.corpus.evaluation is not None:
        entropy = survey_held_out(session.world, session.corpus.evaluation, config.on_bad_shard)
        logger.info("unigram entropy of the held-out set: %.3f nats a token (a model that knows no context)", entropy)


def _start_row(session: Session) -> StartRow:
    config, start, training = session.config, session.start, session.corpus.training
    return StartRow(
        step=start.step,
        samples=start.samples,
        phase=start.phase,
        phase_start=config.previous_phase_end_step,
        world_size=session.world.size,
        next_sentence=session.model_config.next_sentence,
        lowercase=session.corpus.vocabulary.lowercase,
        sequences=training.num_sequences,
        excluded_shards=training.excluded(),
        data=recorded_data(session.settled),
    )


def _say_goodbye(session: Session, reason: EndReason, step: int, last_step: int) -> None:
    """Say where the state is; why the session ended, the tracker has said."""
    if session.config.skip_checkpoint:
        logger.info("no checkpoint was written (--skip_checkpoint)")
    else:
        more = "" if reason == "finished" else f"; start again for the rest of the {last_step} updates"
        logger.info("checkpoint: %s%s", session.store.path_of(step), more)
