"""How text is read and cut to sequences."""

from pydantic import Field

from bert_pytorch.config.settings import Settings


class TextConfig(Settings):
    """Keys that matter where --input_dir or --eval_dir is text; shards say these things themselves."""

    max_seq_len: int | None = Field(None, ge=3, le=65535)
    """Tokens of a sequence at most, [CLS] and [SEP] included.  Needed for text (*.parquet, Hugging Face datasets), and
    only for text: shards have a length of their own.  A longer document becomes several sequences of about equal
    length."""
    text_column: str = "text"
    """Column of *.parquet files and Hugging Face datasets that holds the text, one document a row."""
