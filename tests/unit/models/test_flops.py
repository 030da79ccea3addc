"""Model FLOPs: against torch's own counter on the shipped model, and against the figures of BERT's sizes by hand."""

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.flops import BatchWork, linear_products, training_flops
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MicroBatch
from tests.support.architectures import ARCHITECTURES, config_of
from tests.support.packed_batches import random_micro_batch, small_config

VOCABULARY = 208  # a multiple of 8: the model pads others, which the formula does not count


def all_masked(lengths: list[int], *, pairs: bool) -> MicroBatch:
    """Make a batch in which no exact shortcut saves anything: every token is predicted."""
    return random_micro_batch(lengths, VOCABULARY, pairs=pairs, masked_fraction=1.0)


def counted(model: PretrainingModel, batch: MicroBatch) -> int:
    """Count the products of a forward and a backward pass as they happen, with the whole last layer."""
    model.prunes_last_layer = False
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
    model = build_model(config, attention="reference")
    assert training_flops(config, BatchWork.of(batch)) == counted(model, batch)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_formula_holds_for_every_architecture_where_all_tokens_see_each_other(name: str) -> None:
    config = config_of(name, vocab_size=VOCABULARY)
    batch = all_masked([4, 4, 4], pairs=config.next_sentence)  # not longer than any window
    assert training_flops(config, BatchWork.of(batch)) == counted(build_model(config, attention="reference"), batch)


def test_a_window_leaves_out_the_pairs_that_it_hides() -> None:
    lengths = np.asarray([1, 3, 4, 5, 40])
    local = config_of("modernbert")  # two of its four layers see 3 tokens to either side
    without = local.model_copy(update={"local_attention": 1000})
    hidden = sum(abs(query - key) > 3 for length in lengths for query in range(length) for key in range(length))
    saved = training_flops(without, BatchWork(lengths, 0)) - training_flops(local, BatchWork(lengths, 0))
    assert saved == 3 * 2 * (2 * 2 * 64 * hidden)


def test_a_batch_of_several_lengths_needs_what_its_sequences_need_one_by_one() -> None:
    config, lengths = small_config(vocab_size=VOCABULARY), [5, 40, 17]
    model = build_model(config, attention="reference")
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
