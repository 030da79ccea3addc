"""`sample`: whole documents, every one with the same chance, as many as asked for, decided by the seed alone."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus.plan import find_documents, read_documents, text_files
from bert_pytorch.corpus.sampling import SampleConfig, choose, draw_sample
from tests.unit.corpus.conftest import Tool, contents


def write_formatted(folder: Path, documents: list[list[str]], files: int = 2) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        own = documents[number * len(documents) // files : (number + 1) * len(documents) // files]
        content = "\n".join("".join(f"{sentence}\n" for sentence in document) for document in own)
        (folder / f"formatted_{number:05d}.txt").write_text(content, encoding="utf-8")
    return folder


def documents_in(folder: Path) -> list[list[str]]:
    return list(read_documents(find_documents(text_files([folder]))))


DOCUMENTS = [[f"document {number}", *["sentence \u4f60"] * (number % 5)] for number in range(300)]


@settings(max_examples=25, deadline=None)
@given(
    what=st.sampled_from(["sentences", "documents", "bytes"]),
    amount=st.integers(1, 9000),
    seed=st.integers(0, 99),
    shard=st.sampled_from([20, 300, 4000]),
)
def test_the_sample_is_whole_documents_as_many_as_asked_for(
    what: str, amount: int, seed: int, shard: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sample")
    text = write_formatted(folder / "text", DOCUMENTS)
    asked = {what: str(amount), "shard_bytes": str(shard)}
    draw_sample(SampleConfig(input=(text,), output=folder / "out", processes=1, seed=seed, **asked))  # type: ignore[arg-type]
    sizes = {
        "sentences": len,
        "documents": lambda document: 1,
        "bytes": lambda document: len("\n".join(document).encode()),
    }[what]
    chosen = documents_in(folder / "out")
    numbers = [int(document[0].split()[1]) for document in chosen]
    assert numbers == sorted(set(numbers))
    assert chosen == [DOCUMENTS[number] for number in numbers]
    total = sum(map(sizes, chosen))
    largest = max(map(sizes, DOCUMENTS))
    assert amount <= total < amount + largest or (total < amount and chosen == DOCUMENTS)
    record = json.loads((folder / "out" / "sample.json").read_text())
    assert record["documents"] == len(chosen)
    assert record["sentences"] == sum(map(len, chosen))
    files = sorted((folder / "out").glob("sample_*.txt"))
    assert record["bytes"] == sum(file.stat().st_size for file in files)
    assert all(file.stat().st_size <= shard or len(documents_in(file)) == 1 for file in files)


def test_every_document_has_the_same_chance(tmp_path: Path) -> None:
    table = find_documents(text_files([write_formatted(tmp_path / "text", DOCUMENTS[:40])]))
    draws = 3000
    for flags in ({"fraction": 0.25}, {"documents": "10"}):
        seen = Counter(
            number
            for seed in range(draws)
            for number in choose(table, SampleConfig(seed=seed, **flags)).tolist()  # type: ignore[arg-type]
        )
        counts = np.array([seen[number] for number in range(40)])
        assert counts.sum() == 10 * draws
        spread = np.sqrt(draws * 0.25 * 0.75)
        assert np.abs(counts - draws / 4).max() < 4.5 * spread


def test_a_larger_sample_holds_the_smaller_and_a_finished_one_is_kept(tool: Tool, tmp_path: Path) -> None:
    text = write_formatted(tmp_path / "text", DOCUMENTS)
    small, large = tmp_path / "small", tmp_path / "large"
    options = ("sample", "--input", text, "--processes", 1)
    assert tool(*options, "--output", small, "--sentences", 100).code == 0
    assert tool(*options, "--output", large, "--sentences", "0.2K").code == 0
    assert {document[0] for document in documents_in(small)} < {document[0] for document in documents_in(large)}
    before = contents(small)
    (small / "sample_00000.txt").unlink()
    assert tool(*options, "--output", small, "--sentences", 100).code == 0
    assert contents(small) == before
    said = tool(*options, "--output", small, "--sentences", 101)
    assert said.code == 1
    assert "sentences 100 → 101" in said.err
    assert tool(*options, "--output", small, "--sentences", 101, "--overwrite").code == 0
