"""`run_ner.py`: the engine with tagging of entities."""

from collections.abc import Iterator

from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.main import main_of
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.tasks.ner.config import NerConfig
from bert_pytorch.tasks.ner.task import TEST, VALIDATION, WRITES, NerTask
from bert_pytorch.tasks.task import TRAIN, Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

PROGRAM = "run_ner.py"
DESCRIPTION = "Fine-tune a model that finds entities in text, evaluate it, tag with it."


class NerRunConfig(NerConfig, FinetuningConfig):
    """All keys of `run_ner.py`."""

    def combination_problems(self) -> Iterator[str]:
        """Say which file is missing."""
        yield from super().combination_problems()
        yield from self.missing_files(self.train_file, self.val_file, self.test_file)


def build(config: NerRunConfig, tokenizer: Tokenizer, settled: Settled | None) -> NerTask:
    """Make the task; files that are not used are not read."""
    files = {
        TRAIN: config.train_file if config.do_train else None,
        VALIDATION: config.val_file if config.do_eval else None,
        TEST: config.test_file if config.do_predict else None,
    }
    paths = {part: path for part, path in files.items() if path is not None}
    return NerTask(paths, tokenizer, config.max_seq_length, config.labels, settled)


KIND = TaskKind("token_classification", build, WRITES)


def main() -> int:
    """Run the program; returns its exit code."""
    return main_of(NerRunConfig, KIND, program=PROGRAM, description=DESCRIPTION)
