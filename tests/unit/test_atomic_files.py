"""Sets of files that appear together."""

from pathlib import Path

import pytest

from bert_pytorch.files import atomic_files


def write_pair(folder: Path, content: str) -> None:
    with atomic_files(folder, sign="config") as temporary:
        (temporary / "weights").write_text(content)
        (temporary / "config").write_text(content)


def fail_half_way(folder: Path) -> None:
    with atomic_files(folder, sign="config") as temporary:
        (temporary / "weights").write_text("2")
        raise OSError("disk")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_appear_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    write_pair(folder, "1")
    (folder / "mine").write_text("0")
    write_pair(folder, "2")
    assert contents(folder) == {"weights": "2", "config": "2", "mine": "0"}


def test_failure_leaves_the_earlier_files(tmp_path: Path) -> None:
    write_pair(tmp_path, "1")
    with pytest.raises(OSError, match="disk"):
        fail_half_way(tmp_path)
    assert contents(tmp_path) == {"weights": "1", "config": "1"}


def test_failure_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"):
        fail_half_way(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_sign_is_missing_while_files_are_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, "1")
    seen = []
    replace = Path.replace

    def watched(source: Path, target: Path) -> Path:
        seen.append((target.name, (tmp_path / "config").exists()))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_pair(tmp_path, "2")
    assert seen == [("weights", False), ("config", False)]
