"""Any encoder with the head of a task: classes of sequences, classes of tokens, answers in a passage.

Names are those of Hugging Face's BERT (`classifier`, `qa_outputs`); what other families compute before the last layer
stands in `bert.pooler`, where BERT has its own.
"""
# B sequences, T packed tokens, H hidden

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bert_pytorch.models.attending import AttendingModel
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.build import ARCHITECTURES
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.heads import Pooler, Transform
from bert_pytorch.models.initialization import initialize_weights
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.layers import Dropout, Linear

Task = Literal["sequence_classification", "token_classification", "question_answering"]


class TaskModel(AttendingModel):
    """An encoder and a task's head."""

    def __init__(
        self,
        config: ModelConfig,
        task: Task,
        num_labels: int = 2,
        vocab_size: int | None = None,
        attention: AttentionName = "auto",
        seed: int = 0,
    ) -> None:
        """Build and initialise the model.

        Args:
            config: of the encoder; `hidden_dropout_prob` holds before the last layer too, but for answers.
            task: what is scored.
            num_labels: classes, 1 for a number; question answering has 2, start and end.
            vocab_size: V, where it is not `config.vocab_size`.
            attention: as for `PretrainingModel`.
            seed: of the initial weights; on the meta device nothing is drawn.
        """
        super().__init__(config, vocab_size, attention)
        self.task: Task = task
        without_pairs = config.model_copy(update={"next_sentence": False})
        self.bert = ARCHITECTURES[config.model_type].encoder(without_pairs, self.vocab_size)
        self.bert.pooler = features_of(config, task)
        # Before the scores of answers BERT drops nothing (google-research/bert, run_squad.py, `create_model`).
        drops = task != "question_answering" or config.model_type == "distilbert"
        self.dropout = Dropout(config.hidden_dropout_prob if drops else 0.0)
        output = Linear(config.hidden_size, num_labels)
        self.classifier = None if task == "question_answering" else output
        self.qa_outputs = output if task == "question_answering" else None
        if not output.weight.is_meta:
            initialize_weights(self, seed)

    def take_pretrained(self, state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Load the weights of a `PretrainingModel` of the same shape, as far as they have a place here.

        Returns:
            Names that keep their initial values, those of the task's own layers.

        Raises:
            RuntimeError: if weights of the encoder are missing or of another shape.
        """
        given = {name: tensor for name, tensor in state_dict.items() if not name.startswith("cls.")}
        if self.config.model_type == "modernbert":  # its tasks begin with the masked-LM head's transformation
            part = "cls.predictions.transform."
            given |= {name.replace(part, "bert.pooler."): state_dict[name] for name in state_dict if part in name}
        own = self.state_dict()
        kept = {name: own[name] for name in own if not name.startswith("bert.") or ".pooler." in name}
        used = {name: tensor for name, tensor in given.items() if name in own or ".pooler." not in name}
        self.load_state_dict({**kept, **used})
        return tuple(name for name in kept if name not in used)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Score.

        Args:
            batch: T tokens of B sequences; what it says of masked tokens and pairs is not read.

        Returns:
            (B, labels) for sequences, of which the last layer computes the first tokens only, and any for empty slots;
            (T, labels) for tokens; (T, 2), start and end, for question answering.
        """
        firsts = batch.first_tokens if self.task == "sequence_classification" else None
        hidden = self.encode(batch, firsts)
        if self.bert.pooler is not None:
            hidden = self.bert.pooler(hidden)
        output = self.qa_outputs if self.classifier is None else self.classifier
        assert output is not None
        scores: Tensor = output(self.dropout(hidden))
        return scores


def features_of(config: ModelConfig, task: Task) -> nn.Module | None:
    """Return what a family computes between the encoder and the last layer of a task's head."""
    if config.model_type == "modernbert":
        return Transform(config, "gelu", bias=False)
    if task != "sequence_classification":
        return None
    return Pooler(config, F.relu) if config.model_type == "distilbert" else Pooler(config)
