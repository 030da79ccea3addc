"""The HDF5 layouts, as other programs read and write them; their old names live only here.

native   the fork's (gpauloski/BERT-PyTorch): rows unmasked, masked anew each time they are read (dynamic masking)
nvidia   DeepLearningExamples' `create_pretraining_data.py`: rows masked when written (static masking)

n rows of a shard, L their length, P slots for masked tokens.
"""

from typing import Literal, NamedTuple

Layout = Literal["native", "nvidia"]
STATIC_LAYOUTS: tuple[Layout, ...] = ("nvidia",)
"""Those whose rows were masked when they were written."""

SCHEMA_VERSION = 1
LONGEST_SEQUENCE = 65536
"""Tokens of a row at most, so that a file's word for it never asks for all memory."""
TRAIN_PREFIX, EVAL_PREFIX = "train_", "eval_"
MANIFEST, BUILD_LOG, UNFINISHED = "manifest.json", "build_log.json", "unfinished.json"
VOCABULARY_RECORD = "vocabulary.json"

INPUT_IDS, NEXT_SENTENCE_LABELS = "input_ids", "next_sentence_labels"
SPECIAL_TOKEN_POSITIONS = "special_token_positions"  # noqa: S105 no password
INPUT_MASK, SEGMENT_IDS = "input_mask", "segment_ids"
MASKED_POSITIONS, MASKED_IDS = "masked_lm_positions", "masked_lm_ids"


class Column(NamedTuple):
    """One dataset of a layout."""

    dtype: str
    """NumPy's name of the dtype on disk."""
    dimensions: int
    """1 for [n], 2 for [n, …]."""


COLUMNS: dict[Layout, dict[str, Column]] = {
    "native": {
        INPUT_IDS: Column("<i4", 2),
        SPECIAL_TOKEN_POSITIONS: Column("<i4", 2),
        NEXT_SENTENCE_LABELS: Column("<i1", 1),
    },
    "nvidia": {
        INPUT_IDS: Column("<i4", 2),
        INPUT_MASK: Column("<i1", 2),
        SEGMENT_IDS: Column("<i1", 2),
        MASKED_POSITIONS: Column("<i4", 2),
        MASKED_IDS: Column("<i4", 2),
        NEXT_SENTENCE_LABELS: Column("<i1", 1),
    },
}
PACKED_ONLY = ("next_sentence_positions", "next_sentence_weights")
"""Datasets that only Habana's packed layout has."""


def layout_of(names: set[str]) -> Layout | None:
    """Recognise a file's layout by the names of its datasets."""
    if any(name in names for name in PACKED_ONLY):
        return None
    return next((layout for layout, columns in COLUMNS.items() if names.issuperset(columns)), None)


def is_held_out(name: str) -> bool:
    """Whether a file's name says that it is never trained on: our `eval_*`, NVIDIA's `*_test_*`."""
    return name.startswith(EVAL_PREFIX) or "_test_" in name
