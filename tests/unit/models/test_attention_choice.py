"""Which ways of attending a model may use: a table."""

import pytest
import torch

from bert_pytorch.errors import ConfigError
from bert_pytorch.kernels.choice import choose
from bert_pytorch.models.attention import PaddedSdpa
from bert_pytorch.models.attention_choice import (
    Machine,
    Needs,
    candidates,
    choose_on_gpu,
    make_attention,
    measured_seconds,
    sample_batch,
    without_slow_starts,
)
from bert_pytorch.models.build import build_model
from bert_pytorch.models.patterns import FULL, Pattern
from bert_pytorch.models.row_attention import RowSdpa
from tests.support.packed_batches import small_config

BERT = Needs(torch.bfloat16, heads=16, head_size=64, dropout_p=0.0, patterns={FULL: 24})
H100 = Machine("cuda", (9, 0), flash_attn="not installed")
WITHOUT_FLEX = "flex: not measured where varlen can be used, which was always faster and compiles nothing"
WINDOW, ALIBI = Pattern(window=64), Pattern(slopes=(0.5,) * 16)


@pytest.mark.parametrize(
    ("needs", "machine", "usable"),
    [
        (BERT, H100, "varlen triton flex sdpa"),
        (BERT, H100._replace(flash_attn=None), "varlen flash_attn triton flex sdpa"),
        (BERT, H100._replace(varlen="torch 2.9"), "triton flex sdpa"),
        (BERT, H100._replace(triton="not installed"), "varlen sdpa"),
        (BERT, H100._replace(capability=(7, 5)), "sdpa"),
        (BERT, Machine("cpu"), "sdpa"),
        (BERT._replace(dtype=torch.float32), H100, "flex sdpa"),
        (BERT._replace(dropout_p=0.1), H100, "sdpa"),
        (BERT._replace(dropout_p=0.1), H100._replace(flash_attn=None), "flash_attn sdpa"),
        (BERT._replace(patterns={FULL: 8, WINDOW: 14}), H100, "varlen triton flex sdpa"),
        (BERT._replace(patterns={ALIBI: 12}), H100, "triton flex sdpa"),
        (BERT._replace(head_size=80), H100, "varlen sdpa"),
        (BERT._replace(head_size=12), H100, "sdpa"),
    ],
)
def test_what_can_be_used(needs: Needs, machine: Machine, usable: str) -> None:
    found = candidates(needs, machine)
    assert " ".join(name for name, problem in found if problem is None) == usable


def test_flex_compiles_at_a_start_only_where_nothing_else_takes_packed_sequences() -> None:
    for needs, usable in ((BERT, ["varlen", "triton", "sdpa"]), (BERT._replace(dtype=torch.float32), ["flex", "sdpa"])):
        found = without_slow_starts(candidates(needs, H100), saved=None)
        assert [name for name, problem in found if problem is None] == usable


def test_unmeasured_the_first_is_taken_and_the_log_says_what_was_not() -> None:
    assert choose(candidates(BERT, H100)) == ("varlen", "the first that can be used; flash_attn: not installed")
    reason = choose(candidates(BERT._replace(dropout_p=0.1), H100)).reason
    assert "varlen: it has no dropout (attention_probs_dropout_prob 0.1)" in reason


@pytest.mark.parametrize(
    ("asked", "saved", "name", "reason"),
    [
        ("auto", None, "varlen", f"the first that can be used; flash_attn: not installed; {WITHOUT_FLEX}"),
        ("auto", "flex", "flex", "as this run did so far"),
        ("auto", "flash_attn", "varlen", f"the first that can be used; flash_attn: not installed; {WITHOUT_FLEX}"),
        ("triton", "flex", "triton", "asked for"),
        ("reference", "flex", "reference", "asked for"),
    ],
)
def test_choice_on_a_gpu(asked, saved, name, reason, monkeypatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda device, windows: H100)
    model = build_model(small_config())
    chosen = choose_on_gpu(model, asked, torch.device("cuda"), torch.bfloat16, False, saved=saved)
    assert (chosen.attention.name, chosen.reason) == (name, reason)


def test_asking_for_what_a_gpu_lacks_says_what_it_has(monkeypatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda device, windows: H100)
    with pytest.raises(ConfigError, match="flash_attn cannot be used: not installed; found usable: varlen, triton"):
        choose_on_gpu(build_model(small_config()), "flash_attn", torch.device("cuda"), torch.bfloat16, False)


def test_asking_for_a_gpus_attention_without_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="varlen needs a CUDA GPU, found cpu"):
        build_model(small_config(), attention="varlen").select_attention(torch.device("cpu"))


def test_rows_of_fixed_length_have_their_own_sdpa() -> None:
    assert isinstance(make_attention("sdpa", fixed_rows=False), PaddedSdpa)
    assert isinstance(make_attention("sdpa", fixed_rows=True), RowSdpa)
    for name, _ in candidates(BERT, H100):
        assert make_attention(name, fixed_rows=False).name == name


def test_needs_are_read_off_the_model() -> None:
    needs = Needs.of(build_model(small_config()), torch.float32, fixed_rows=False)
    assert (needs.heads, needs.head_size, needs.dropout_p, dict(needs.patterns)) == (4, 16, 0.0, {FULL: 2})
    assert (needs.windows, needs.alibi) == (False, False)


@pytest.mark.parametrize("fixed_rows", [False, True])
def test_measuring_takes_plan_and_every_layer(fixed_rows: bool) -> None:
    needs = BERT._replace(dtype=torch.float32, heads=2, head_size=8, patterns={FULL: 1}, fixed_rows=fixed_rows)
    cpu = torch.device("cpu")
    one = measured_seconds("sdpa", needs, [12, 12], cpu)
    assert 0 < one < measured_seconds("sdpa", needs._replace(patterns={FULL: 1000}), [12, 12], cpu)
    assert sample_batch([12, 12], cpu, fixed_rows).row_length == (12 if fixed_rows else None)
