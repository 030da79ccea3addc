"""`run_squad.py`: the engine with questions about passages."""

import logging
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.main import main_of
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.tasks.squad.answers import WRITES
from bert_pytorch.tasks.squad.config import EXPORTED_KEY, SquadConfig
from bert_pytorch.tasks.squad.task import SquadTask
from bert_pytorch.tasks.task import Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

PROGRAM = "run_squad.py"
DESCRIPTION = "Fine-tune on SQuAD 1.1 or 2.0, answer questions, and score the answers by the official definition."


class SquadRunConfig(SquadConfig, FinetuningConfig):
    """All keys of `run_squad.py`."""

    max_seq_length: int = Field(384, ge=8)
    """Tokens of a window at most: question, part of the passage and three special tokens."""
    renamed_flags: ClassVar[dict[str, str]] = {
        "amp": "--fp16",
        "loss_scale": "nothing: --fp16 scales the loss by itself",
    }

    def combination_problems(self) -> Iterator[str]:
        """Say which file is missing."""
        yield from super().combination_problems()
        if self.do_train and not self.train_file:
            yield "--train_file is missing: --do_train needs it, JSON of SQuAD's layout."
        if (self.do_eval or self.do_predict) and not self.predict_file:
            yield "--predict_file is missing: --do_eval and --do_predict need it, JSON of SQuAD's layout."


def build(config: SquadRunConfig, tokenizer: Tokenizer, settled: Settled | None) -> SquadTask:
    """Make the task; warns where it is not used as the model was."""
    trained = settled.exported.get(EXPORTED_KEY) if settled is not None else None
    if isinstance(trained, Mapping):
        for name in ("version_2_with_negative", "max_seq_length", "doc_stride"):
            if (before := trained.get(name)) not in (None, now := getattr(config, name)):
                logger.warning("--%s is %s; the model was trained with %s", name, now, before)
    return SquadTask(config, tokenizer, trains=config.do_train, evaluates=config.do_eval, predicts=config.do_predict)


KIND = TaskKind("question_answering", build, WRITES)


def main() -> int:
    """Run the program; returns its exit code."""
    return main_of(SquadRunConfig, KIND, program=PROGRAM, description=DESCRIPTION)
