"""Files of Hugging Face datasets and models: which ones make up what a person asked for.

The hub converts most datasets to Parquet, `{config}/{split}/0000.parquet` on the branch `refs/convert/parquet`; of
those above 5 GB only the beginning, in `{config}/partial-{split}` (huggingface.co/docs/dataset-viewer/parquet).  A part
is never taken for the whole: then the dataset's own files count, assigned as its card says, else by their names.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from bert_pytorch.downloads.hub_api import HubRevision, hub_repository, hub_revision, hub_tree
from bert_pytorch.errors import InputError
from bert_pytorch.remote.errors import NotThere
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.paths import refuse_unsafe_paths

Offer = dict[str, dict[str, list[RemoteFile]]]
"""Files by config and split; none where only a part was converted."""

ALL_SPLITS = "all"
CONVERTED = "refs/convert/parquet"

_DATA_FILE = re.compile(r"\.((?:txt|jsonl|csv|tsv|parquet)(?:\.(?:gz|bz2|zst))?|json\.(?:gz|bz2|zst))$")
"""What `corpus format` reads; not plain .json, which is metadata more often than text."""
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SPLIT_NAMES, key=len, reverse=True))})(?![a-z])")

_MODEL_FILES = (
    *("config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_log = logging.getLogger(__name__)


def hub_dataset_files(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    patterns: Sequence[str] = (),
    mirror: str | None = None,
) -> list[RemoteFile]:
    """Return the files of a dataset, sorted by path, pinned to today's commit.

    Args:
        name: `owner/name`.
        config: also called subset; may be left out where there is one, or one is the default.
        split: `train`, another, or `all`.
        revision: branch, tag or commit of the dataset's own files; None takes the Parquet conversion where it is whole.
        patterns: globs such as `en/*.json.gz` (`**` for any folders) of the dataset's own files, instead of all choice
            by config and split.
        mirror: address of another hub, which is never sent $HF_TOKEN.

    Raises:
        InputError: for a config or split that is not there, listing those that are.
        NotThere: no such dataset or revision, or no file of a kind that we read.
        Refused: private or gated; says how to get access.
        TransferInterrupted: no connection; says how to provide the files by hand.
    """
    repository = hub_repository("datasets", name, mirror)
    own = hub_revision(repository, revision or "main")
    if patterns:
        tree = hub_tree(own)
        chosen = [file for path, file in tree.items() if any(_matches(path, pattern) for pattern in patterns)]
        if not chosen:
            raise NotThere(
                f"{name}: none of its {len(tree)} files match {', '.join(patterns)}. It holds {_some(tree)}."
            )
    else:
        offer = _converted(own) if revision is None else {}
        if not _is_whole(offer, _config_of(offer, config, own), split):
            offer = _merged(offer, own)
        chosen = _choose(offer, config, split, own)
    refuse_unsafe_paths([file.path for file in chosen], name)
    return sorted(chosen, key=lambda file: file.path)


def hub_model_files(name: str, revision: str = "main", mirror: str | None = None) -> list[RemoteFile]:
    """Return configuration, vocabulary and weights of a model; `pytorch_model.bin` only where no safetensors are.

    Raises:
        NotThere, Refused, TransferInterrupted: as `hub_dataset_files`.
    """
    tree = hub_tree(hub_revision(hub_repository("models", name, mirror), revision))
    weights = next((file for file in _WEIGHTS if file in tree), None)
    if weights is None or "config.json" not in tree:
        missing = "config.json" if weights else " and no ".join(_WEIGHTS)
        raise NotThere(f"{name}: has no {missing}; it holds {_some(tree)}. Choose a model with PyTorch weights.")
    return [tree[path] for path in (*_MODEL_FILES, weights) if path in tree]


def _converted(own: HubRevision) -> Offer:
    try:
        tree = hub_tree(hub_revision(own.repository, CONVERTED))
    except NotThere:
        return {}
    offer: Offer = {}
    for path, file in tree.items():
        parts = path.split("/")
        if len(parts) == 3 and path.endswith(".parquet"):
            split = re.sub(r"-part\d+$", "", parts[1])  # folders of more than 10 000 files are divided
            whole = split.removeprefix("partial-")
            files = offer.setdefault(parts[0], {}).setdefault(whole, [])
            if whole == split:
                files.append(file)
    return offer


def _merged(converted: Offer, own: HubRevision) -> Offer:
    """Add the dataset's own files where the conversion has none."""
    tree = hub_tree(own)
    added = _by_card(own, tree)
    if not added and not any(files for splits in converted.values() for files in splits.values()):
        added = {"default": _by_name(own, tree)}
    offer: Offer = {}
    for source in (added, converted):
        for config, splits in source.items():
            kept = offer.setdefault(config, {})
            kept.update({split: files for split, files in splits.items() if files or split not in kept})
    return {config: splits for config, splits in offer.items() if splits}


def _by_card(own: HubRevision, tree: dict[str, RemoteFile]) -> Offer:
    offer: Offer = {}
    for name, config in _described_configs(own):
        for split, pattern in _described_files(config):
            if files := [file for path, file in tree.items() if _matches(path, pattern)]:
                offer.setdefault(name, {}).setdefault(split, []).extend(files)
    return offer


def _described_configs(own: HubRevision) -> list[tuple[str, dict[str, Any]]]:
    configs = own.card.get("configs")
    described = [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []
    return [(name, config) for config in described if isinstance(name := config.get("config_name"), str)]


def _described_files(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (split, glob) of one of a card's `configs` (huggingface.co/docs/hub/datasets-manual-configuration)."""
    folder = config.get("data_dir")
    prefix = f"{folder.strip('/')}/" if isinstance(folder, str) and folder.strip("/") else ""
    described = config.get("data_files", "**" if prefix else None)
    if isinstance(described, dict):
        described = [{"split": split, "path": path} for split, path in described.items()]
    for entry in described if isinstance(described, list) else [described]:
        split, globs = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        for glob in globs if isinstance(globs, list) else [globs]:
            if isinstance(split, str) and isinstance(glob, str):
                yield split, prefix + glob


def _by_name(own: HubRevision, tree: dict[str, RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Assign files to splits as the `datasets` library does without a card: by words in names, else to train."""
    found = {path: ending[1] for path in tree if (ending := _DATA_FILE.search(path))}
    kinds = Counter(found.values())
    if len(kinds) > 1:
        _log.info("%s: holds files of several kinds, %s; taking the first.", own.repository.name, kinds.most_common())
    splits: dict[str, list[RemoteFile]] = {}
    for path, kind in found.items():
        if kind == kinds.most_common(1)[0][0]:  # another is mostly the same text again, or a list of requirements
            folder, _, last = path.lower().rpartition("/")
            word = _SPLIT_IN_NAME.search(last) or _SPLIT_IN_NAME.search(folder)
            splits.setdefault(_SPLIT_NAMES[word[1]] if word else "train", []).append(tree[path])
    return splits


def _config_of(offer: Offer, config: str | None, own: HubRevision) -> str | None:
    """Return the config that is meant, None where that is not clear."""
    if config is not None:
        return config if config in offer else None
    described = _described_configs(own)
    known = {*offer, *(name for name, _ in described)}  # some configs may have failed to be converted
    candidates = [*(name for name, entry in described if entry.get("default") is True), "default"]
    return next((name for name in [*candidates, *(known if len(known) == 1 else ())] if name in offer), None)


def _is_whole(offer: Offer, config: str | None, split: str) -> bool:
    splits = offer.get(config, {}) if config is not None else {}
    return bool(splits) and all(splits.values() if split == ALL_SPLITS else [splits.get(split)])


def _choose(offer: Offer, config: str | None, split: str, own: HubRevision) -> list[RemoteFile]:
    name = own.repository.name
    if not offer:
        raise NotThere(
            f"{name}: no Parquet conversion, and no files of a kind that is read here (.txt .jsonl .json.gz .csv .tsv "
            ".parquet). Choose its files with patterns, or another dataset."
        )
    chosen = _config_of(offer, config, own)
    if chosen is None:
        problem = "has several configs" if config is None else f"has no config {config!r}"
        raise InputError(f"{name}: {problem}; choose one of {_some(offer)}.")
    splits = offer[chosen]
    if split != ALL_SPLITS and split not in splits:
        raise InputError(f"{name}: config {chosen!r} has no split {split!r}; choose one of {_some(splits)}, or all.")
    if not _is_whole(offer, chosen, split):
        raise InputError(
            f"{name}: only the first 5 GB of config {chosen!r}, split {split!r}, are converted to Parquet, and its own "
            "files are not described. Choose them with patterns."
        )
    wanted = splits.values() if split == ALL_SPLITS else [splits[split]]
    return list({file.path: file for files in wanted for file in files}.values())


def _matches(path: str, pattern: str) -> bool:
    """Whether a glob, or the plain name of a folder, covers `path`; `*` stays within a name, `**` is any folders.

    Takes time linear in the path: patterns come from strangers.
    """
    plain = pattern.removeprefix("./").strip("/")
    if not re.search(r"[*?\[]", plain):
        return f"{path}/".startswith(f"{plain}/")
    globs = [*plain.split("/"), *(["*"] if plain.split("/")[-1] == "**" else [])]  # files below, at any depth
    reached = _with_none_of(globs, {0})
    for name in path.split("/"):
        stays = {at for at in reached if globs[at : at + 1] == ["**"]}
        onward = {at + 1 for at in reached if at < len(globs) and fnmatchcase(name, globs[at])}
        reached = _with_none_of(globs, stays | onward)
    return len(globs) in reached


def _with_none_of(globs: list[str], reached: set[int]) -> set[int]:
    """Add the places behind each `**` reached, which may stand for no folder at all."""
    for at in sorted(reached):
        while at < len(globs) and globs[at] == "**":
            at += 1
            reached.add(at)
    return reached


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return (", ".join(listed[:20]) or "nothing") + more
