"""The reader of README blocks: what it finds, and what it refuses."""

import pytest

from tests.support.readme import bash_blocks


def test_commands_of_bash_blocks_are_found_and_others_are_not():
    blocks = bash_blocks(
        "Text\n\n```bash\n./a.sh\n\n# said\n./b.sh --x 1\n```\n```python\nimport os\n```\n```\nplain\n```\n"
    )
    assert [(block.line, block.commands) for block in blocks] == [(3, ("./a.sh", "./b.sh --x 1"))]
    assert (blocks[0].skip_reason, blocks[0].name) == ("", "")


def test_continued_lines_are_one_command():
    (block,) = bash_blocks("```bash\nrun --a 1 \\\n    --b 2 \\\n    # no comment here\nnext\n```\n")
    assert block.commands == ("run --a 1 \\\n    --b 2 \\\n    # no comment here", "next")


def test_markers_belong_to_the_block_right_after_them():
    text = "<!-- not run in tests: needs 8 GPUs -->\n```bash\na\n```\n"
    text += "<!-- must run: quickstart -->\n\n```bash\nb\n```\n```bash\nc\n```"
    assert [(block.skip_reason, block.name) for block in bash_blocks(text)] == [
        ("needs 8 GPUs", ""),
        ("", "quickstart"),
        ("", ""),
    ]


def test_other_html_comments_are_no_markers():
    (block,) = bash_blocks("<!-- a remark -->\n```bash\na\n```\n")
    assert (block.skip_reason, block.name) == ("", "")


def test_a_fence_inside_another_language_is_not_a_block():
    assert bash_blocks("````markdown\n```bash\na\n```\n````\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\na\n", "line 1: the block is not closed"),
        ("<!-- not run in tests: why -->\ntext\n```bash\na\n```\n", "line 2: a marker stands directly before"),
        ("<!-- not run in tests: why -->\n```python\na\n```\n", "line 2: a marker stands directly before"),
        ("<!-- not run in tests: -->\n```bash\na\n```\n", "follows a reason or a name"),
        ("<!-- must run: a -->\n<!-- not run in tests: b -->\n```bash\na\n```\n", "a second marker"),
        ("<!-- must run: quickstart -->\n", "has no block"),
    ],
)
def test_a_marker_that_would_be_lost_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        bash_blocks(text)
