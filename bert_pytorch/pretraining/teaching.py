"""The teacher of a run (`--teacher`): whether it fits student and corpus, and building it where the student is."""

import logging
from collections.abc import Iterator

import torch

from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.interop.sources import built
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.distillation import Teacher
from bert_pytorch.models.size import num_parameters
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.records import Vocabulary
from bert_pytorch.runtime.precision import Precision

logger = logging.getLogger(__name__)


def build_teacher(
    config: PretrainingConfig,
    given: LoadedWeights,
    *,
    student: ModelConfig,
    vocabulary: Vocabulary,
    sequence_length: int,
    device: torch.device,
    precision: Precision,
) -> Teacher:
    """Build a frozen teacher on `device`.

    Args:
        config: of the run.
        given: what `interop.sources.load_source` read; its tensors are the teacher's from now on.
        student: shape of the student.
        vocabulary: of the corpus.
        sequence_length: of the corpus's longest sequences, in tokens.
        device: of the student.
        precision: of its forward passes.

    Raises:
        ConfigError: naming every reason why this teacher cannot teach this student.
    """
    problems = list(_misfits(config, given, student, vocabulary, sequence_length))
    if problems:
        raise ConfigError(f"--teacher {config.teacher}", problems)
    model = built(given, config.attention).model.to(device)
    with precision.autocast():
        chosen = model.select_attention(device, fixed_rows=config.packing == "rows")
    weights = config.loss_weights()
    teacher = Teacher(model, temperature=config.distillation_temperature, weights=weights)
    logger.info("teacher: %s, %s parameters", config.teacher, f"{num_parameters(given.config):,}")
    logger.info("attention of the teacher: %s: %s", chosen.attention.name, chosen.reason)
    logger.info(
        "loss: %g soft targets at temperature %g + %g masked-LM + %g cosine%s",
        weights.soft_targets,
        config.distillation_temperature,
        weights.mlm,
        weights.cosine,
        " + next sentence" if student.next_sentence else "",
    )
    return teacher


def _misfits(
    config: PretrainingConfig,
    given: LoadedWeights,
    student: ModelConfig,
    vocabulary: Vocabulary,
    sequence_length: int,
) -> Iterator[str]:
    if given.vocabulary != vocabulary:
        yield (
            f"its vocabulary ({given.vocabulary.describe()}) is not the corpus's ({vocabulary.describe()}, perhaps "
            "others); encode the corpus with its vocabulary: --vocab_file"
        )
    if any(name.startswith("cls.predictions.") for name in given.missing):
        yield "it has no masked-LM head, so that it predicts nothing; name a model that was pretrained, with its head"
    positions = given.config.max_position_embeddings
    if positions < sequence_length:
        yield f"it has {positions} positions, the corpus's sequences have {sequence_length} tokens; encode shorter ones"
    if config.distillation_cosine_weight and given.config.hidden_size != student.hidden_size:
        yield (
            f"its hidden states have {given.config.hidden_size} numbers, the model's {student.hidden_size}; choose a "
            "model as wide, or leave the cosine loss out: --distillation_cosine_weight 0"
        )
