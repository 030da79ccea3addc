"""BERT-tiny on text that every Python carries, small enough to train many times."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from bert_pytorch.corpus.__main__ import main as corpus
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.held_out import EvaluationLoader
from bert_pytorch.data.loader import TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.files import exclusive_lock
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss
from bert_pytorch.quickstart import standard_library_text
from bert_pytorch.training.objective import PretrainingObjective

LENGTH, SEQUENCES, VOCABULARY = 64, 64, 2048
HELD_OUT_BATCHES = 8


class TextProblem:
    """Masked tokens and pairs, without dropout; the same batches in the same order for all.

    Args:
        work: folder where the corpus is built at the first call.
    """

    evaluation_interval = 20
    weight_decay = 0.01
    flags: dict[str, float] = {"kfac_factor_interval": 5, "kfac_inv_interval": 5, "kfac_stat_decay": 0.5}  # noqa: RUF012

    def __init__(self, work: Path) -> None:
        folder = _corpus(work)
        self._config = DataConfig(
            input_dir=(str(folder),), global_batch_size=SEQUENCES, local_batch_size=SEQUENCES, seed=1, num_workers=0
        )
        self._parts = {
            split: open_corpora(self._config.input_dir, split, self._config, None, lowercase=True)
            for split in ("train", "eval")
        }
        vocabulary = self._parts["train"].vocabulary
        assert vocabulary is not None
        self._shape = load_model_config("bert_tiny_uncased").model_copy(
            update={"vocab_size": len(vocabulary.tokens), "hidden_dropout_prob": 0.0}
        )
        self._makers = {
            split: BatchMaker(part, vocabulary, policy_for(self._config, vocabulary), next_sentence=True)
            for split, part in self._parts.items()
        }
        batches = iter(EvaluationLoader(self._makers["eval"], self._config))
        self._held_out = [batch for batch, _ in zip(batches, range(HELD_OUT_BATCHES), strict=False)]
        self._objective = PretrainingObjective(EachLoss(mlm=1.0, nsp=1.0, soft_targets=0.0, cosine=0.0))

    def model(self, seed: int) -> nn.Module:
        """Begin with the weights of a seed."""
        return build_model(self._shape, seed=seed).train()

    def updates(self, seed: int) -> Iterator[tuple[float, Callable[[nn.Module], torch.Tensor]]]:
        """Yield what each update's loss is a mean over, and the loss."""
        config = self._config.model_copy(update={"seed": seed})
        for update in TrainingLoader(self._makers["train"], config).stream(0):
            (batch,) = update.micro_batches
            counts, packed = self._objective.counts(batch), PackedBatch.from_numpy(batch, "cpu")
            yield (
                counts[0],
                lambda model, packed=packed, counts=counts: self._objective.share_of_loss(model(packed), counts),
            )

    @torch.inference_mode()
    def loss(self, model: nn.Module) -> float:
        """Return the held-out masked-LM loss in nats a token."""
        model.eval()
        total = sum(float(model(PackedBatch.from_numpy(batch, "cpu")).mlm_loss_sum) for batch in self._held_out)
        model.train()
        return total / sum(batch.num_masked for batch in self._held_out)


def _corpus(work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    folder = work / "encoded" / f"sequences_lowercase_max_seq_len_{LENGTH}_next_seq_task_true"
    with exclusive_lock(work, "benchmarks"):
        if not (work / "complete").exists():
            text = work / "text.jsonl"
            text.write_text("".join(json.dumps({"title": k, "text": v}) + "\n" for k, v in standard_library_text()))
            _run("format", "--input", text, "--output", work / "formatted")
            _run("vocab", "--input", work / "formatted", "--output", work / "vocab.txt", "--vocab_size", VOCABULARY)
            _run(
                *("encode", "--input", work / "formatted", "--output", work / "encoded", "--max_seq_len", LENGTH),
                *("--vocab_file", work / "vocab.txt", "--eval_fraction", 0.05, "--seed", 1),
            )
            (work / "complete").touch()
    return folder


def _run(*words: object) -> None:
    with contextlib.redirect_stdout(None):
        if corpus([str(word) for word in words]):
            raise SystemExit("error: the corpus could not be built.")
