"""What crosses the doors between rooms: NumPy records with shape and dtype under each field.

Letters: n rows of a shard, L their length, P their slots for masked tokens; B sequences of a batch, T their tokens
together (no padding), M the masked ones among them.
"""

from typing import Literal, NamedTuple

import numpy as np

IGNORED_LABEL = -100
"""A label that counts nowhere; the value that torch's cross-entropy ignores."""


class SpecialTokens(NamedTuple):
    """The tokens that stand for no text; roles are BERT's, spellings a vocabulary's own."""

    pad: str
    unknown: str
    cls: str
    """Starts every sequence."""
    sep: str
    """Ends every segment."""
    mask: str


WORDPIECE_SPECIALS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_BPE_SPECIALS = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")
PAD_TOKEN, UNKNOWN_TOKEN, CLS_TOKEN, SEP_TOKEN, MASK_TOKEN = WORDPIECE_SPECIALS
SPECIAL_TOKENS = tuple(WORDPIECE_SPECIALS)


class Vocabulary(NamedTuple):
    """Everything about the tokenizer that a model depends on: WordPiece (BERT), or byte-level BPE (RoBERTa)."""

    tokens: tuple[str, ...]
    """Token of each id."""
    lowercase: bool
    """Whether text is lower-cased (WordPiece: and its accents stripped) before it is split."""
    merges: tuple[tuple[str, str], ...] | None = None
    """Merges of byte-level BPE by rank; None for WordPiece."""
    add_prefix_space: bool = False
    """Byte-level BPE: whether a text's first word is written as any other, with a space before it."""

    @property
    def kind(self) -> Literal["wordpiece", "byte_bpe"]:
        """What splits words into tokens."""
        return "wordpiece" if self.merges is None else "byte_bpe"

    @property
    def special(self) -> SpecialTokens:
        """The spellings of the special tokens."""
        return WORDPIECE_SPECIALS if self.merges is None else BYTE_BPE_SPECIALS

    @property
    def pad_id(self) -> int:
        """Id that rows are padded with: 0 for WordPiece, wherever `<pad>` stands for byte-level BPE."""
        return self.id_of(self.special.pad)

    @property
    def unknown_id(self) -> int:
        """Id of what has no token; byte-level BPE never needs it."""
        return self.id_of(self.special.unknown)

    @property
    def cls_id(self) -> int:
        """Id that starts every sequence."""
        return self.id_of(self.special.cls)

    @property
    def sep_id(self) -> int:
        """Id that ends every segment."""
        return self.id_of(self.special.sep)

    @property
    def mask_id(self) -> int:
        """Id that stands in a masked token's place."""
        return self.id_of(self.special.mask)

    @property
    def structural_ids(self) -> tuple[int, ...]:
        """Ids that stand for no text and are never masked: padding, start, end and mask; unknown words are text."""
        return self.pad_id, self.cls_id, self.sep_id, self.mask_id

    def describe(self) -> str:
        """Say in a few words what it is."""
        kind = "WordPiece" if self.merges is None else "byte-level BPE"
        return f"{len(self.tokens):,} {'lower-cased' if self.lowercase else 'cased'} {kind} tokens"

    def id_of(self, token: str) -> int:
        """Return a token's id; searches the list, up to 1 ms: ask once, not for every row.

        Raises:
            ValueError: if it is not in the vocabulary.
        """
        return self.tokens.index(token)


class StaticMasks(NamedTuple):
    """Masks chosen when the shard was written (NVIDIA's layout); `SequenceRows.input_ids` is corrupted already."""

    positions: np.ndarray
    """int32 (n, P), positions of the masked tokens in the row, 0 past `counts`."""
    token_ids: np.ndarray
    """int32 (n, P), the original tokens there."""
    counts: np.ndarray
    """int32 (n,), how many of the P slots are used."""


class SequenceRows(NamedTuple):
    """Rows of a shard, whatever its file format."""

    input_ids: np.ndarray
    """int32 (n, L), `[CLS] A [SEP] (B [SEP])`, padded with the vocabulary's padding id (WordPiece: 0)."""
    lengths: np.ndarray
    """int32 (n,), tokens before the padding."""
    segment_b_starts: np.ndarray
    """int32 (n,), position of B's first token; equals `lengths` where there is no B."""
    next_sentence_labels: np.ndarray | None
    """int8 (n,), 1 = B is a random text; None where the set has no next-sentence task."""
    static_masks: StaticMasks | None
    """None where masks are drawn each time a row is read (dynamic masking)."""


class MicroBatch(NamedTuple):
    """Packed sequences for one forward and backward pass on one rank.

    Two forms.  Packed: sequences end to end, no padding.  Fixed rows (`row_length` is set, `data.fixed_rows` makes
    them): every size is the same in all micro-batches of a run; slots without a sequence are empty or padding.
    """

    input_ids: np.ndarray
    """int32 (T,), corrupted by masking."""
    token_type_ids: np.ndarray
    """int32 (T,), 0 for `[CLS] A [SEP]`, 1 for `B [SEP]`."""
    position_ids: np.ndarray
    """int32 (T,), restarting at 0 with every sequence."""
    cu_seqlens: np.ndarray
    """int32 (B + 1,), where each sequence starts; the last entry is T."""
    masked_positions: np.ndarray
    """int64 (M,), indices into T, strictly increasing; fixed rows: zeros behind the last one."""
    labels: np.ndarray
    """int64 (M,), the original tokens at `masked_positions`; `IGNORED_LABEL` behind the last one."""
    next_sentence_labels: np.ndarray | None
    """int64 (B,), 1 = random next, `IGNORED_LABEL` = no label; None without the next-sentence task."""
    row_length: int | None = None
    """Tokens of a row, of which T is a multiple; sequences end where a row does.  None: packed, without rows."""
    is_sequence: np.ndarray | None = None
    """bool (B,), False at slots that are empty or padding, and in what stands in for a rank that has no sequence; None:
    all are sequences."""

    @property
    def num_tokens(self) -> int:
        """Real tokens: T without padding."""
        if self.is_sequence is None:
            return len(self.input_ids)
        return int(np.diff(self.cu_seqlens)[self.is_sequence].sum())

    @property
    def num_sequences(self) -> int:
        """Real sequences: B without empty slots and padding."""
        return len(self.cu_seqlens) - 1 if self.is_sequence is None else int(np.count_nonzero(self.is_sequence))

    @property
    def num_masked(self) -> int:
        """Masked tokens: the denominator of the masked-LM loss."""
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))

    @property
    def num_pairs(self) -> int:
        """Next-sentence labels: the denominator of the next-sentence loss."""
        labels = self.next_sentence_labels
        return 0 if labels is None else int(np.count_nonzero(labels != IGNORED_LABEL))
