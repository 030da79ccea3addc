"""The code points on which `tokie` is proven to give the ids of `tokenizers`, and the versions that this holds for.

`proven_code_points.json` is written by `python -m tests.support.code_points`, which compares both libraries on every
code point; `tests/numerics/test_fast_tokenization.py` derives it again.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

FILE = "proven_code_points.json"
NUM_CODE_POINTS = 0x110000


def proven_versions() -> dict[str, str]:
    """Return the version of each library that was compared."""
    return dict(_content()["versions"])


def unproven_code_points(kind: str) -> np.ndarray:
    """Return bool (0x110000,): True where text must go to the reference.

    Args:
        kind: "wordpiece_lowercase", "wordpiece_cased" or "bpe".
    """
    unproven = np.ones(NUM_CODE_POINTS, bool)
    for span in _content()[kind].split():
        first, _, last = span.partition("-")
        unproven[int(first, 16) : int(last or first, 16) + 1] = False
    return unproven


@cache
def _content() -> dict[str, Any]:
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="ascii")
    content: dict[str, Any] = json.loads(text)
    return content
