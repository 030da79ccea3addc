"""The console log: what goes to which stream, the file, other ranks."""

import io
import logging
import re

import pytest
from tqdm import tqdm

from bert_pytorch.tracking.console import BAR_SHOWS_IT, console_log

logger = logging.getLogger("bert_pytorch.somewhere")


def test_rank_zero_prints_and_appends_with_the_time(tmp_path, capsys):
    for number in (1, 2):
        with console_log(tmp_path / "logs" / "logfile.txt"):
            logger.info("session %d", number)
            logger.warning("careful")
    output = capsys.readouterr()
    assert output.out == "session 1\nsession 2\n"
    assert output.err == "warning: careful\n" * 2
    lines = (tmp_path / "logs" / "logfile.txt").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in lines] == [
        "session 1", "warning: careful", "session 2", "warning: careful",
    ]  # fmt: skip


def test_other_ranks_print_their_warnings_with_their_number_and_write_no_file(tmp_path, capsys):
    with console_log(tmp_path / "logfile.txt", rank=3):
        logger.info("all is well")
        logger.warning("careful")
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "[rank 3] warning: careful\n")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_it_remains_after_the_context(tmp_path, capsys):
    package = logging.getLogger("bert_pytorch")
    before = package.level, list(package.handlers)
    with pytest.raises(KeyError), console_log(tmp_path / "logfile.txt"):
        raise KeyError
    assert (package.level, package.handlers) == before


def test_line_that_a_bar_shows_goes_to_the_file_alone(tmp_path, capsys):
    with console_log(tmp_path / "logfile.txt"):
        logger.info("step 1", extra={BAR_SHOWS_IT: True})
    assert capsys.readouterr().out == ""
    assert "step 1" in (tmp_path / "logfile.txt").read_text()


def test_lines_stand_above_the_progress_bar(capsys):
    terminal = io.StringIO()
    with tqdm(total=10, file=terminal, ascii=True) as bar, console_log(None):
        bar.update(3)
        logger.info("a line")
    assert capsys.readouterr().out == "a line\n"
    assert terminal.getvalue().count("\r") > 1  # wiped before the line, drawn again after it


def test_full_disk_stops_the_run_with_the_files_name(tmp_path, capsys):
    (tmp_path / "logfile.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, console_log(tmp_path / "logfile.txt"):
        logger.info("a line")
    assert caught.value.filename == str(tmp_path / "logfile.txt")
    assert "Traceback" not in capsys.readouterr().err
