"""A fine-tuning session from its configuration to its end: what is read, trained, evaluated, predicted and written."""

import contextlib
import logging
from pathlib import Path
from typing import TypeVar

from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.config.command_line import Resolved
from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.finetuning.beginning import read_beginning
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.latency import benchmark_inference
from bert_pytorch.finetuning.prediction import scorer_of
from bert_pytorch.finetuning.results import CURVES, RESULTS, evaluate_and_predict
from bert_pytorch.finetuning.session import CHECKPOINTS, TaskKind, build_on_device, open_session
from bert_pytorch.finetuning.training import train_task
from bert_pytorch.interop.sources import EXPORTED
from bert_pytorch.runtime.device import choose_device
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.placement import take_processors
from bert_pytorch.runtime.precision import agree_on_precision
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tracking.console import console_log
from bert_pytorch.tracking.records import EndReason
from bert_pytorch.tracking.run_record import write_run_config
from bert_pytorch.training.folder import claim_folder, remove_run

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=FinetuningConfig)


def finetune(resolved: Resolved[C], world: World, kind: TaskKind) -> EndReason:
    """Run one session in `--output_dir` and say why it ended.

    Raises:
        BertPytorchError: what a person can mend: files, configuration, another run in the folder.
    """
    config = resolved.settings
    stop = StopRequests(config.time_limit_seconds())
    stop.listen()
    processors = take_processors(config, world)
    chosen = choose_device(config, world.local_rank, compiles=config.compile, shapes_vary=config.do_train)
    world.connect(chosen.device)
    with contextlib.ExitStack() as held:
        held.callback(world.disconnect)
        output_dir = config.folder()
        store = world.on_first(lambda: claim_folder(output_dir, CHECKPOINTS, config.keep_checkpoints, held))
        log = output_dir / f"{config.log_prefix}.txt"
        world.together(lambda: held.enter_context(console_log(log, rank=world.rank)))
        logger.info("device: %s; ranks: %d", chosen.reason, world.size)
        logger.info("processors: %s; network: %s", processors, world.network)
        own = world.on_first(lambda: _own_checkpoint(config, store))
        if own is None and config.init_checkpoint is not None:
            source = config.init_checkpoint
            world.on_first(lambda: local_source(source))  # one rank fetches, the others find it
        beginning = world.together(lambda: read_beginning(config, kind.head, own))
        precision = agree_on_precision(config, chosen.device, world)
        session = world.together(
            lambda: open_session(config, kind, world, chosen.device, precision, stop, store, beginning)
        )
        session.parts.read_all(world)
        model = world.together(lambda: build_on_device(session))
        if config.overwrite:  # only now: nothing can refuse any more
            written = (CHECKPOINTS, EXPORTED, RESULTS, CURVES, *kind.writes)
            world.on_first(lambda: remove_run(output_dir, config.log_prefix, written))
        record = output_dir / f"{config.log_prefix}_run_config.json"
        world.on_first(lambda: write_run_config(record, resolved, model.config.model_dump(mode="json"), world.size))
        if config.do_train and (reason := train_task(session, model)) != "finished":
            return reason
        scorer = scorer_of(model, config, session.device, session.precision, replays=True)
        done = evaluate_and_predict(session, model, scorer) and benchmark_inference(session, model, scorer)
    return "finished" if done else ("time_limit" if stop.reason() == "time_limit" else "signal")


def _own_checkpoint(config: FinetuningConfig, store: CheckpointStore) -> Path | None:
    """Return the newest good checkpoint of this run, where it is to be trained further."""
    if config.overwrite or not config.do_train:
        return None
    newest = store.load_newest()
    if newest is None:
        return None
    store.set_aside_damaged(newest)
    return newest.path
