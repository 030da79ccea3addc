"""Configuration of SQuAD: files, windows and answers."""

from pathlib import Path

from bert_pytorch.tasks.squad.answers import AnswerConfig
from bert_pytorch.tasks.squad.windows import WindowConfig


class SquadConfig(WindowConfig, AnswerConfig):
    """Keys of SQuAD; those of NVIDIA's run_squad.py."""

    train_file: tuple[Path, ...] = ()
    """JSON files of SQuAD's layout to learn from; needed for --do_train."""
    predict_file: tuple[Path, ...] = ()
    """JSON files of SQuAD's layout to answer; needed for --do_eval and --do_predict."""
    verbose_logging: bool = False
    """Name every question that cannot be trained on, not only the first."""
