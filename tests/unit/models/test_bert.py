"""The packed model: sequences alone or together, heads, losses, padding rows (E2)."""

import pytest
import torch
from torch import Tensor

from bert_pytorch.errors import InputError
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.inputs import PackedBatch
from tests.support.packed_batches import random_batch, random_micro_batch, small_config

LENGTHS = (5, 17, 9, 33)


def gradients(model: BertForPreTraining, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def loss_of(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    terms = model(batch)
    return terms.mlm_loss_sum + terms.nsp_loss_sum


def sequence_of(batch: PackedBatch, index: int) -> PackedBatch:
    """Cut one sequence out of a batch."""
    start, stop = int(batch.cu_seqlens[index]), int(batch.cu_seqlens[index + 1])
    inside = (batch.masked_positions >= start) & (batch.masked_positions < stop)
    return PackedBatch(
        input_ids=batch.input_ids[start:stop],
        token_type_ids=batch.token_type_ids[start:stop],
        position_ids=batch.position_ids[start:stop],
        cu_seqlens=torch.tensor([0, stop - start], dtype=torch.int32),
        masked_positions=batch.masked_positions[inside] - start,
        labels=batch.labels[inside],
        next_sentence_labels=batch.next_sentence_labels[index : index + 1],
        lengths=(stop - start,),
    )


def test_packed_sequences_equal_each_sequence_alone() -> None:
    model = BertForPreTraining(small_config()).double()
    batch = random_batch(LENGTHS)
    alone = [sequence_of(batch, index) for index in range(len(LENGTHS))]
    assert sum(len(one.labels) for one in alone) == len(batch.labels)
    together = loss_of(model, batch)
    summed = torch.stack([loss_of(model, one) for one in alone]).sum()
    assert torch.allclose(together, summed, rtol=1e-12)
    hidden = torch.cat([model.encode(one) for one in alone])
    assert torch.allclose(model.encode(batch), hidden, rtol=1e-10, atol=1e-12)
    found, wanted = gradients(model, together), gradients(model, summed)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-8, atol=1e-10) for name in wanted)


def test_changing_one_sequence_leaves_the_others() -> None:
    model = BertForPreTraining(small_config())
    batch = random_batch(LENGTHS)
    changed_ids = batch.input_ids.clone()
    changed_ids[5:22] = (changed_ids[5:22] + 1) % 203  # the second sequence
    before, after = model.encode(batch), model.encode(batch._replace(input_ids=changed_ids))
    others = [*range(5), *range(22, 64)]
    assert torch.allclose(before[others], after[others], atol=1e-6)
    assert not torch.isclose(before[5:22], after[5:22], atol=1e-3).all(dim=1).any()


def test_head_on_masked_tokens_equals_head_on_all_tokens() -> None:
    model = BertForPreTraining(small_config()).double()
    batch = random_batch(LENGTHS, pairs=False)
    scores = model.mlm_logits(model.encode(batch))  # (T, V), the padding rows cut off
    every_label = torch.full_like(batch.input_ids, -100, dtype=torch.long)
    every_label[batch.masked_positions] = batch.labels
    full = torch.nn.functional.cross_entropy(scores, every_label, reduction="sum")
    model.bert.pooler = None  # not part of this comparison: without labels of pairs it gets no gradient
    model.cls.seq_relationship = None
    wanted = gradients(model, full)
    terms = model(batch)
    found = gradients(model, terms.mlm_loss_sum)
    assert torch.allclose(terms.mlm_loss_sum, full, rtol=1e-12)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9, atol=1e-11) for name in wanted)


def test_padding_rows_have_zero_gradient_and_never_change() -> None:
    model = BertForPreTraining(small_config())
    words = model.bert.embeddings.word_embeddings.weight
    assert words.shape == (208, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for seed in range(3):
        gradient = gradients(model, loss_of(model, random_batch(LENGTHS, seed=seed)))
        assert (gradient["bert.embeddings.word_embeddings.weight"][203:] == 0).all()
        assert (gradient["bert.embeddings.word_embeddings.weight"][:203].abs().sum(dim=1) > 0).all()
        optimizer.step()
    assert (words[203:] == 0).all()


@pytest.mark.parametrize("next_sentence", [True, False])
def test_no_masked_token_gives_every_parameter_a_zero_gradient(next_sentence: bool) -> None:
    model = BertForPreTraining(small_config(next_sentence=next_sentence))
    batch = random_batch(LENGTHS, pairs=next_sentence)
    terms = model(batch._replace(masked_positions=batch.masked_positions[:0], labels=batch.labels[:0]), True)
    assert terms.mlm_loss_sum == 0
    assert terms.mlm_correct == 0
    loss = terms.mlm_loss_sum if terms.nsp_loss_sum is None else terms.mlm_loss_sum + 0 * terms.nsp_loss_sum
    assert all((gradient == 0).all() for gradient in gradients(model, loss).values())


def test_a_batch_without_sequences_gives_every_parameter_a_zero_gradient() -> None:
    for attention in ("sdpa", "reference"):
        model = BertForPreTraining(small_config(), attention=attention)
        empty = random_batch((3,))
        batch = PackedBatch(*(tensor[:0] for tensor in empty[:3]), empty.cu_seqlens[:1], *(t[:0] for t in empty[4:8]))
        assert all((gradient == 0).all() for gradient in gradients(model, loss_of(model, batch)).values())


def test_without_next_sentence_there_is_no_pooler() -> None:
    model = BertForPreTraining(small_config(next_sentence=False))
    assert not [name for name, _ in model.named_parameters() if "pooler" in name or "seq_relationship" in name]
    terms = model(random_batch(LENGTHS), with_accuracy=True)
    assert terms.nsp_loss_sum is None
    assert terms.nsp_correct is None


def test_without_segments_token_types_do_not_matter() -> None:
    model = BertForPreTraining(small_config(type_vocab_size=0))
    batch = random_batch(LENGTHS)
    other = batch._replace(token_type_ids=1 - batch.token_type_ids)
    assert torch.equal(model.encode(batch), model.encode(other))
    assert not [name for name, _ in model.named_parameters() if "token_type" in name]


def test_counts_of_right_answers_are_those_of_the_scores() -> None:
    model = BertForPreTraining(small_config())
    batch = random_batch(LENGTHS)
    hidden = model.encode(batch)
    best = model.mlm_logits(hidden[batch.masked_positions]).argmax(1)
    labels = torch.where(torch.arange(len(best)) % 2 == 0, best, (best + 1) % 203)
    pairs = model.nsp_logits(hidden, batch.cu_seqlens).argmax(1)
    terms = model(batch._replace(labels=labels, next_sentence_labels=pairs), with_accuracy=True)
    assert terms.mlm_correct == (len(best) + 1) // 2
    assert terms.nsp_correct == len(pairs)
    assert terms.mlm_correct.dtype == torch.int64
    assert model(batch).mlm_correct is None


def test_recomputed_activations_give_the_same_gradients_with_dropout() -> None:
    model = BertForPreTraining(small_config(hidden_dropout_prob=0.3)).train()
    batch = random_batch(LENGTHS)
    results = []
    for recompute in (False, True):
        model.checkpoint_activations = recompute
        torch.manual_seed(3)
        results.append(gradients(model, loss_of(model, batch)))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_recomputing_keeps_fewer_tensors() -> None:
    model = BertForPreTraining(small_config(num_hidden_layers=6))
    kept = []
    for recompute in (False, True):
        model.checkpoint_activations = recompute
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, s=sizes: s.append(tensor.nbytes), lambda _: None):
            model(random_batch(LENGTHS))
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize("kind", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_acts_in_training_only(kind: str, attention: AttentionName) -> None:
    model = BertForPreTraining(small_config(**{kind: 0.5}), attention=attention)
    batch = random_batch(LENGTHS)
    assert not torch.equal(model.train().encode(batch), model.encode(batch))
    assert torch.equal(model.eval().encode(batch), model.encode(batch))


def test_fused_projections_equal_separate_ones() -> None:
    model = BertForPreTraining(small_config()).double()
    batch = random_batch(LENGTHS)
    fused = gradients(model, loss_of(model, batch))
    for layer in model.bert.encoder.layer:
        layer.attention.self.query.register_forward_hook(lambda *call: None)  # then each is called
    separate = gradients(model, loss_of(model, batch))
    assert all(torch.allclose(fused[name], separate[name], rtol=1e-10, atol=1e-12) for name in fused)


def test_losses_are_float32_under_bfloat16_autocast() -> None:
    model = BertForPreTraining(small_config())
    batch = random_batch(LENGTHS)
    wanted = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    assert found.mlm_loss_sum.dtype == found.nsp_loss_sum.dtype == torch.float32
    assert found.mlm_loss_sum != wanted.mlm_loss_sum
    assert torch.allclose(found.mlm_loss_sum, wanted.mlm_loss_sum, rtol=2e-2)  # bfloat16 has 8 bits of mantissa


def test_too_long_sequence_is_told_with_both_numbers() -> None:
    model = BertForPreTraining(small_config())
    with pytest.raises(InputError, match=r"41 tokens.* 40 positions"):
        model(random_batch((3, 41)))


def test_packed_batch_carries_a_micro_batch_unchanged() -> None:
    micro_batch = random_micro_batch(LENGTHS)
    batch = PackedBatch.from_numpy(micro_batch, torch.device("cpu"))
    assert batch.lengths == LENGTHS
    assert batch.max_seqlen == 33
    assert batch.row_length is None
    for name in micro_batch._fields[:7]:
        assert getattr(batch, name).numpy().tolist() == getattr(micro_batch, name).tolist()
    assert PackedBatch.from_numpy(random_micro_batch(LENGTHS, pairs=False), "cpu").next_sentence_labels is None
