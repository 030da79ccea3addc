"""A stand-in for Habana's software on a CPU: the documented calls, in the order in which they are made."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.habana import calls, device

SITE = Path(__file__).parent / "site"
"""What is put on the path: the package `habana_frameworks`."""
DEVICES = "STAND_IN_DEVICES"


@contextmanager
def gaudi(*, lazy: bool | None = None, devices: int = 1) -> Iterator[list[str]]:
    """Have a Gaudi inside.

    Args:
        lazy: whether the environment asks for lazy mode, or for eager mode; None: it says nothing.
        devices: how many HPUs are visible.

    Yields:
        The calls that were made, by name, as they come.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(SITE)
        patched.setenv("PT_HPU_LAZY_MODE", "1")  # so that what the program sets itself is taken back
        patched.setenv("PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES", "0")
        del os.environ["PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES"]
        del os.environ["PT_HPU_LAZY_MODE"]
        if lazy is not None:
            os.environ["PT_HPU_LAZY_MODE"] = "1" if lazy else "0"
        patched.setenv(DEVICES, str(devices))
        calls.made.clear()
        try:
            yield calls.made
        finally:
            device.make_unknown()
            for name in [name for name in sys.modules if name.split(".")[0] == "habana_frameworks"]:
                del sys.modules[name]  # the next test loads it in its own mode
