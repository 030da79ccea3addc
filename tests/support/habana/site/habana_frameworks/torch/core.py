"""`habana_frameworks.torch.core`: importing it makes the device known to torch."""

import os

from tests.support.habana.calls import only_documented, record
from tests.support.habana.device import make_known

__getattr__ = only_documented(__name__)


def mark_step(device_str: str = "", sync: bool = False) -> None:
    """Compile and launch what was gathered; a function of lazy mode.

    docs.habana.ai/en/latest/PyTorch/Reference/mark_step.html
    """
    if os.environ["PT_HPU_LAZY_MODE"] == "0":
        raise RuntimeError("mark_step outside lazy mode")
    record("mark_step")


make_known(compiler="hpu_backend" if os.environ["PT_HPU_LAZY_MODE"] == "0" else None)
record("import core")
