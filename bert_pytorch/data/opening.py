"""Opening what `--input_dir` and `--eval_dir` name, whatever it is."""

from collections.abc import Iterable
from pathlib import Path

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora, RowSource
from bert_pytorch.data.remote import has_held_out, is_remote, open_remote_shards
from bert_pytorch.data.texts.config import TextConfig
from bert_pytorch.data.texts.finding import find_text_files, is_divided, is_text
from bert_pytorch.data.texts.token_set import open_texts
from bert_pytorch.errors import ConfigError
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.opening import Split, find_shards, open_shards


def open_corpora(
    names: tuple[str, ...], split: Split, config: DataConfig, vocabulary: Vocabulary | None, *, lowercase: bool
) -> Corpora:
    """Open corpora of one part.

    Args:
        names: files, folders or s3:// addresses, of shards or text, as `--input_dir` takes them.
        split: which part.
        config: what to do with damaged shards, and how remote ones are fetched.
        vocabulary: used instead of those beside the corpora; text needs it.
        lowercase: casing of a vocab.txt that does not tell its own.

    Raises:
        InputError: if one cannot be used, or they do not belong together.
        ConfigError: if text lacks a vocabulary or a length.
    """
    return Corpora([_open(name, split, config, vocabulary, lowercase) for name in names], names)


def held_out_beside(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the training corpora that have a held-out part."""
    return tuple(
        name
        for name in names
        if (has_held_out(name) if is_remote(name) else Path(name).is_dir() and _has_held_out(Path(name)))
    )


def text_among(names: Iterable[str]) -> list[str]:
    """Return those names that stand for text, which a first start tokenizes.

    Raises:
        InputError: if one is text of a kind that is not read, or both text and shards.
    """
    return [name for name in names if not is_remote(name) and is_text(Path(name))]


def refuse_needless_text_options(names: Iterable[str], config: DataConfig) -> None:
    """Refuse options that only text heeds where there is none.

    Args:
        names: all that the run opens.
        config: of the run.

    Raises:
        ConfigError: naming them.
    """
    given = [f"--{name}" for name in TextConfig.model_fields if name in config.model_fields_set]
    if given and not text_among(names):
        problem = "the data are shards, which were made with a length and of a text; leave it out."
        raise ConfigError(" ".join(given), [problem])


def _has_held_out(folder: Path) -> bool:
    if not is_text(folder):
        return bool(find_shards(folder, "eval"))
    return is_divided(folder) and bool(find_text_files(folder, "eval"))


def _open(name: str, split: Split, config: DataConfig, vocabulary: Vocabulary | None, lowercase: bool) -> RowSource:
    if is_remote(name):
        return open_remote_shards(
            name,
            split,
            vocabulary,
            otherwise_lowercase=lowercase,
            on_bad_shard=config.on_bad_shard,
            shuffle_window=config.shuffle_window if split == "train" else 0,
            threads=config.remote_prefetch,
        )
    if is_text(Path(name)):
        return open_texts(Path(name), split, config, vocabulary)
    return open_shards(Path(name), split, vocabulary, otherwise_lowercase=lowercase, on_bad_shard=config.on_bad_shard)
