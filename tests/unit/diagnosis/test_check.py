"""`launch check` on each kind of device."""

import json
import typing

import pytest

from bert_pytorch.diagnosis import check
from bert_pytorch.runtime.device import DeviceName
from tests.support.habana import gaudi
from tests.support.runs import run_here


def test_every_device_has_a_product_to_be_measured_by() -> None:
    assert set(check.PRODUCTS) == set(typing.get_args(DeviceName)) - {"auto"}


def test_a_gaudi_is_found_and_measured_as_a_training_run_would_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check.PRODUCTS, "hpu", (8, 8, 8, 1))  # a CPU stands in, which is slow in bf16
    with gaudi() as calls:
        outcome = run_here(check.main, ["--device", "hpu", "--cpu_affinity", "none", "--as_json"])
    assert outcome.code == 0, outcome.err
    (rank,) = json.loads(outcome.out)["ranks"]
    assert rank["device"].startswith("hpu, ")
    assert rank["flops"] > 0
    assert "synchronize" in calls
