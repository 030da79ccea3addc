"""A vocabulary that has grown: what is old stays as it was, what is new starts as the mean of its pieces."""

from pathlib import Path

import pytest
import torch

from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.huggingface import export_huggingface, load_huggingface
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.pretraining.growth import spelling
from bert_pytorch.pretraining.weights import put_initial_weights
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer
from bert_pytorch.vocabulary import extends
from tests.support.data import shared_data
from tests.support.packed_batches import random_batch, small_config
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)
NEW = ("theorem", "##theorem", "capitals", "\u03b1", "##\u03b1")
GROWN = VOCABULARY._replace(tokens=VOCABULARY.tokens + NEW)
WORDS, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"


@pytest.fixture
def given(tmp_path: Path) -> LoadedWeights:
    model = BertForPreTraining(small_config(vocab_size=V), seed=4)
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    export_huggingface(tmp_path, model.state_dict(), model.config, VOCABULARY)
    return load_huggingface(tmp_path)


def begun(given: LoadedWeights, vocabulary: Vocabulary) -> BertForPreTraining:
    model = BertForPreTraining(small_config(vocab_size=len(vocabulary.tokens)), seed=9).eval()
    put_initial_weights(model, given, Path("given"), vocabulary)
    return model


@torch.no_grad()
def test_old_text_is_computed_as_before(given: LoadedWeights) -> None:
    before, after = begun(given, VOCABULARY), begun(given, GROWN)
    batch = random_batch((5, 17, 9), V)
    hidden = after.encode(batch)
    assert torch.equal(hidden, before.encode(batch))
    scores = after.mlm_logits(hidden)
    assert scores.shape[1] == V + len(NEW)
    assert torch.allclose(scores[:, :V], before.mlm_logits(hidden), rtol=1e-6, atol=1e-6)


def test_new_rows_are_the_mean_of_the_pieces_and_padding_stays_zero(given: LoadedWeights) -> None:
    state = begun(given, GROWN).state_dict()
    pieces = [
        ["the", "##o", "##r", "##e", "##m"],
        ["##t", "##h", "##e", "##o", "##r", "##e", "##m"],
        ["capital", "##s"],
        VOCABULARY.tokens,  # a letter that could not be spelled
        VOCABULARY.tokens,
    ]
    for name in (WORDS, BIAS):
        old = given.state_dict[name][:V]
        for row, part in zip(state[name][V : V + len(NEW)], pieces, strict=True):
            wanted = torch.stack([old[VOCABULARY.tokens.index(piece)] for piece in part]).mean(0)
            assert torch.allclose(row, wanted, atol=1e-6)
    assert (state[WORDS][V + len(NEW) :] == 0).all()
    assert len(state[WORDS]) % 8 == 0


def test_an_encoder_without_a_head_grows_too(given: LoadedWeights) -> None:
    encoder = {name: tensor for name, tensor in given.state_dict.items() if name.startswith("bert.")}
    state = begun(given._replace(state_dict=encoder), GROWN).state_dict()
    assert torch.equal(state[WORDS][:V], given.state_dict[WORDS][:V])


def test_words_are_spelled_as_wordpiece_tokenizes_them() -> None:
    tokenizer = load_tokenizer(shared_data("vocab", "bert-base-uncased-vocab.txt"))
    ids = {token: index for index, token in enumerate(tokenizer.vocabulary.tokens)}
    for word in ("tachycardia", "unaffordable", "the", "kubernetes", "zzz"):
        assert spelling(word, ids, tokenizer.vocabulary) == tokenizer.encode_flat([word]).ids.tolist()
    assert spelling("##cardia", ids, tokenizer.vocabulary)[0] == ids["##card"]
    bpe = small_byte_bpe()
    ids = {token: index for index, token in enumerate(bpe.tokens)}
    assert spelling("\u0120theing", ids, bpe) == Tokenizer(bpe).encode_flat(["theing"]).ids.tolist()


@pytest.mark.parametrize(
    ("other", "continues"),
    [
        (VOCABULARY, True),
        (GROWN, True),
        (GROWN._replace(lowercase=False), False),
        (VOCABULARY._replace(tokens=VOCABULARY.tokens[:-1]), False),
        (VOCABULARY._replace(tokens=(*VOCABULARY.tokens[:-1], "other", "words")), False),
        (VOCABULARY._replace(tokens=(*VOCABULARY.tokens[:5], "other", *VOCABULARY.tokens[5:])), False),
        (small_byte_bpe(), False),
    ],
)
def test_only_the_same_tokens_in_the_same_places_are_an_extension(
    given: LoadedWeights, other: Vocabulary, continues: bool
) -> None:
    assert extends(other, VOCABULARY) == continues
    if not continues:
        with pytest.raises(ConfigError, match="corpus vocab --extend"):
            begun(given, other)


def test_merges_of_byte_level_bpe_must_continue_as_well() -> None:
    bpe = small_byte_bpe()
    merges = bpe.merges or ()
    tokens = (*bpe.tokens, "in")
    assert extends(bpe._replace(tokens=tokens, merges=(*merges, ("i", "n"))), bpe)
    assert not extends(bpe._replace(tokens=tokens, merges=(("i", "n"), *merges)), bpe)
