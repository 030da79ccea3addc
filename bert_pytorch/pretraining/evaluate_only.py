"""`--max_steps 0`: held-out losses of given weights, and nothing else."""

import contextlib
import logging

from bert_pytorch.data.opening import open_corpora, refuse_needless_text_options
from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.errors import BertPytorchError, InputError
from bert_pytorch.interop.sources import load_model
from bert_pytorch.pretraining.agreement import survey_held_out
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import check_fit, held_out_loader
from bert_pytorch.pretraining.sizes import shared_sizes
from bert_pytorch.runtime.device import choose_device, wants_fixed_shapes
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.placement import take_processors
from bert_pytorch.runtime.precision import choose_precision
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tracking.records import EvalRow
from bert_pytorch.training.evaluation import evaluate

logger = logging.getLogger(__name__)


def evaluate_only(config: PretrainingConfig, world: World) -> EvalRow:
    """Log and return the held-out losses of `--init_checkpoint` on `--eval_dir`.

    Raises:
        InputError: if weights and data do not belong together.
        BertPytorchError: if it is stopped before it has a result.
    """
    processors = take_processors(config, world)
    device = choose_device(config, world.local_rank, shapes_vary=config.packing == "tokens").device
    config = config.with_packing(fixed_shapes=wants_fixed_shapes(device))
    world.connect(device)
    logger.info("processors: %s; network: %s", processors, world.network)
    stop = StopRequests(config.time_limit_seconds())
    stop.listen()
    with contextlib.ExitStack() as held:
        held.callback(world.disconnect)
        config = shared_sizes(config, world)
        assert config.init_checkpoint is not None
        assert config.eval_dir is not None
        source = config.init_checkpoint
        world.on_first(lambda: local_source(source))
        given = load_model(local_source(source), config.attention, config.hints())
        opened = open_corpora((config.eval_dir,), "eval", config, given.vocabulary, lowercase=True)
        held_out = held.enter_context(contextlib.closing(opened))
        refuse_needless_text_options([config.eval_dir], config)
        if any(name.startswith("cls.predictions.") for name in given.missing):
            raise InputError(
                f"{config.init_checkpoint}: it is an encoder without a masked-LM head: there is no loss to evaluate. "
                "Pretrain it further first: --init_checkpoint with --max_steps above 0."
            )
        model_config = given.model.config
        next_sentence = model_config.next_sentence and held_out.has_next_sentence and not given.missing
        check_fit(model_config.model_copy(update={"next_sentence": next_sentence}), held_out, config.eval_dir)
        entropy = survey_held_out(world, held_out, config.on_bad_shard)
        loader = held_out_loader(held_out, given.vocabulary, config, world, next_sentence=next_sentence)
        row = evaluate(
            given.model.to(device),
            loader,
            step=0,
            world=world,
            device=device,
            precision=choose_precision(config, device),
            stop_requested=lambda: stop.reason() is not None,
        )
    if row is None:
        raise BertPytorchError("stopped before the held-out set was passed over; start again for a result.")
    if world.is_first:
        logger.info(
            "held-out mlm_loss %.4f nats a masked token (unigram entropy %.4f), mlm_accuracy %.4f, nsp_accuracy %s, "
            "over %d masked tokens",
            row.mlm_loss,
            entropy,
            row.mlm_accuracy,
            "none" if row.nsp_accuracy is None else f"{row.nsp_accuracy:.4f}",
            row.masked_tokens,
        )
    return row
