"""Fitting foreign weights to our model: which names are there, which are missing, and whether the shapes agree."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bert_pytorch.errors import InputError
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.records import Vocabulary

PROBLEMS_SHOWN = 20


def is_head(name: str) -> bool:
    """Whether a weight belongs to a head, or to the pooler before one: what an encoder may come without."""
    return name.startswith(("cls.", "bert.pooler."))


class LoadedWeights(NamedTuple):
    """A model from anywhere, in our terms."""

    state_dict: dict[str, Tensor]
    """On the CPU, under our names, for `build_model(config, len(vocabulary.tokens)).load_state_dict`; strict
    unless `missing` names something."""
    config: ModelConfig
    """Shape of the model."""
    vocabulary: Vocabulary
    """Tokens and casing."""
    missing: tuple[str, ...]
    """Names of heads (and the pooler before one), and of what else was allowed to be missing, that the source has no
    weights for."""
    unexpected: tuple[str, ...]
    """Names in the source that this architecture has no place for, such as a classifier."""


def matched(
    found: Mapping[str, Tensor], config: ModelConfig, vocabulary: Vocabulary, where: str, *, allow_missing: bool = False
) -> LoadedWeights:
    """Compare names and shapes with the model that `config` and `vocabulary` describe.

    Raises:
        InputError: if weights of the encoder are missing (unless allowed), or any have another shape.
    """
    with torch.device("meta"):
        wanted = build_model(config, len(vocabulary.tokens)).state_dict()
    needed = [name for name in wanted if not allow_missing and not is_head(name)]
    refuse_misfits(found, wanted, needed, where)
    return LoadedWeights(
        state_dict={name: found[name] for name in wanted if name in found},
        config=config,
        vocabulary=vocabulary,
        missing=tuple(name for name in wanted if name not in found),
        unexpected=tuple(name for name in found if name not in wanted),
    )


def refuse_misfits(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], needed: Iterable[str], where: str
) -> None:
    """Raise one `InputError` naming what is `needed` and missing, and what has another shape than wanted."""
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if problems:
        shown, more = "; ".join(problems[:PROBLEMS_SHOWN]), len(problems) - PROBLEMS_SHOWN
        raise InputError(
            f"{where}: its weights do not fit its configuration and vocabulary: {shown}"
            f"{f'; and {more} more' if more > 0 else ''}. Name a model whose files belong together."
        )
