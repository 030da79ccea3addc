"""Opening what `--input_dir` and `--eval_dir` name, whatever it is."""

from pathlib import Path

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora, RowSource
from bert_pytorch.data.remote import has_held_out, is_remote, open_remote_shards
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.opening import Split, find_shards, open_shards


def open_corpora(
    names: tuple[str, ...], split: Split, config: DataConfig, vocabulary: Vocabulary | None, *, lowercase: bool
) -> Corpora:
    """Open corpora of one part.

    Args:
        names: files, folders or s3:// addresses, as `--input_dir` takes them.
        split: which part.
        config: what to do with damaged shards, and how remote ones are fetched.
        vocabulary: used instead of those beside the corpora.
        lowercase: casing of a vocab.txt that does not tell its own.

    Raises:
        InputError: if one cannot be used, or they do not belong together.
    """
    return Corpora([_open(name, split, config, vocabulary, lowercase) for name in names], names)


def held_out_beside(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the training corpora that have a held-out part."""
    return tuple(
        name
        for name in names
        if (has_held_out(name) if is_remote(name) else Path(name).is_dir() and find_shards(Path(name), "eval"))
    )


def _open(name: str, split: Split, config: DataConfig, vocabulary: Vocabulary | None, lowercase: bool) -> RowSource:
    if is_remote(name):
        return open_remote_shards(
            name,
            split,
            vocabulary,
            otherwise_lowercase=lowercase,
            on_bad_shard=config.on_bad_shard,
            shuffle_window=config.shuffle_window if split == "train" else 1,  # held-out shards are read in their order
            threads=config.remote_prefetch,
        )
    return open_shards(Path(name), split, vocabulary, otherwise_lowercase=lowercase, on_bad_shard=config.on_bad_shard)
