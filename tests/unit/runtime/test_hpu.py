"""Choosing a Gaudi: when, in which mode, and what is said where there is none.  Driven by a stand-in."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bert_pytorch.errors import ConfigError
from bert_pytorch.finetuning.squad import SquadRunConfig
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.runtime import hpu
from bert_pytorch.runtime.device import (
    DeviceConfig,
    choose_device,
    end_graph,
    forget_peak_memory,
    peak_memory_gib,
    widest_float,
)
from bert_pytorch.runtime.peak import known_peak_flops
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.runtime.ranks import Ranks
from bert_pytorch.runtime.timing import synchronize
from tests.support.habana import gaudi

HPU = torch.device("hpu")

HABANA_PRETRAINING = """
    input_dir config_file output_dir bert_model init_checkpoint max_seq_length max_predictions_per_seq train_batch_size
    learning_rate num_train_epochs max_steps warmup_proportion local_rank seed gradient_accumulation_steps fp16 amp
    loss_scale log_freq checkpoint_activations resume_from_checkpoint resume_step num_steps_per_checkpoint
    skip_checkpoint phase2 allreduce_post_accumulation allreduce_post_accumulation_fp16 phase1_end_step init_loss_scale
    do_train json_summary use_env disable_progress_bar steps_this_run no_cuda use_habana autocast hmp hmp_bf16 hmp_fp32
    hmp_opt_level hmp_verbose use_fused_lamb use_lazy_mode enable_packed_data_mode use_zero_optimizer profile
    profile_steps tensorboard_logdir use_hpu_graphs use_torch_compile no_compiled_autograd log_memory_usage
    enable_tensorboard_logging
""".split()
HABANA_SQUAD = """
    bert_model output_dir init_checkpoint vocab_file config_file train_file predict_file max_seq_length doc_stride
    max_query_length do_train do_predict do_eval eval_script train_batch_size predict_batch_size learning_rate
    num_train_epochs max_steps warmup_proportion n_best_size max_answer_length seed gradient_accumulation_steps
    do_lower_case version_2_with_negative null_score_diff_threshold log_freq json_summary skip_checkpoint skip_cache
    cache_dir use_habana use_hpu_graphs autocast hmp hmp_bf16 hmp_fp32 hmp_opt_level hmp_verbose use_lazy_mode
    use_fused_adam per_param_grad_clipping throughput_warmup_steps profile profile_steps tensorboard_logdir
    use_torch_compile compiled_autograd enable_tensorboard_logging log_memory_usage
""".split()


@pytest.fixture
def lazy() -> Iterator[list[str]]:
    with gaudi(lazy=True) as calls:
        hpu.load(compiles=False, dynamic_shapes=False)
        yield calls


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto takes the GPU")
def test_auto_takes_a_gaudi_where_there_is_one_and_the_cpu_where_there_is_none() -> None:
    with gaudi():
        assert choose_device(DeviceConfig(), 0).device == HPU
    with gaudi(devices=0):
        chosen = choose_device(DeviceConfig(), 0)
        assert chosen.device.type == "cpu"
        assert "neither a CUDA GPU nor a Gaudi is visible" in chosen.reason
    with gaudi():
        assert choose_device(DeviceConfig(device="cpu"), 0).device.type == "cpu"
        assert "habana_frameworks.torch.core" not in sys.modules


def test_a_gaudi_that_is_asked_for_and_is_not_there_gets_one_message() -> None:
    with pytest.raises(ConfigError, match=r"--device hpu: it needs Habana's PyTorch, .* habana_frameworks"):
        choose_device(DeviceConfig(device="hpu"), 0)
    assert "PT_HPU_LAZY_MODE" not in os.environ
    with gaudi(devices=0), pytest.raises(ConfigError, match=r"--device hpu: no Gaudi is visible .* hl-smi"):
        choose_device(DeviceConfig(device="hpu"), 0)
    with gaudi(devices=2), pytest.raises(ConfigError, match=r"local rank 2 wants a Gaudi of its own, found 2"):
        choose_device(DeviceConfig(device="hpu"), 2)


def test_a_library_that_does_not_load_is_no_reason_to_stop_unless_it_is_asked_for(tmp_path: Path) -> None:
    broken = tmp_path / "habana_frameworks" / "torch"
    broken.mkdir(parents=True)
    for folder in (broken, broken.parent):
        (folder / "__init__.py").touch()
    (broken / "core.py").write_text("raise AssertionError('Stock PyTorch is not supported in Lazy mode')\n")
    with gaudi(), pytest.MonkeyPatch.context() as inner:  # taken back before the stand-in, whose path it remembers
        inner.syspath_prepend(tmp_path)
        with pytest.raises(ConfigError, match=r"in lazy mode \(Stock PyTorch .* PT_HPU_LAZY_MODE=0 asks for the other"):
            choose_device(DeviceConfig(device="hpu"), 0)
        if not torch.cuda.is_available():
            chosen = choose_device(DeviceConfig(), 0)
            assert chosen.device.type == "cpu"
            assert "Stock PyTorch" in chosen.reason


@pytest.mark.parametrize(
    ("said", "compiles", "mode"), [(None, False, "1"), (None, True, "0"), (True, False, "1"), (False, False, "0")]
)
def test_lazy_mode_is_taken_unless_something_is_compiled_or_the_environment_says_so(
    said: bool | None, compiles: bool, mode: str
) -> None:
    with gaudi(lazy=said) as calls:
        hpu.load(compiles=compiles, dynamic_shapes=False)
        assert os.environ["PT_HPU_LAZY_MODE"] == mode
        assert "PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES" not in os.environ
        end_graph(HPU)
        assert calls == ["import core", *["mark_step"] * int(mode)]


def test_compiling_in_lazy_mode_is_refused() -> None:
    with gaudi(lazy=True), pytest.raises(ConfigError, match=r"--compile: .* eager mode, found PT_HPU_LAZY_MODE=1"):
        hpu.load(compiles=True, dynamic_shapes=False)


def test_a_library_that_torch_has_loaded_is_in_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    with gaudi():
        monkeypatch.setitem(sys.modules, "habana_frameworks.torch", sys)
        with pytest.raises(ConfigError):  # the module is a sham: only the mode matters
            hpu.load(compiles=False, dynamic_shapes=False)
        assert os.environ["PT_HPU_LAZY_MODE"] == "0"


@pytest.mark.parametrize(
    ("asked", "vary", "on"), [(None, False, False), (None, True, True), (False, True, False), (True, False, True)]
)
def test_shapes_are_put_in_buckets_where_they_vary_or_where_it_is_asked_for(
    asked: bool | None, vary: bool, on: bool
) -> None:
    with gaudi():
        choose_device(DeviceConfig(device="hpu", hpu_dynamic_shapes=asked), 0, shapes_vary=vary)
        assert os.environ.get("PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES", "0") == str(int(on))


def test_precision_is_bf16_by_default_and_never_fp16(lazy: list[str]) -> None:
    assert choose_precision(PrecisionConfig(), HPU).name == "bf16"
    assert choose_precision(PrecisionConfig(precision="fp32"), HPU).name == "fp32"
    with pytest.raises(ConfigError, match="bf16 or fp32"):
        choose_precision(PrecisionConfig(fp16=True), HPU)
    assert widest_float(HPU) == torch.float32
    with choose_precision(PrecisionConfig(), HPU).autocast():
        assert torch.is_autocast_enabled("hpu")
        assert torch.get_autocast_dtype("hpu") == torch.bfloat16


def test_memory_peak_and_name_are_asked_of_habana(lazy: list[str]) -> None:
    assert peak_memory_gib(HPU) == 3.0
    forget_peak_memory(HPU)
    assert known_peak_flops(HPU) == 432e12
    synchronize(HPU)
    wanted = ["max_memory_allocated", "reset_peak_memory_stats", "get_device_name", "mark_step", "synchronize"]
    assert lazy[1:] == wanted


def test_each_rank_is_told_which_gaudi_is_its_own(lazy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    hpu.join(Ranks(rank=9, size=16, local_rank=1))
    assert lazy[1:] == ["initialize_distributed_hpu(16, 9, 1)"]


def test_the_stand_in_refuses_what_is_not_documented_and_what_a_gaudi_has_not(lazy: list[str]) -> None:
    core = sys.modules["habana_frameworks.torch.core"]
    with pytest.raises(AttributeError, match="hpu_magic"):
        core.hpu_magic()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64, device="hpu")
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device="hpu") + torch.ones(2)
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device="hpu").numpy()


@pytest.mark.parametrize("flag", HABANA_PRETRAINING)
def test_every_flag_of_habanas_pretraining_is_ours_or_is_answered(flag: str) -> None:
    assert flag in PretrainingConfig.model_fields or flag in PretrainingConfig.all_renamed_flags()


@pytest.mark.parametrize("flag", HABANA_SQUAD)
def test_every_flag_of_habanas_squad_is_ours_or_is_answered(flag: str) -> None:
    assert flag in SquadRunConfig.model_fields or flag in SquadRunConfig.all_renamed_flags()
