"""A set and what `corpus pack` made of it: one loss and one gradient over an epoch, in either form of micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bert_pytorch.corpus.packing import PackConfig, pack
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import vocabulary_text
from tests.support.packed_batches import small_config
from tests.support.sequence_rows import WORDS, make_rows, split_rows


def epoch(folder: Path, **values: Any) -> list[Tensor]:
    """Return the loss sums of one epoch of 60 sequences and the gradients of all parameters, float64."""
    config = DataConfig(input_dir=(str(folder),), global_batch_size=60, masked_token_fraction=0.5, **values)
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    loader = TrainingLoader(BatchMaker(corpora, WORDS, policy_for(config, WORDS), next_sentence=True), config)
    update = loader.update_at(0)
    assert (update.num_pairs, update.epoch) == (60, 0)
    model = BertForPreTraining(small_config(vocab_size=len(WORDS.tokens)), seed=3).double()
    mlm = nsp = torch.zeros((), dtype=torch.float64)
    for batch in update.micro_batches:
        terms = model(PackedBatch.from_numpy(batch, "cpu"))
        assert terms.nsp_loss_sum is not None
        mlm, nsp = mlm + terms.mlm_loss_sum, nsp + terms.nsp_loss_sum
    (mlm + nsp).backward()
    return [mlm.detach(), nsp.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("slots", [3, 8])
def test_a_packed_set_trains_to_the_loss_and_gradients_of_the_set_it_was_made_of(slots: int, tmp_path: Path) -> None:
    rows = make_rows(60, 40, slots=4)
    for number, (start, stop) in enumerate([(0, 37), (37, 60)]):
        write_shard(tmp_path / f"set/train_{number}.hdf5", split_rows(rows, start, stop), {})
    (tmp_path / "set/vocab.txt").write_text(vocabulary_text(WORDS))
    packed = pack(
        PackConfig(input=tmp_path / "set", output=tmp_path / "packed", processes=1, max_sequences_per_pack=slots)
    )
    wanted = epoch(tmp_path / "set", local_batch_size=7)
    largest = max(gradient.abs().max().item() for gradient in wanted[2:])
    for found in (epoch(packed, local_batch_size=11), epoch(packed, packing="rows", local_batch_size=5)):
        for one, other in zip(found, wanted, strict=True):
            scale = max(other.abs().max().item(), 1e-6 * largest)
            assert (one - other).abs().max().item() <= 1e-9 * scale
