"""What a run is built on: the shards and vocabulary it reads, and the shape of its model."""

import logging
from typing import NamedTuple

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.held_out import EvaluationLoader
from bert_pytorch.data.masking import evaluation_policy, policy_for
from bert_pytorch.data.opening import held_out_beside, open_corpora, refuse_needless_text_options
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.records import Vocabulary
from bert_pytorch.runtime.distributed import World
from bert_pytorch.vocabulary import read_vocabulary

logger = logging.getLogger(__name__)


class Corpus(NamedTuple):
    """The data of a run."""

    training: Corpora
    evaluation: Corpora | None
    """None where there is no held-out part."""
    vocabulary: Vocabulary


def open_corpus(config: PretrainingConfig, lowercase: bool) -> Corpus:
    """Open training and held-out data and settle the vocabulary.

    Args:
        config: of the run.
        lowercase: casing of a foreign vocab.txt that does not tell its own.

    Raises:
        InputError: if shards are missing, damaged, or of different vocabularies.
    """
    given = read_vocabulary(config.vocab_file, otherwise=lowercase) if config.vocab_file is not None else None
    training = open_corpora(config.input_dir, "train", config, given, lowercase=lowercase)
    for line in training.describe():
        logger.info("training data: %s", line)
    if training.static:
        logger.info("masks come with the shards: --masked_token_fraction, --whole_word_masking and such are not used")
    vocabulary = given or training.vocabulary
    held_out = held_out_beside(config.input_dir) if config.eval_dir is None else (str(config.eval_dir),)
    evaluation = open_corpora(held_out, "eval", config, vocabulary, lowercase=lowercase) if held_out else None
    if evaluation is None:
        logger.info("held-out data: none (no eval_*.hdf5 or validation split beside the training data; see --eval_dir)")
    else:
        for line in evaluation.describe():
            logger.info("held-out data: %s", line)
    refuse_needless_text_options((*config.input_dir, *held_out), config)
    if vocabulary is None:
        raise InputError(
            f"{' '.join(config.input_dir)}: the shards come without a vocabulary (no vocab.txt or tokenizer.json "
            "beside them). Name the one they were written with: --vocab_file vocab.txt"
        )
    return Corpus(training, evaluation, vocabulary)


def pick_model_config(config: PretrainingConfig, saved: ModelConfig | None) -> ModelConfig:
    """Return the shape of the model: `--model_config_file`, else that of the checkpoint begun from.

    Raises:
        ConfigError: if there is neither.
    """
    if config.model_config_file is not None:
        return load_model_config(config.model_config_file)
    if saved is None:
        problem = "it is missing: name a shipped model (bert_base_uncased) or a JSON file of your own."
        raise ConfigError("--model_config_file", [problem])
    return saved


def for_vocabulary(model_config: ModelConfig, vocabulary: Vocabulary) -> ModelConfig:
    """Return the configuration with the corpus's vocabulary size and casing, telling what that changes."""
    size = len(vocabulary.tokens)
    if model_config.vocab_size != size:
        logger.info(
            "vocab_size: %d (the corpus's vocabulary; the model configuration says %d)", size, model_config.vocab_size
        )
    if model_config.lowercase not in (None, vocabulary.lowercase):
        wanted, found = ("lower-cased", "cased") if model_config.lowercase else ("cased", "lower-cased")
        logger.warning(
            "the model configuration is meant for %s text, the corpus is %s; the corpus counts", wanted, found
        )
    meant, kind = model_config.tokenizer, vocabulary.kind
    if meant is not None and meant.removeprefix("byte_") != kind.removeprefix("byte_"):
        logger.warning("the model configuration is meant for %s, the corpus is %s; the corpus counts", meant, kind)
    return model_config.model_copy(update={"vocab_size": size, "lowercase": vocabulary.lowercase, "tokenizer": kind})


def for_pairs(model_config: ModelConfig, shards: Corpora) -> ModelConfig:
    """Return the shape of weights that are begun from without a next-sentence head where the data has no pairs."""
    if not model_config.next_sentence or shards.has_next_sentence:
        return model_config
    logger.info("next-sentence task: none, as the corpus has no pairs; the pooler of --init_checkpoint is left out")
    return model_config.model_copy(update={"next_sentence": False})


def check_fit(model_config: ModelConfig, shards: Corpora, where: str) -> None:
    """Refuse shards that the model cannot learn from.

    Raises:
        ConfigError: naming every misfit.
    """
    problems = []
    if shards.sequence_length > model_config.max_position_embeddings:
        problems.append(
            f"its sequences have {shards.sequence_length} tokens, the model has {model_config.max_position_embeddings} "
            "positions (max_position_embeddings); encode shorter ones, or choose a model with more."
        )
    if model_config.next_sentence and not shards.has_next_sentence:
        problems.append(
            "it has no next-sentence labels, which this model learns from; encode with --next_seq_prob 0.5, or choose "
            'a model configuration with "next_sentence": false.'
        )
    if problems:
        raise ConfigError(where, problems)


def batch_maker(
    shards: Corpora, vocabulary: Vocabulary, config: PretrainingConfig, *, next_sentence: bool
) -> BatchMaker:
    """Return what turns rows of a training set into masked micro-batches."""
    return BatchMaker(shards, vocabulary, policy_for(config, vocabulary), next_sentence=next_sentence)


def held_out_loader(
    shards: Corpora, vocabulary: Vocabulary, config: PretrainingConfig, world: World, *, next_sentence: bool
) -> EvaluationLoader:
    """Return this rank's passes over a held-out set, masked alike whatever the training does, shaped as it is."""
    batches = BatchMaker(shards, vocabulary, evaluation_policy(config, vocabulary), next_sentence=next_sentence)
    return EvaluationLoader(batches, config, rank=world.rank, world_size=world.size)
