"""What metrics.jsonl says of an update: the right session and position, and one message where it cannot say."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.recorded import recorded_data
from bert_pytorch.errors import InputError
from bert_pytorch.inspect.run_records import Exclusion, find_update


def start(step: int, samples: int, **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "phase_start": 0, "world_size": 2, "next_sentence": True, "lowercase": True, "sequences": 500,
        "excluded_shards": [], "data": recorded_data(DataConfig(input_dir=("set",), global_batch_size=10)),
    }  # fmt: skip
    return {"event": "start", "step": step, "samples": samples, **said, **more}


def train(step: int, samples: int) -> dict[str, Any]:
    return {"event": "train", "step": step, "samples": samples, "sequences": 10}


def write(run: Path, *rows: Any) -> Path:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


ROWS = (
    start(0, 0),
    train(1, 10),
    train(4, 40),
    {"event": "exclude", "step": 5, "shard": "0:b.hdf5"},
    train(6, 70),  # an update of 10 samples was skipped before it
    {"event": "end", "step": 7},
    start(7, 80, excluded_shards=["0:b.hdf5"], world_size=3),
    train(8, 90),
    start(8, 0, phase_start=8),
    train(9, 10),
)


@pytest.mark.parametrize(
    ("step", "known", "world_size", "excluded"),
    [
        (1, (0, 0), 2, 0), (2, (1, 10), 2, 0), (4, (3, 30), 2, 0), (5, (4, 40), 2, 1), (6, (5, 60), 2, 1),
        (7, (6, 70), 2, 1), (8, (7, 80), 3, 1), (9, (8, 0), 2, 0),
    ],
)  # fmt: skip
def test_an_update_is_found_in_its_session(
    step: int, known: tuple[int, int], world_size: int, excluded: int, tmp_path: Path
) -> None:
    found = find_update(write(tmp_path, *ROWS), step)
    assert (found.known_step, found.known_position) == known
    assert found.world_size == world_size
    assert found.phase_start == (8 if step == 9 else 0)
    assert [each.shard for each in found.excluded] == ["0:b.hdf5"] * excluded
    if 5 <= step < 8:
        assert found.excluded == (Exclusion(5, "0:b.hdf5"),)
    assert found.data.global_batch_size == 10
    assert found.data.input_dir == ("set",)


def test_what_is_recorded_comes_back_where_one_value_stands_instead_of_another(tmp_path: Path) -> None:
    config = DataConfig(input_dir=(str(tmp_path),), global_batch_tokens=5000, max_tokens=700, masked_token_fraction=0.3)
    rows = write(tmp_path, start(0, 0, data=recorded_data(config)), train(1, 10))
    assert find_update(rows, 1).data.model_dump() == config.model_dump()


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "no JSON object": ([1, 2], r"line 2: found '\[1, 2\]', wanted a JSON object"),
    "no event": ({"step": 2}, r"line 2: event: found nothing, wanted a text"),
    "samples that are none": ({**train(1, 10), "samples": "ten"}, r"line 2: samples: found 'ten', wanted a whole"),
    "a boolean step": ({"event": "end", "step": True}, r"line 2: step: found True"),
    "no world": (start(0, 0, world_size=0), r"line 2: world_size: found 0, wanted a whole number from 1"),
    "a phase ahead": (start(0, 0, phase_start=3), r"line 2: phase_start: found 3"),
    "no data": (start(0, 0, data=None), r"line 2: data: found None, wanted an object"),
    "shards that are no texts": (start(0, 0, excluded_shards=[1]), r"line 2: excluded_shards: found \[1\]"),
    "data of another version": (start(0, 0, data={"shiny": 1}), r"line 2: it is of another version, or damaged: shiny"),
    "contradicting data": (
        start(0, 0, data={"input_dir": ["a", "a"], "mixture_weights": [1.0, 2.0]}),
        r"line 2: it is of another version.*stands twice",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_damaged_row_is_named(name: str, tmp_path: Path) -> None:
    row, said = BAD_ROWS[name]
    with pytest.raises(InputError, match=said):
        find_update(write(tmp_path, start(0, 0), row, train(1, 10)), 1)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics.jsonl: there is no such file. Name the --output_dir"):
        find_update(tmp_path, 1)
    with pytest.raises(InputError, match="update 10 was not reached, its last one is 9"):
        find_update(write(tmp_path, *ROWS), 10)
    older = {"event": "train", "step": 1}
    with pytest.raises(InputError, match="older version"):
        find_update(write(tmp_path, older, *ROWS[6:]), 1)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe{\n")
    with pytest.raises(InputError, match=r"line 1: .*wanted a JSON object"):
        find_update(tmp_path, 1)


def test_a_torn_last_line_counts_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, *ROWS)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 10, "sam')
    assert find_update(tmp_path, 9).known_position == 0


def test_a_fine_tuning_run_is_told_apart(tmp_path: Path) -> None:
    row = {"event": "start", "step": 0, "samples": 0, "world_size": 1, "lowercase": True, "sequences": 9}
    with pytest.raises(InputError, match="it is a fine-tuning run"):
        find_update(write(tmp_path, row), 1)
