"""Every kernel compiles for an H100: what the interpreter runs, the compiler may refuse."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.support.commands import run


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_every_kernel_compiles_for_hopper_and_fits_its_registers(tmp_path: Path) -> None:
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = run([sys.executable, "-m", "tests.support.triton_compiling"], env=environment, timeout=600)
    assert result.code == 0, result
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == {
        "triton_residual_norm_forward",
        "triton_residual_norm_backward",
        "triton_gelu_forward",
        "triton_gelu_backward",
        "triton_lamb_moments",
        "triton_lamb_apply",
        "triton_attention_kernels_forward",
        "triton_attention_kernels_backward_one_tile",
        "triton_attention_kernels_products",
        "triton_attention_kernels_backward_keys",
        "triton_attention_kernels_backward_queries",
    }
    for row in rows:
        assert row["spilled_bytes"] == 0, row
        assert row["shared_bytes"] <= 227 * 1024, row
