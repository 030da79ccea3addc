"""Model FLOPs: against torch's own counter on the shipped model, and against the figures of BERT's sizes by hand."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.flops import BatchWork, linear_products, training_flops
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.modernbert import heads_of
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MicroBatch
from tests.support.architectures import config_of
from tests.support.packed_batches import random_micro_batch, small_config

VOCABULARY = 208  # a multiple of 8: the model pads others, which the formula does not count


def all_masked(lengths: list[int], *, pairs: bool) -> MicroBatch:
    """Make a batch in which no exact shortcut saves anything: every token is predicted."""
    return random_micro_batch(lengths, VOCABULARY, pairs=pairs, masked_fraction=1.0)


def counted(model: PretrainingModel, batch: MicroBatch) -> int:
    """Count the products of a forward and a backward pass as they happen."""
    model.prunes_last_layer = False  # [CLS] would be computed twice: as a masked token, and for its pair
    with FlopCounterMode(display=False) as counter:
        terms = model(PackedBatch.from_numpy(batch, "cpu"))
        loss = terms.mlm_loss_sum if terms.nsp_loss_sum is None else terms.mlm_loss_sum + terms.nsp_loss_sum
        loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("lengths", [[24], [24, 24, 24], [1, 1]])
def test_the_formula_is_what_torch_counts_in_a_training_step_without_padding(lengths: list[int], pairs: bool) -> None:
    config = small_config(vocab_size=VOCABULARY, next_sentence=pairs)
    batch = all_masked(lengths, pairs=pairs)
    model = BertForPreTraining(config, attention="reference")
    assert training_flops(config, BatchWork.of(batch)) == counted(model, batch)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "mosaic_bert"])
def test_the_formula_holds_for_other_architectures(name: str) -> None:
    config = config_of(name).model_copy(update={"vocab_size": VOCABULARY})
    model = build_model(config, attention="reference")
    batch = all_masked([24, 24], pairs=False)
    assert training_flops(config, BatchWork.of(batch)) == counted(model, batch)


@pytest.mark.parametrize("lengths", [[1], [5], [24, 3, 9]])
def test_a_layer_with_a_window_needs_the_pairs_that_its_mask_shows(lengths: list[int]) -> None:
    config = config_of("modernbert").model_copy(update={"vocab_size": VOCABULARY})
    everything = config.model_copy(update={"global_attn_every_n_layers": 1})
    seen = 0
    for index in range(config.num_hidden_layers):
        pattern = heads_of(config, index).pattern
        for length in lengths:
            distances = (torch.arange(length).unsqueeze(1) - torch.arange(length)).abs().unsqueeze(0)
            mask = pattern.mask(distances, None, torch.float32)
            seen += length * length if mask is None else int(mask.sum())
    hidden_pairs = config.num_hidden_layers * sum(length * length for length in lengths) - seen
    work = BatchWork(np.asarray(lengths), 2)
    saved = training_flops(everything, work) - training_flops(config, work)
    assert saved == 3 * 2 * 2 * config.hidden_size * hidden_pairs


def test_a_batch_of_several_lengths_needs_what_its_sequences_need_one_by_one() -> None:
    config, lengths = small_config(vocab_size=VOCABULARY), [5, 40, 17]
    model = BertForPreTraining(config, attention="reference")
    alone = sum(counted(model, all_masked([length], pairs=True)) for length in lengths)
    assert training_flops(config, BatchWork.of(all_masked(lengths, pairs=True))) == alone


@pytest.mark.parametrize(
    ("name", "length", "masked", "encoder", "attention", "head"),
    [  # MFLOP a token, by hand: 72 L H², 12 L H s, 6 (H² + H V) m, with V 30522
        ("bert_base_uncased", 128, 20, 509.6, 14.2, 22.5),
        ("bert_base_uncased", 512, 76, 509.6, 56.6, 21.4),
        ("bert_large_uncased", 128, 20, 1811.9, 37.7, 30.3),
        ("bert_large_uncased", 512, 76, 1811.9, 151.0, 28.8),
    ],
)
def test_full_sequences_of_the_published_sizes_need_the_known_flops(
    name: str, length: int, masked: int, encoder: float, attention: float, head: float
) -> None:
    config = load_model_config(name).model_copy(update={"next_sentence": False})
    found = training_flops(config, BatchWork(np.full(64, length), 64 * masked)) / (64 * length) / 1e6
    assert found == pytest.approx(encoder + attention + head, abs=0.2)


def test_the_next_sentence_task_costs_a_pooler_and_two_scores_a_sequence() -> None:
    config, work = small_config(), BatchWork(np.asarray([9, 30]), 4)
    without = config.model_copy(update={"next_sentence": False})
    assert training_flops(config, work) - training_flops(without, work) == 3 * 2 * 2 * (64 * 64 + 64 * 2)


def test_padding_and_empty_slots_of_fixed_rows_are_no_work() -> None:
    packed = random_micro_batch([7, 12, 3])
    places = RowPlaces(np.asarray([0, 1, 0]), np.asarray([0, 0, 1]))
    fixed = lay_in_rows(packed, places, RowShape(rows=3, length=16, slots=2, masked_per_row=11, pad_id=0))
    assert len(fixed.input_ids) == 48
    assert training_flops(small_config(), BatchWork.of(fixed)) == training_flops(small_config(), BatchWork.of(packed))


def test_the_linear_products_are_those_of_the_model() -> None:
    config = small_config(vocab_size=VOCABULARY)
    shapes = sorted((product.columns, product.inner) for product in linear_products(config, 10, 2))
    joined = [(3 * 64, 64), (64, 64), (96, 64), (64, 96), (64, 64), (VOCABULARY, 64)]
    assert shapes == sorted(joined)
