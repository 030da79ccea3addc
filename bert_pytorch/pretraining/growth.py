"""A vocabulary that has grown: rows for the corpus's new tokens behind those of the weights begun from.

A new token starts as the mean of what the old vocabulary spelled it with (Gee et al. 2022, "Fast Vocabulary Transfer",
section 3): the model has met those pieces where the word stood.  One that could not be spelled (a new letter) starts as
the mean of all rows.
"""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from bert_pytorch.interop.huggingface import BIAS, WORD_EMBEDDINGS
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.encoder import padded_vocab_size
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import CONTINUATION

logger = logging.getLogger(__name__)


def grown(given: LoadedWeights, vocabulary: Vocabulary) -> LoadedWeights:
    """Return the weights with a row, and a bias where they have a masked-LM head, for every token.

    Args:
        given: weights of a vocabulary that `vocabulary` extends.
        vocabulary: the longer one.
    """
    old, new = len(given.vocabulary.tokens), len(vocabulary.tokens)
    ids = {token: index for index, token in enumerate(given.vocabulary.tokens)}
    pieces = [spelling(token, ids, vocabulary) for token in vocabulary.tokens[old:]]
    unknown = sum(not part for part in pieces)
    logger.info(
        "vocabulary: %s tokens of the weights, %s new ones of the corpus; each begins as the mean of the pieces it was "
        "spelled with%s",
        f"{old:,}",
        f"{new - old:,}",
        f", {unknown} that could not be spelled as the mean of all" if unknown else "",
    )
    state_dict = dict(given.state_dict)
    words = state_dict[WORD_EMBEDDINGS]
    rows = words.new_zeros(padded_vocab_size(new), words.shape[1])
    rows[:new] = _extended(words[:old], pieces)
    state_dict[WORD_EMBEDDINGS] = rows
    if BIAS in state_dict:
        state_dict[BIAS] = _extended(state_dict[BIAS], pieces)
    config = given.config.model_copy(update={"vocab_size": new})
    return given._replace(state_dict=state_dict, vocabulary=vocabulary, config=config)


def spelling(token: str, ids: Mapping[str, int], vocabulary: Vocabulary) -> list[int]:
    """Spell a token with other tokens: the longest that fits first, as WordPiece does; empty where that fails."""
    mark = CONTINUATION if vocabulary.merges is None else ""
    inside = bool(mark) and token.startswith(mark)
    rest = token.removeprefix(mark) if inside else token
    found = []
    while rest:
        prefix = mark if inside else ""
        end = next((end for end in range(len(rest), 0, -1) if prefix + rest[:end] in ids), 0)
        if not end:
            return []
        found.append(ids[prefix + rest[:end]])
        rest, inside = rest[end:], True
    return found


def _extended(rows: Tensor, pieces: list[list[int]]) -> Tensor:
    mean = rows.mean(0)
    return torch.cat([rows, torch.stack([rows[part].mean(0) if part else mean for part in pieces])])
