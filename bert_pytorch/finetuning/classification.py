"""`run_classifier.py`: the engine with classification of a person's own texts."""

from collections.abc import Iterator

from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.main import main_of
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.tasks.classification.config import ClassificationConfig
from bert_pytorch.tasks.classification.task import WRITES, ClassificationTask
from bert_pytorch.tasks.task import Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

PROGRAM = "run_classifier.py"
DESCRIPTION = "Fine-tune a classifier on your own texts, evaluate it, predict with it."


class ClassifierConfig(ClassificationConfig, FinetuningConfig):
    """All keys of `run_classifier.py`."""

    plots: bool = True
    """Draw curves.png."""

    def combination_problems(self) -> Iterator[str]:
        """Say which file is missing."""
        yield from super().combination_problems()
        yield from self.missing_files(self.train_file, self.val_file, self.test_file)


def build(config: ClassifierConfig, tokenizer: Tokenizer, settled: Settled | None) -> ClassificationTask:
    """Make the task."""
    return ClassificationTask(config, tokenizer, config.max_seq_length, settled)


KIND = TaskKind("sequence_classification", build, WRITES)


def main() -> int:
    """Run the program; returns its exit code."""
    return main_of(ClassifierConfig, KIND, program=PROGRAM, description=DESCRIPTION)
