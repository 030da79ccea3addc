"""Columnar files of texts for tests, made with pyarrow; datasets as `datasets` 5.2.0 writes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

Texts = Sequence[str | None]


def write_parquet(path: Path, texts: Texts, rows: int = 3, **options: Any) -> Path:
    """Write a Parquet file of several row groups with a number and a text in each row."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (requirements-extras.txt)")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": list(range(len(texts))), "text": pyarrow.array(list(texts), pyarrow.string())}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows, **options)
    return path


def write_dataset(folder: Path, texts: Texts, files: int = 2, rows: int = 3, large: bool = False) -> Path:
    """Write what `Dataset.save_to_disk(folder, num_shards=files)` writes: Arrow streams and two JSON files."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (requirements-extras.txt)")
    folder.mkdir(parents=True)
    kind = pyarrow.large_string() if large else pyarrow.string()
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", kind)])
    each, names = -(-len(texts) // files), []
    for number in range(files):
        part = list(texts[number * each : (number + 1) * each])
        names.append(f"data-{number:05d}-of-{files:05d}.arrow")
        table = pyarrow.table({"id": list(range(len(part))), "text": pyarrow.array(part, kind)}, schema)
        with pyarrow.OSFile(str(folder / names[-1]), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    features = {"id": {"dtype": "int64", "_type": "Value"}, "text": {"dtype": str(kind), "_type": "Value"}}
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    state = {
        "_data_files": [{"filename": name} for name in names], "_fingerprint": "cef7df5312d309e7",
        "_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False,
        "_split": None,
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def write_dataset_dictionary(folder: Path, **splits: Texts) -> Path:
    """Write what `DatasetDict.save_to_disk(folder)` writes."""
    for name, texts in splits.items():
        write_dataset(folder / name, texts, files=1)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder
