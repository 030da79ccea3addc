"""The HDF5 layouts, as other programs read and write them; their old names live only here.

native   the fork's (gpauloski/BERT-PyTorch): rows unmasked, masked anew each time they are read (dynamic masking)
nvidia   DeepLearningExamples' `create_pretraining_data.py`: rows masked when written (static masking)
packed   Habana's Model-References, `pack_pretraining_data_pytorch.py`: NVIDIA's rows, several in one

n rows of a shard, L their length, P slots for masked tokens.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Layout = Literal["native", "nvidia", "packed"]
STATIC_LAYOUTS: tuple[Layout, ...] = ("nvidia", "packed")
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
POSITIONS = "positions"
NEXT_SENTENCE_POSITIONS, NEXT_SENTENCE_WEIGHTS = "next_sentence_positions", "next_sentence_weights"
BY_SLOT = (NEXT_SENTENCE_POSITIONS, NEXT_SENTENCE_LABELS, NEXT_SENTENCE_WEIGHTS)
"""Datasets of the packed layout that have a value for each sequence of a row."""
NUM_SEQUENCES, PAD_ID = "num_sequences", "pad_id"
"""Attributes of packed files that we write; a foreign file has neither."""


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
    "packed": {
        INPUT_IDS: Column("<i4", 2),
        INPUT_MASK: Column("<i4", 2),
        SEGMENT_IDS: Column("<i1", 2),
        POSITIONS: Column("<i4", 2),
        MASKED_POSITIONS: Column("<i4", 2),
        MASKED_IDS: Column("<i4", 2),
        NEXT_SENTENCE_POSITIONS: Column("<i4", 2),
        NEXT_SENTENCE_LABELS: Column("<i1", 2),
        NEXT_SENTENCE_WEIGHTS: Column("<i4", 2),
    },
}

_OF_ONE_WIDTH = ((INPUT_IDS, INPUT_MASK, SEGMENT_IDS, POSITIONS), (MASKED_POSITIONS, MASKED_IDS), BY_SLOT)


def width_problem(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Say which rows of datasets, by their shapes, do not go together or are too wide; None where all is well."""
    for names in _OF_ONE_WIDTH:
        found = {name: shapes[name] for name in names if name in shapes}
        if len({shape[1:] for shape in found.values()}) > 1:
            return f"its datasets differ in width: {found}"
    for name, shape in shapes.items():
        if len(shape) > 1 and shape[1] > LONGEST_SEQUENCE:
            return f"{name} has rows of {shape[1]} values, wanted {LONGEST_SEQUENCE} at most"
    ends = shapes.get(SPECIAL_TOKEN_POSITIONS, (0, 2))[1]
    return None if ends in (2, 3) else f"{SPECIAL_TOKEN_POSITIONS} has rows of {ends} values, wanted 2 or 3"


def layout_of(names: set[str]) -> Layout | None:
    """Recognise a file's layout by the names of its datasets."""
    if NEXT_SENTENCE_WEIGHTS in names:  # the others' datasets are there too
        return "packed" if names.issuperset(COLUMNS["packed"]) else None
    return next((layout for layout, columns in COLUMNS.items() if names.issuperset(columns)), None)


def is_held_out(name: str) -> bool:
    """Whether a file's name says that it is never trained on: our `eval_*`, NVIDIA's `*_test_*`."""
    return name.startswith(EVAL_PREFIX) or "_test_" in name
