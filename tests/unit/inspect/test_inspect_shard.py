"""`inspect shard`: what it shows is what the shard holds and what training draws."""

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.corpus.__main__ import main as corpus
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.masking import EvaluationMaskingConfig, MaskingConfig, evaluation_policy, policy_for
from bert_pytorch.data.sampling import Samples
from bert_pytorch.inspect.__main__ import main
from bert_pytorch.inspect.terminal import printable, wants_color
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import read_vocabulary
from tests.support.data import shared_data
from tests.support.sequence_rows import make_rows

SPAN = re.compile(r"( ?)\x1b\[([\d;]+)m([^\x1b]*)\x1b\[0m")
MASK_CODES = {"1;31": "masked", "1;35": "random", "1;33": "kept"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A set of pairs for dynamic masking and a static one of FULL-SENTENCES, each of several shards."""
    folder = tmp_path_factory.mktemp("sets")
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:4]:
        text = " ".join(path.read_text(encoding="utf-8").split()).replace(". ", ".\n")
        (folder / path.name).write_text(text + "\n", encoding="utf-8")
    vocabulary = shared_data("vocab", "bert-base-uncased-vocab.txt")
    command = ["encode", "--input", folder, "--vocab_file", vocabulary, "--max_seq_len", 64, "--processes", 1]
    command += ["--shard_sequences", 60, "--eval_fraction", 0.25]
    made = {}
    for name, more in (("dynamic", []), ("static", ["--masking", "static", "--sequences", "full_sentences"])):
        assert corpus([str(word) for word in [*command, "--output", folder / name, *more]]) == 0
        (made[name],) = (folder / name).glob("sequences_*")
    return made


def show(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def parse(line: str, vocabulary: Vocabulary) -> tuple[list[int], list[int], list[str | None]]:
    """Read a coloured segment back: ids as the model sees them, the originals, and what is masked how."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    shown, originals, fates = [], [], []
    body, end = line[5:], 0
    for match in SPAN.finditer(body):
        assert match.start() == end, f"text without a colour: {body[end : match.start()]!r}"
        end = match.end()
        space, code, text = match.groups()
        fate = MASK_CODES.get(code)
        if fate is None:
            joins = (match.start() > 0 and not space) or text not in ids  # a long sentence's piece may begin in a word
            shown.append(ids[f"##{text}" if joins else text])
            originals.append(shown[-1])
        else:
            left, right = text[1:-1].split("→")
            shown.append(ids[left])
            originals.append(ids[right])
        fates.append(fate)
    assert end == len(body)
    return shown, originals, fates


def segments_of(out: str, vocabulary: Vocabulary) -> list[tuple[list[int], list[int], list[str | None]]]:
    """Join the parsed segments of each row."""
    rows: list[tuple[list[int], list[int], list[str | None]]] = []
    for line in out.split("\n"):
        if line.startswith("  A  \x1b"):
            rows.append(parse(line, vocabulary))
        elif line.startswith("  B  \x1b"):
            for whole, part in zip(rows[-1], parse(line, vocabulary), strict=True):
                whole.extend(part)  # type: ignore[arg-type]
    return rows


def test_a_static_set_read_back_from_the_screen_is_the_file(
    sets: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shard, vocabulary = sets["static"] / "train_1.hdf5", read_vocabulary(sets["static"])
    chosen = [3, 0, 17, 3]
    out = show(capsys, "shard", shard, "--color", "always", "--index", *chosen)
    with h5py.File(shard) as file:
        columns = {name: file[name][:] for name in file}
    for row, (shown, originals, fates) in zip(chosen, segments_of(out, vocabulary), strict=True):
        length = columns["input_mask"][row].sum()
        assert shown == columns["input_ids"][row, :length].tolist()
        slots = columns["masked_lm_positions"][row] > 0
        positions, labels = columns["masked_lm_positions"][row][slots], columns["masked_lm_ids"][row][slots]
        assert [place for place, fate in enumerate(fates) if fate] == positions.tolist()
        assert [originals[place] for place in positions] == labels.tolist()
        kinds = ["masked" if shown[p] == 103 else "kept" if shown[p] == originals[p] else "random" for p in positions]
        assert [fates[place] for place in positions] == kinds
        assert f"and {64 - length} of padding" in out or length == 64
    plain = show(capsys, "shard", shard, "--color", "never", "--index", *chosen)
    assert re.sub(r"\x1b\[[\d;]*m", "", out) == plain
    assert plain == show(capsys, "shard", shard, "--index", *chosen)  # a pipe gets no colour


@pytest.mark.parametrize("part", ["train", "eval"])
def test_a_dynamic_set_shows_the_masks_that_training_draws(
    part: str, sets: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sets["dynamic"]
    shards = open_shards(folder, part)  # type: ignore[arg-type]
    header = shards.headers[-1]  # a row's number in the set counts, not in its shard
    before = shards.num_sequences - header.num_rows
    assert part == "eval" or before > 0
    vocabulary = read_vocabulary(folder)
    chosen = np.array([1, 4])
    words = ["--seed", 5, "--epoch", 2, "--masked_token_fraction", 0.3, "--eval_masked_token_fraction", 0.25]
    out = show(capsys, "shard", header.path, "--color", "always", "--index", *chosen, *words)
    policy = policy_for(MaskingConfig(masked_token_fraction=0.3), vocabulary)
    if part == "eval":
        policy = evaluation_policy(EvaluationMaskingConfig(eval_masked_token_fraction=0.25), vocabulary)
    maker = BatchMaker(Corpora([shards], ["set"]), vocabulary, policy, next_sentence=True)
    seed, epoch = (5, 2) if part == "train" else (0, 0)
    batch = maker.make(seed, Samples(np.full(2, epoch), before + chosen))
    assert batch.next_sentence_labels is not None
    shown = [token for row in segments_of(out, vocabulary) for token in row[0]]
    fates = [fate for row in segments_of(out, vocabulary) for fate in row[2]]
    originals = np.array([token for row in segments_of(out, vocabulary) for token in row[1]])
    assert shown == batch.input_ids.tolist()
    assert np.flatnonzero([fate is not None for fate in fates]).tolist() == batch.masked_positions.tolist()
    assert originals[batch.masked_positions].tolist() == batch.labels.tolist()
    for label in batch.next_sentence_labels.tolist():
        assert f"next sentence: {'a random text' if label else 'the true one'} (label {label})" in out
    assert "masks are dynamic" in out


def test_the_header_and_the_checksum(sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = show(capsys, "shard", sets["static"], "--num_samples", 0)
    assert "nvidia (static masking)" in out
    assert re.search(r"masked_lm_positions +int32 \[\d+, 10\]", out)
    assert "of which the first is shown" in out
    assert "as in the manifest" in out
    assert 'sequences "full_sentences"' in out
    copy = tmp_path / "set"
    copy.mkdir()
    for name in ("manifest.json", "tokenizer.json", "train_0.hdf5"):
        (copy / name).write_bytes((sets["static"] / name).read_bytes())
    with h5py.File(copy / "train_0.hdf5", "r+") as file:
        file.attrs["note"] = "\x1b[31mred"
    out = show(capsys, "shard", copy / "train_0.hdf5", "--num_samples", 0)
    assert "NOT that of the manifest" in out
    assert "\\x1b[31mred" in out


def test_a_foreign_gzip_shard_without_a_vocabulary_shows_ids_and_touches_no_cache(
    sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    foreign = tmp_path / "foreign" / "part.hdf5"
    foreign.parent.mkdir()
    with h5py.File(sets["static"] / "train_0.hdf5") as old, h5py.File(foreign, "w") as new:
        for name in old:
            new.create_dataset(name, data=old[name][:], compression="gzip")
        ids = old["input_ids"][2].tolist()
    out = show(capsys, "shard", foreign, "--index", 2)
    assert "--vocab_file" in out
    assert "storage                    gzip" in out
    (line,) = re.findall(r"  A  (.*)", out)
    assert [int(re.sub(r"\{(\d+)→\d+\}", r"\1", word)) for word in line.split()] == [i for i in ids if i]
    words = show(
        capsys, "shard", foreign, "--index", 2, "--vocab_file", shared_data("vocab", "bert-base-uncased-vocab.txt")
    )
    assert "[CLS] " in words
    assert "[MASK]→" in words
    assert not (tmp_path / "cache").exists()


def test_a_label_that_is_none_is_not_called_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(3), {})
    with h5py.File(tmp_path / "train_0.hdf5", "r+") as file:
        file["next_sentence_labels"][:] = [0, 1, 7]
    out = show(capsys, "shard", tmp_path, "--index", 0, 1, 2)
    assert re.findall("next sentence: (.*)", out) == [
        "the true one (label 0)",
        "a random text (label 1)",
        "neither 0 nor 1 (label 7)",
    ]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it() -> None:
    assert wants_color("auto", Terminal(), {})
    assert not wants_color("auto", Terminal(), {"NO_COLOR": "1"})
    assert not wants_color("auto", Terminal(), {"TERM": "dumb"})
    assert not wants_color("auto", io.StringIO(), {})
    assert wants_color("always", io.StringIO(), {"NO_COLOR": "1"})
    assert not wants_color("never", Terminal(), {})
    assert printable("a\x1b[0m\u202eb") == "a\\x1b[0m\\u202eb"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("checkpoint x", 2, "checkpoint is not in this version; it has shard, environment, batch."),
        ("shrad x", 2, "did you mean shard?"),
        ("shard", 2, "no shard is named"),
        ("shard {tmp}/nowhere", 1, "there is no such file or folder"),
        ("shard {tmp}/vocab.txt", 1, "vocab.txt: not a readable HDF5 file. Name a shard (*.hdf5), or a folder"),
        ("shard {tmp}", 1, "no shard (*.hdf5) found"),
        ("shard {set}/train_0.hdf5 --index 100000", 1, "--index: found 100000, wanted 0 to"),
        ("shard {set} --vocab_file {tmp}/vocab.txt", 1, "it was made with another vocabulary"),
    ],
)
def test_a_wrong_call_gets_one_message(
    words: str, code: int, message: str, sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    assert main(words.format(tmp=tmp_path, set=sets["static"]).split()) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("error:") == 1
