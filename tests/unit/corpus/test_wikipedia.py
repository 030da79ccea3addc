"""Wikipedia dumps in parts: the articles of wikiextractor's own run, and failures told with their part."""

import bz2
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_pytorch.corpus.inputs import wikipedia
from bert_pytorch.corpus.inputs.wikipedia import check_dump, part_ends, read_articles
from bert_pytorch.errors import InputError
from tests.support.data import REPOSITORY, shared_data
from tests.unit.corpus.conftest import Tool, contents

pytest.importorskip("wikiextractor", reason="wikiextractor is an extra (requirements-extras.txt)")

HEADER = b'<mediawiki><siteinfo>\n<namespace key="10">Template</namespace>\n</siteinfo>\n'


def sample() -> Path:
    return shared_data("wikipedia", "enwiki-sample-pages-articles.xml.bz2")


def plain_run(dump: Path) -> list[str]:
    command = [sys.executable, "-m", "wikiextractor.WikiExtractor", str(dump), "--json", "--html-safe", ""]
    command += ["--no-templates", "--processes", "2", "--output", "-", "--quiet"]
    lines = subprocess.run(command, check=True, capture_output=True).stdout.splitlines()
    return [json.loads(line)["text"] for line in lines]


def in_parts(dump: Path, cuts: list[int]) -> list[str]:
    return [text for start, end in itertools.pairwise(cuts) for text in read_articles(dump, start, end)]


def streams(content: bytes) -> bytes:
    """A dump as Wikimedia's multistream ones: header, groups of pages and end are streams of their own."""
    pages = re.split(rb"(?=  <page>)|(?=</mediawiki>)", content)
    groups = [b"".join(pages[start : start + 20]) for start in range(0, len(pages), 20)]
    return b"".join(map(bz2.compress, groups))


def test_articles_of_parts_are_those_of_a_plain_run(tmp_path: Path) -> None:
    wanted = plain_run(sample())
    assert len(wanted) == 106
    assert in_parts(sample(), [0, 100, 400_000, 1_000_000, sample().stat().st_size]) == wanted
    multistream = tmp_path / "m.xml.bz2"
    multistream.write_bytes(streams(bz2.decompress(sample().read_bytes())))
    check_dump(multistream)
    assert in_parts(multistream, [0, 700_000, multistream.stat().st_size]) == wanted


def test_pages_belong_to_the_part_in_which_their_tag_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [b"  <page>\n" + b"%d " % number * (number * 7 % 50) + b"</page>\n" for number in range(60)]
    content = HEADER + b"".join(pages) + b"</mediawiki>"
    blocks = [content[start : start + 37] for start in range(0, len(content), 37)]  # tags stand across blocks
    dump = tmp_path / "x.xml.bz2"
    dump.write_bytes(b"".join(map(bz2.compress, blocks)))
    size = dump.stat().st_size
    monkeypatch.setattr(wikipedia, "_STEP", 500)
    for step in (100, 333, 1000, size):
        cuts = [*range(0, size, step), size]
        parts = [b"".join(wikipedia._read_pages(dump, *ends)) for ends in itertools.pairwise(cuts)]
        assert re.findall(rb"<page>.*?</page>", b"".join(parts), re.S) == [page.strip() for page in pages]


def test_parts_cover_a_dump_and_depend_on_its_size_alone(tmp_path: Path) -> None:
    for size, count in ((5, 1), (3 << 20, 1), (20 << 20, 5), (100 << 20, 16), (1 << 30, 64)):
        with (tmp_path / "x").open("wb") as file:
            file.truncate(size)
        ends = part_ends(tmp_path / "x")
        assert ends[-1] == size
        assert len(ends) == count
        assert all(before < after for before, after in itertools.pairwise([0, *ends]))


def test_a_dump_becomes_text_whatever_the_number_of_processes(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "_SMALLEST_PART", 600_000)
    outputs = []
    for processes in (1, 3):
        out = tmp_path / str(processes)
        command = ("format", "--input", sample(), "--output", out, "--splitter_sample_bytes", 100_000)
        said = tool(*command, "--processes", processes)
        assert said.code == 0, said.err
        outputs.append(contents(out))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 5  # three parts, formatted.json, punkt.json
    texts = [content.decode() for name, content in outputs[0].items() if name.startswith("formatted_")]
    documents = [document.split("\n") for text in texts for document in text.strip().split("\n\n")]
    assert 90 <= len(documents) <= 106  # some articles are nothing but a list
    anarchism = next(document for document in documents if document[0].startswith("Anarchism is a political"))
    assert len(anarchism) > 100
    assert not any("[[" in line or "&amp;" in line or "<ref" in line for line in anarchism)


def test_a_dump_without_siteinfo_has_its_articles() -> None:
    dump = shared_data("wikipedia", "enwiki-table-markup.xml.bz2")
    check_dump(dump)
    articles = in_parts(dump, [0, dump.stat().st_size])
    assert len(articles) == 5
    assert articles[0].startswith("The constructive vote of no confidence")
    assert not any("{|" in text or "|-" in text for text in articles)


def test_a_cut_dump_is_told_before_work_begins(tool: Tool, tmp_path: Path) -> None:
    dump = tmp_path / "cut.xml.bz2"
    for content, message in (
        (sample().read_bytes()[:-200_000], "cut off? Copy or download it again"),
        (bz2.compress(bz2.decompress(sample().read_bytes())[:500_000]), "does not end with </mediawiki>"),
        (bz2.compress(b"just text"), "no MediaWiki dump"),
        (b"BZh9", "not a bzip2 file"),
    ):
        dump.write_bytes(content)
        said = tool("format", "--input", dump, "--output", tmp_path / "o", "--processes", 1)
        assert said.code == 1
        assert str(dump) in said.err
        assert message in said.err


def test_a_failing_wikiextractor_is_told_with_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wikiextractor"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = package / "WikiExtractor.py"
    monkeypatch.setattr(wikipedia, "_LAST_WORDS", 0.1)
    crash = "import sys, time\nprint('Traceback (most recent call last):\\nKeyError: 5', file=sys.stderr, flush=True)\n"
    for code, message in (
        (crash + "time.sleep(60)", "KeyError: 5"),  # a worker is dead and its main process waits for ever
        ("raise SystemExit(3)", "failed with exit code 3"),
        ("print('no article')", "wrote what is not an article: b'no article"),
    ):
        program.write_text(code)
        started = time.monotonic()
        with pytest.raises(InputError) as raised:
            list(read_articles(sample(), 0, 1_000_000))
        assert message in str(raised.value)
        assert f"{sample()}, bytes 0 to 1000000" in str(raised.value)
        assert time.monotonic() - started < 30


READ = """
import sys
from pathlib import Path
from bert_pytorch.corpus.inputs.wikipedia import read_articles
articles = read_articles(Path(sys.argv[1]), 0, 1_000_000)
next(articles)
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_no_process_of_wikiextractor_outlives_ours(killed: bool) -> None:
    mark = f"BERT_TEST_MARK={os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-c", READ, str(sample())], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=dict([*os.environ.items(), mark.split("=")]),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"reading\n"
    assert len(marked(mark)) > 3
    if killed:
        process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not marked(mark)


def marked(mark: str) -> list[str]:
    """List the processes that have `mark` in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:
            continue
    return found


def test_a_dump_without_wikiextractor_says_what_to_install(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "x.xml.bz2").write_bytes(b"BZh9")
    said = tool("format", "--input", tmp_path / "x.xml.bz2", "--output", tmp_path / "o")
    assert said.code == 1
    assert "pip install -r requirements-extras.txt" in said.err
