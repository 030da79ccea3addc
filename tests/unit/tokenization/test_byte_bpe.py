"""Byte-level BPE: no text is lost, ids are those of transformers, and every file gives the same vocabulary."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.errors import InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer
from bert_pytorch.tokenization.training import train_byte_bpe
from bert_pytorch.vocabulary import byte_alphabet, read_vocabulary, vocabulary_sha256
from tests.support.data import REPOSITORY, real_texts, shared_data
from tests.support.vocabularies import small_byte_bpe
from tests.unit.tokenization.test_tokenizer import AWKWARD

SMALL = small_byte_bpe()

PROGRAM = """
from bert_pytorch.tokenization.training import train_byte_bpe
from tests.support.data import real_texts
lines = [line for text in real_texts("inaugural", 8) for line in text.split("\\n")]
print(train_byte_bpe(lines, 1500, False).sha256)
"""


def lines_of(texts: list[str]) -> list[str]:
    return [line for text in texts for line in text.split("\n")]


@pytest.fixture(scope="module", params=[(False, True), (False, False), (True, True)], ids=["cased", "bare", "uncased"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    lowercase, add_prefix_space = request.param
    return train_byte_bpe(lines_of(real_texts("inaugural", 8)), 1500, lowercase, add_prefix_space)


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save(tmp_path)
    return tmp_path


def test_vocabulary_begins_with_the_fixed_tokens_and_meets_the_size(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    assert vocabulary.tokens[:5] == ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert vocabulary.tokens[5:261] == byte_alphabet()
    assert len(set(vocabulary.tokens)) == 1500
    assert (vocabulary.pad_id, vocabulary.cls_id, vocabulary.sep_id) == (1, 0, 2)
    capitals = [token for token in vocabulary.tokens[261:] if re.search("[A-Z]", token)]
    assert vocabulary.lowercase == (not capitals)


def test_every_process_and_thread_count_gives_the_same_vocabulary() -> None:
    here = train_byte_bpe(lines_of(real_texts("inaugural", 8)), 1500, lowercase=False).sha256
    for threads, hash_seed in (("1", "1"), ("3", "2")):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "PYTHONHASHSEED": hash_seed,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == here


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.sampled_from(["<mask>", "<s> a </s>", "[MASK]", "  two  spaces ", *AWKWARD]))
def test_decoding_gives_the_text_back(text: str) -> None:
    for add_prefix_space in (False, True):
        vocabulary = SMALL._replace(add_prefix_space=add_prefix_space)
        ids = Tokenizer(vocabulary).encode_flat([text]).ids
        assert ids.min(initial=5) >= 5  # no special token comes out of a text
        assert Tokenizer(vocabulary).decode(ids) == (text.removeprefix(" ") if add_prefix_space else text)


def test_ids_equal_transformers_on_real_and_awkward_text(tokenizer: Tokenizer, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = [*lines_of(real_texts("state_union", 3) + real_texts("movie_reviews", 20)), *AWKWARD]
    texts += [shared_data("wikitext-2", "valid.txt").read_text(encoding="utf-8")[:100_000]]
    prompt = "The CAPITAL of Fran\u00e7e is <mask>. Is it <mask>?"
    ids, offsets = tokenizer.encode_flat(texts)
    references = [transformers.AutoTokenizer.from_pretrained(folder)]
    if not tokenizer.vocabulary.lowercase:  # which RobertaTokenizer knows nothing of
        prefix = tokenizer.vocabulary.add_prefix_space
        references.append(transformers.RobertaTokenizerFast.from_pretrained(folder, add_prefix_space=prefix))
    for reference in references:
        assert reference(prompt)["input_ids"] == tokenizer.encode_with_masks(prompt)
        assert (reference.mask_token_id, reference.pad_token_id, reference.cls_token_id) == (4, 1, 0)
        expected = reference(texts, add_special_tokens=False, split_special_tokens=True)  # "<unk>" is in them
        assert [ids[start:stop].tolist() for start, stop in pairwise(offsets)] == expected["input_ids"]


def test_pairs_are_laid_out_as_rows_are(tokenizer: Tokenizer, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pair = transformers.AutoTokenizer.from_pretrained(folder)("a", "b")
    a, b = (tokenizer.encode_flat([text]).ids.tolist() for text in "ab")
    assert pair["input_ids"] == [0, *a, 2, *b, 2]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_every_file_gives_the_same_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    wanted = tokenizer.vocabulary
    assert read_vocabulary(folder) == wanted
    for name in ("tokenizer.json", "vocab.txt", "vocab.json"):
        assert read_vocabulary(folder / name) == wanted
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    assert read_vocabulary(folder) == wanted  # RoBERTa's files
    (folder / "tokenizer_config.json").unlink()
    assert read_vocabulary(folder) == wanted._replace(lowercase=False, add_prefix_space=False)
    assert read_vocabulary(folder, lowercase=True).lowercase


def test_a_tokenizer_made_as_robertas_is_read_with_its_own_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = _moved_mask(SMALL)
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    assert vocabulary.merges is not None
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True, normalized=False)  # as in the published files
    made = transformers.RobertaTokenizer(vocab=ids, merges=list(vocabulary.merges), mask_token=mask)
    made.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()
    ours = load_tokenizer(tmp_path)
    assert ours.vocabulary == vocabulary._replace(add_prefix_space=False)
    assert ours.vocabulary.mask_id == len(ids) - 1
    for text in (*AWKWARD, "Fellow <mask> citizens"):
        assert ours.encode_with_masks(text) == made(text)["input_ids"]


def test_sha256_covers_merges_and_the_prefix_space() -> None:
    assert SMALL.merges is not None
    others = [SMALL._replace(add_prefix_space=not SMALL.add_prefix_space), SMALL._replace(merges=SMALL.merges[:-1])]
    assert len({vocabulary_sha256(vocabulary) for vocabulary in (SMALL, *others)}) == 3
    assert vocabulary_sha256(SMALL) == vocabulary_sha256(SMALL._replace(lowercase=True))


def _change(content: dict[str, Any], what: str) -> None:
    model = content["model"]
    match what:
        case "NFC":
            content["normalizer"] = {"type": "NFC"}
        case "Whitespace":
            content["pre_tokenizer"] = {"type": "Whitespace"}
        case "use_regex":
            content["pre_tokenizer"]["use_regex"] = False
        case "dropout" | "byte_fallback" | "end_of_word_suffix":
            model[what] = {"dropout": 0.1, "byte_fallback": True, "end_of_word_suffix": "</w>"}[what]
        case "added":
            content["added_tokens"].append({"id": len(model["vocab"]), "content": "<ent>", "special": False})
        case "strange merge":
            model["merges"].append(["Ġ", "zzz"])
        case "half a merge":
            model["merges"].append("Ġ")
        case "no merges":
            del model["merges"]
        case "lost byte":
            del model["vocab"]["a"]
            model["vocab"] = {token: index for index, token in enumerate(model["vocab"])}
            model["merges"], content["added_tokens"] = [], []
        case "Unigram":
            model["type"] = "Unigram"
        case "line break":
            model["vocab"]["a\nb"] = len(model["vocab"])
        case "surrogate":
            model["vocab"]["\ud800"] = len(model["vocab"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("NFC", "the normalizer NFC"),
        ("Whitespace", "the pre-tokenizer Whitespace"),
        ("use_regex", "use_regex false"),
        ("dropout", "dropout 0.1"),
        ("byte_fallback", "byte_fallback True"),
        ("end_of_word_suffix", "end_of_word_suffix '</w>'"),
        ("added", "the added token '<ent>'"),
        ("strange merge", r"'zzz'\] joins or makes what is no token"),
        ("half a merge", "the merge 'Ġ' is not two tokens"),
        ("no merges", "not a tokenizer file"),
        ("lost byte", "1 of the 256 bytes have no token"),
        ("Unigram", "found a Unigram tokenizer"),
        ("surrogate", "has a line break or half a character in it"),
        ("line break", "has a line break or half a character in it"),
    ],
)
def test_what_a_vocabulary_cannot_describe_is_refused_by_name(what: str, message: str, tmp_path: Path) -> None:
    Tokenizer(SMALL).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    _change(content, what)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_vocabulary(tmp_path)


def test_tokens_without_their_merges_are_refused(tmp_path: Path) -> None:
    Tokenizer(SMALL).save(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "vocab.txt", tmp_path)
    with pytest.raises(InputError, match=r"merges are in merges.txt beside it"):
        read_vocabulary(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(InputError, match=r"merges.txt: the merge 'a b c' is not two tokens"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(("texts", "size"), [([], 300), (["", " \n"], 300), (["some text"], 260)])
def test_no_text_or_no_room_is_refused(texts: list[str], size: int) -> None:
    with pytest.raises(InputError):
        train_byte_bpe(texts, size, lowercase=False)


def test_pieces_are_shown_as_text() -> None:
    tokenizer = Tokenizer(SMALL)
    assert tokenizer.piece("Ġthe") == ("the", False)
    assert tokenizer.piece("ing") == ("ing", True)
    assert tokenizer.piece("Ġ") == (" ", False)
    assert tokenizer.piece("<mask>") == ("<mask>", False)


def _moved_mask(vocabulary: Vocabulary) -> Vocabulary:
    tokens = [token for token in vocabulary.tokens if token != "<mask>"]
    return vocabulary._replace(tokens=(*tokens, "<mask>"))
