"""What a session measures with, and what it keeps of what it chose."""

import pytest

from bert_pytorch.models.build import build_model
from bert_pytorch.optim.lamb import Lamb
from bert_pytorch.training.fast_paths import FastPaths, kernels_of, lamb_implementation, sample_lengths
from tests.support.packed_batches import small_config


@pytest.mark.parametrize("sequences", [1, 2, 7, 64])
def test_lengths_to_measure_with_are_as_many_as_a_micro_batch_and_two_thirds_full(sequences: int) -> None:
    lengths = sample_lengths(sequences, 512, fixed_rows=False)
    assert len(lengths) == sequences
    assert max(lengths) == 512
    assert min(lengths) >= 64
    if sequences == 64:
        assert 0.6 < sum(lengths) / (64 * 512) < 0.7


def test_rows_are_measured_full() -> None:
    assert sample_lengths(3, 128, fixed_rows=True) == [128] * 3


def test_a_checkpoint_keeps_plain_values() -> None:
    kept = FastPaths("varlen", {"lamb": "triton"}).choices()
    assert kept == {"attention_used": "varlen", "kernels_used": {"lamb": "triton"}}


def test_lamb_runs_on_torchs_lists_unless_its_kernel_was_chosen() -> None:
    assert lamb_implementation({"lamb": "triton"}) == "triton"
    assert lamb_implementation({"lamb": "torch"}) == lamb_implementation({}) == "foreach"


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, ["residual_norm", "bias_gelu", "lamb"]),
        ({"model_type": "mosaic_bert", "next_sentence": False}, ["residual_norm", "geglu", "lamb"]),
    ],
)
def test_what_a_model_does_not_do_is_not_measured(changes: dict[str, object], steps: list[str]) -> None:
    model = build_model(small_config(**changes))
    assert kernels_of(model, Lamb(model.parameters())) == steps
