"""The features of a task's parts, read once each, through the cache."""

import logging

from bert_pytorch.errors import InputError
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.runtime.distributed import World
from bert_pytorch.tasks.features import Features, cached_features, default_cache
from bert_pytorch.tasks.task import TRAIN, Task

logger = logging.getLogger(__name__)


class Parts:
    """Features by part, the same on every rank.

    Args:
        task: makes them.
        config: says which are needed, and where they are kept.
    """

    def __init__(self, task: Task, config: FinetuningConfig) -> None:
        self._task = task
        self._cache = None if config.skip_cache else config.cache_dir or default_cache()
        wanted = (
            *([TRAIN] if config.do_train else []),
            *(task.eval_parts if config.do_eval else ()),
            *(task.predict_parts if config.do_predict else ()),
        )
        self._names = tuple(dict.fromkeys(wanted))
        self._features: dict[str, Features] = {}

    def __getitem__(self, part: str) -> Features:
        """Return the features of a part that is needed, once they are read."""
        return self._features[part]

    def read_all(self, world: World) -> None:
        """Read every part that is needed; all ranks call this together, and rank 0 fills the cache for the others.

        Raises:
            InputError: if a part's file cannot be used, or has nothing in it.
        """
        if self._cache is not None:
            world.on_first(self._read_all)
        world.together(self._read_all)
        for part, features in self._features.items():
            logger.info(
                "%s: %s examples, %s sequences of %.0f tokens on average",
                part,
                f"{features.examples[-1] + 1:,}",
                f"{len(features.examples):,}",
                features.lengths.mean(),
            )

    def _read_all(self) -> None:
        for part in self._names:
            if part in self._features:
                continue
            key = {"part": part, **self._task.cache_key(part)}
            features = cached_features(self._cache, key, lambda part=part: self._task.features(part))  # type: ignore[misc]
            if not len(features.examples):
                raise InputError(f"the {part} file has no examples. Name a file that has some.")
            self._features[part] = features
