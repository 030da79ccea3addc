"""`metrics.jsonl` and the CSV: contracted keys, rows dropped on resumption, torn lines, full disks."""

import csv
import json
import multiprocessing
import os
import signal
import time

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.tracking.metrics_files import Csv, JsonLines, _LineFile
from bert_pytorch.tracking.records import EndRow, EvalRow, ExcludeRow, StartRow, TrainRow

CSV_HEADER = (
    "step,epoch,loss,mlm_loss,nsp_loss,soft_target_loss,cosine_loss,learning_rate,grad_norm,sequences_per_second,"
    "tokens_per_second,step_seconds,data_wait_seconds,mfu,peak_memory_gib,samples,sequences,kfac_failures"
)


def train_row(step, **values):
    row = TrainRow(
        step, 0, 6.91, 6.31, 0.6, None, None, 4.2e-3, 1.5, 96.0, 12340.0, 0.5, 0.01, None, 1.25, 96 * step, 96, 3
    )
    return row._replace(**values)


def start_row(step):
    return StartRow(step, 96 * step, 1, 0, 1, True, True, 1000, [], {"seed": 1})


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(path):
    return [(row["event"], row["step"]) for row in rows_of(path)]


def test_rows_have_exactly_the_contracted_keys(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = JsonLines(path, first_step=0)
    file.train(train_row(1))
    file.exclusion(ExcludeRow(2, "0:train_3.hdf5", 70, "row 5: bad"))
    file.evaluation(EvalRow(1, 5.5, 0.25, None, 400))
    file.end(EndRow("session_limit", 1, 12.5, 12340.0))
    assert rows_of(path) == [
        {
            "event": "train", "step": 1, "epoch": 0, "loss": 6.91, "mlm_loss": 6.31, "nsp_loss": 0.6,
            "soft_target_loss": None, "cosine_loss": None, "learning_rate": 4.2e-3, "grad_norm": 1.5,
            "sequences_per_second": 96.0, "tokens_per_second": 12340.0, "step_seconds": 0.5, "data_wait_seconds": 0.01,
            "mfu": None, "peak_memory_gib": 1.25, "samples": 96, "sequences": 96, "kfac_failures": 3,
        },
        {"event": "exclude", "step": 2, "shard": "0:train_3.hdf5", "sequences": 70, "reason": "row 5: bad"},
        {"event": "eval", "step": 1, "mlm_loss": 5.5, "mlm_accuracy": 0.25, "nsp_accuracy": None, "masked_tokens": 400},
        {"event": "end", "reason": "session_limit", "step": 1, "train_seconds": 12.5, "tokens_per_second": 12340.0},
    ]  # fmt: skip
    file.close()


def test_floats_survive_the_file_exactly(tmp_path):
    loss = 0.1 + 0.2
    JsonLines(tmp_path / "m", 0).train(train_row(1, loss=loss))
    Csv(tmp_path / "c", 0).train(train_row(1, loss=loss))
    assert rows_of(tmp_path / "m")[0]["loss"] == loss
    with (tmp_path / "c").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["loss"]) == loss


def test_numbers_that_json_lacks_become_null(tmp_path):
    JsonLines(tmp_path / "m", 0).train(train_row(1, loss=float("nan"), grad_norm=float("inf")))
    text = (tmp_path / "m").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert (rows_of(tmp_path / "m")[0]["loss"], rows_of(tmp_path / "m")[0]["grad_norm"]) == (None, None)


def test_csv_has_a_header_once_and_a_line_for_each_train_row(tmp_path):
    for first_step in (0, 1):
        file = Csv(tmp_path / "c", first_step)
        file.train(train_row(first_step + 1))
        file.evaluation(EvalRow(first_step + 1, 5.5, 0.1, None, 4000))
        file.close()
    assert (tmp_path / "c").read_text().splitlines() == [
        CSV_HEADER,
        "1,0,6.91,6.31,0.6,,,0.0042,1.5,96.0,12340.0,0.5,0.01,,1.25,96,96,3",
        "2,0,6.91,6.31,0.6,,,0.0042,1.5,96.0,12340.0,0.5,0.01,,1.25,192,96,3",
    ]


def write_session(directory, first_step, last_step):
    for file in (JsonLines(directory / "m", first_step), Csv(directory / "c", first_step)):
        for step in range(first_step + 1, last_step + 1):
            file.train(train_row(step))
        file.evaluation(EvalRow(last_step, 5.5, 0.1, None, 4000))
        file.end(EndRow("signal", last_step, 1.0, 1.0))
        file.close()


def test_rows_past_the_checkpoint_are_dropped_on_resumption(tmp_path):
    write_session(tmp_path, 0, 3)
    write_session(tmp_path, 3, 6)
    write_session(tmp_path, 4, 5)  # the checkpoint of update 6 was lost, that of 4 is used
    one = [("train", 1), ("train", 2), ("train", 3), ("eval", 3), ("end", 3)]
    assert events(tmp_path / "m") == [*one, ("train", 4), ("train", 5), ("eval", 5), ("end", 5)]
    lines = (tmp_path / "c").read_text().splitlines()
    assert lines[0] == CSV_HEADER
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]


def test_a_session_without_a_checkpoint_leaves_no_row(tmp_path):
    path = tmp_path / "m"
    for first_step in (0, 0, 3, 3):  # each but the second and the last is killed before its first checkpoint
        file = JsonLines(path, first_step)
        file.start(start_row(first_step))
        file.evaluation(EvalRow(first_step, 10.3, 0.0, None, 4000))
        file.exclusion(ExcludeRow(first_step + 1, "0:train_3.hdf5", 70, "row 5: bad"))
        for step in range(first_step + 1, first_step + 4):
            file.train(train_row(step))
        file.close()
    one = [("start", 0), ("eval", 0), ("exclude", 1), ("train", 1), ("train", 2), ("train", 3)]
    assert events(path) == [
        *one, ("start", 3), ("eval", 3), ("exclude", 4), ("train", 4), ("train", 5), ("train", 6)
    ]  # fmt: skip
    JsonLines(path, 0).close()
    assert path.read_text() == ""


def test_columns_of_an_earlier_version_are_taken_over(tmp_path):
    old = CSV_HEADER.removesuffix(",samples,sequences,kfac_failures").replace(",soft_target_loss,cosine_loss", "")
    (tmp_path / "c").write_text(f"{old}\n1,0,6.9,6.3,0.6,0.004,1.5,96.0,12340.0,0.5,0.01,,1.25\n2,0,6.8,6.3,0.5,0.004,")
    file = Csv(tmp_path / "c", 1)
    file.train(train_row(2))
    file.close()
    assert (tmp_path / "c").read_text().splitlines() == [
        CSV_HEADER,
        "1,0,6.9,6.3,0.6,,,0.004,1.5,96.0,12340.0,0.5,0.01,,1.25,,,",
        "2,0,6.91,6.31,0.6,,,0.0042,1.5,96.0,12340.0,0.5,0.01,,1.25,192,96,3",
    ]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_last_line_is_dropped(tmp_path, cut):
    write_session(tmp_path, 0, 3)
    for name in ("m", "c"):
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - cut)
    write_session(tmp_path, 3, 4)
    assert events(tmp_path / "m") == [
        ("train", 1), ("train", 2), ("train", 3), ("eval", 3), ("train", 4), ("eval", 4), ("end", 4),
    ]  # fmt: skip
    steps = [line.split(",")[0] for line in (tmp_path / "c").read_text().splitlines()]
    assert steps == ["step", "1", "2", "4"]


def test_torn_csv_header_is_written_anew(tmp_path):
    (tmp_path / "c").write_text("step,epo")
    Csv(tmp_path / "c", 0).close()
    assert (tmp_path / "c").read_text() == CSV_HEADER + "\n"


def test_lines_that_are_no_rows_are_dropped(tmp_path):
    (tmp_path / "m").write_bytes(
        b'{"event": "train", "step": 1}\n\xff\xfe\x00\n[1]\n{"step": "2"}\n{"event": "end", "step": 2}\n'
    )
    JsonLines(tmp_path / "m", 5).close()
    assert events(tmp_path / "m") == [("train", 1), ("end", 2)]


def test_file_with_nothing_to_drop_is_not_rewritten(tmp_path):
    write_session(tmp_path, 0, 3)
    before = [(tmp_path / name).stat().st_ino for name in ("m", "c")]
    JsonLines(tmp_path / "m", 3).close()
    Csv(tmp_path / "c", 3).close()
    assert [(tmp_path / name).stat().st_ino for name in ("m", "c")] == before


def test_csv_of_other_columns_is_refused_and_left_as_it_is(tmp_path):
    content = "timestamp,tag,step,epoch,average_loss\n2020,train,1,0,9.1\n"
    (tmp_path / "c").write_text(content)
    with pytest.raises(InputError, match=r"found the columns timestamp.*--log_prefix"):
        Csv(tmp_path / "c", 0)
    assert (tmp_path / "c").read_text() == content


def write_rows_forever(directory):
    files = [JsonLines(directory / "m", 0), Csv(directory / "c", 0)]
    for step in range(1, 10_000_000):
        for file in files:
            file.train(train_row(step))


def test_kill_loses_at_most_the_last_line(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=write_rows_forever, args=(tmp_path,))
    process.start()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    json_lines = (tmp_path / "m").read_text().split("\n")
    csv_lines = (tmp_path / "c").read_text().split("\n")
    assert len(json_lines) > 10
    assert [json.loads(line)["step"] for line in json_lines[:-1]] == list(range(1, len(json_lines)))
    assert abs(len(json_lines) - (len(csv_lines) - 1)) <= 1  # the header


def test_full_disk_is_said_with_the_files_name(tmp_path):
    (tmp_path / "m").symlink_to("/dev/full")
    file = _LineFile(tmp_path / "m")
    with pytest.raises(OSError, match="No space left") as caught:
        file.append("a line")
    file.close()
    assert caught.value.filename == str(tmp_path / "m")
