"""What is missing: pinned versions, but torch and Triton as a machine has them."""

import pytest

from scripts.lib import requirement_files


@pytest.mark.parametrize(
    ("torch", "triton", "missing"),
    [
        ("2.13.0", None, ["triton"]),
        ("2.13.0+cpu", "3.7.1", []),
        ("2.11.0", "3.6.0", []),  # a machine's own: 3.6.0 is the one that fits its torch
        ("2.10.0", "3.5.0", ["torch"]),
    ],
)
def test_a_triton_that_is_there_is_kept(torch, triton, missing, monkeypatch) -> None:
    versions = {"torch": torch, "triton": triton}
    monkeypatch.setattr(requirement_files, "installed_version", versions.get)
    files = [requirement_files.TORCH_FILE, requirement_files.TRITON_FILE]
    assert [requirement.name for requirement in requirement_files.missing_packages(files)] == missing


def test_only_the_tests_ask_for_triton() -> None:
    assert requirement_files.TRITON_FILE in requirement_files.TEST_FILES
    assert requirement_files.TRITON_FILE not in requirement_files.CORE_FILES
