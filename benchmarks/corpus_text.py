"""Text for benchmarks of any size: the shared real text repeated, each repetition perturbed so that none are equal."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.support.data import data_folder

_CHANGED = 0.05
"""Share of the words of a document that are replaced by words of other documents."""


def real_documents() -> list[str]:
    """Return the documents of `shared/data/text` and the paragraphs of WikiText-2, about 12 MB.

    Raises:
        FileNotFoundError: if the shared data are not there.
    """
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError("the shared text is absent: set BERT_PYTORCH_DATA to the folder that holds it")
    documents = [path.read_text(encoding="utf-8") for path in sorted((folder / "text").rglob("*.txt"))]
    return documents + (folder / "wikitext-2" / "valid.txt").read_text(encoding="utf-8").split("\n = ")


def perturbed_documents(num_bytes: int, seed: int) -> Iterator[str]:
    """Yield documents until `num_bytes` of UTF-8 are reached; the first round is the real text itself."""
    documents = [document.split(" ") for document in real_documents()]
    words = sorted({word for document in documents[::7] for word in document if word and "\n" not in word})
    rng = np.random.default_rng([seed, 41])
    made = rounds = 0
    while made < num_bytes:
        for index in rng.permutation(len(documents)) if rounds else range(len(documents)):
            document = documents[index]
            if rounds:
                document = list(document)
                places = rng.integers(len(document), size=1 + int(_CHANGED * len(document)))
                for place, choice in zip(places.tolist(), rng.integers(len(words), size=len(places)), strict=True):
                    if "\n" not in document[place]:
                        document[place] = words[choice]
            text = " ".join(document)
            made += len(text.encode()) + 1
            yield text
            if made >= num_bytes:
                return
        rounds += 1


def write_corpus(folder: Path, num_bytes: int, seed: int, file_bytes: int = 64 << 20) -> int:
    """Write documents as JSON lines in files of about `file_bytes`; return the bytes written. An equal one is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "made.json"
    wanted = {"bytes": num_bytes, "seed": seed, "file_bytes": file_bytes}
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    number, file, size, total = 0, None, 0, 0
    for document in perturbed_documents(num_bytes, seed):
        if file is None or size >= file_bytes:
            if file is not None:
                file.close()
            file, size, number = (folder / f"text_{number:03d}.jsonl").open("wb"), 0, number + 1
        line = json.dumps({"text": document}, ensure_ascii=False).encode() + b"\n"
        file.write(line)
        size += len(line)
        total += len(line)
    if file is not None:
        file.close()
    stamp.write_text(json.dumps(wanted))
    return total
