"""Real data for tests, which the project itself does not ship."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CANDIDATES = (REPOSITORY.parent / "shared" / "data", Path("/work/shared/data"))


def shared_data(*parts: str) -> Path:
    """Return a path under the folder of real data, or skip the test that asks, saying what is missing.

    The folder is $BERT_PYTORCH_DATA where that is set, else `shared/data` beside the repository.
    """
    named = os.environ.get("BERT_PYTORCH_DATA")
    folders = (Path(named),) if named else CANDIDATES
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        pytest.skip(f"no folder of real data at {' or '.join(map(str, folders))}; BERT_PYTORCH_DATA names another")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the real data has no {path}")
    return path
