"""Vocabulary training: the same bytes every time, special tokens first, nothing unsplittable."""

import logging
import os
import subprocess
import sys

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.records import SPECIAL_TOKENS
from bert_pytorch.tokenization.training import train_wordpiece
from tests.support.data import REPOSITORY, real_texts

PROGRAM = """
from bert_pytorch.tokenization.training import train_wordpiece
from tests.support.data import real_texts
print(train_wordpiece(real_texts("inaugural", 8), 1500, True).sha256)
"""


def test_every_run_and_thread_count_gives_the_same_vocabulary() -> None:
    here = train_wordpiece(real_texts("inaugural", 8), 1500, lowercase=True).sha256
    for threads, hash_seed in (("1", "1"), ("2", "2"), ("4", "3")):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "PYTHONHASHSEED": hash_seed,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == here


def test_special_tokens_come_first_and_the_size_is_met() -> None:
    tokens = train_wordpiece(real_texts("inaugural", 8), 1500, lowercase=True).vocabulary.tokens
    assert tokens[:5] == SPECIAL_TOKENS
    assert len(tokens) == len(set(tokens)) == 1500
    assert not any(letter.isupper() for token in tokens[5:] for letter in token)


def test_a_cased_vocabulary_keeps_capitals() -> None:
    tokenizer = train_wordpiece(real_texts("inaugural", 8), 1500, lowercase=False)
    assert "Congress" in tokenizer.vocabulary.tokens
    assert tokenizer.vocabulary.lowercase is False


def test_its_own_text_needs_no_unknown_token() -> None:
    texts = real_texts("inaugural", 8)
    tokenizer = train_wordpiece(texts, 1500, lowercase=True)
    assert 1 not in tokenizer.encode_flat(texts).ids


def test_text_that_cannot_fill_the_size_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = train_wordpiece(["a cat and a cat"], 1000, lowercase=True)
    assert len(tokenizer.vocabulary.tokens) < 30
    assert f"only {len(tokenizer.vocabulary.tokens)} tokens of the 1000" in caplog.text


def test_a_tiny_size_keeps_the_commonest_characters() -> None:
    tokenizer = train_wordpiece(["aaaa aaaa bbb bbb z"], 9, lowercase=True)
    assert tokenizer.vocabulary.tokens == (*SPECIAL_TOKENS, "a", "b", "##a", "##b")


@pytest.mark.parametrize(("texts", "size"), [([], 100), (["", "  \n"], 100), (["some text"], 5)])
def test_no_text_or_no_room_is_refused(texts: list[str], size: int) -> None:
    with pytest.raises(InputError):
        train_wordpiece(texts, size, lowercase=True)
