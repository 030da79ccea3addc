"""Training and predicting on a Gaudi from the command line: the numbers of a CPU, in Habana's order of calls.

There is no Gaudi: `tests.support.habana` stands for it.  Its tensors lie on the host and say that they do not, so that
all of this package's code takes the ways that it would take on one.
"""

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_pytorch import predict
from tests.support.finetuning import small_encoder, small_task_model
from tests.support.habana import DEVICES, SITE, gaudi
from tests.support.habana.graphs import GatheredGraphs
from tests.support.runs import REPOSITORY, checkpoint, metrics, pretrain_here, run_here, run_program, words
from tests.support.squad_files import letters, squad_here


@pytest.fixture(scope="module")
def flags(shards64: Path, still_model: Path) -> dict[str, Any]:
    return {
        "input_dir": shards64,
        "model_config_file": still_model,
        "learning_rate": 2e-3,
        "global_batch_size": 23,
        "local_batch_size": 3,
        "max_sequences_per_row": 4,
        "max_grad_norm": 0.1,
        "max_steps": 4,
        "precision": "fp32",
    }


@pytest.fixture(scope="module")
def on_cpu(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run that all others are compared with."""
    run = tmp_path_factory.mktemp("hpu") / "cpu"
    assert pretrain_here(**flags, output_dir=run, device="cpu").code == 0
    return run


def order(calls: list[str]) -> str:
    """Spell the calls of training with a letter each, from the first backward pass to the last step's end."""
    letters = {"backward": "b", "mark_step": "m", "FusedClipNorm.clip_norm": "c", "FusedLamb.step": "s"}
    spelled = "".join(letters.get(call, "") for call in calls)
    last = spelled.rindex("s")
    return spelled[spelled.index("b") : last + (2 if spelled[last + 1 : last + 2] == "m" else 1)]


def same_run(found: Path, wanted: Path) -> None:
    """Compare two runs by their rows and by the weights and moments of their last checkpoint."""
    for one, other in zip(metrics(found, "train"), metrics(wanted, "train"), strict=True):
        for key in ("loss", "mlm_loss", "nsp_loss"):
            assert one[key] == pytest.approx(other[key], rel=2e-5), key
        # The host's _foreach_norm adds squares one after another (optim.norms), which a device does not.
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert one["samples"] == other["samples"]
    held_out = {row["step"]: row for row in metrics(found, "eval")}
    for other in metrics(wanted, "eval"):
        one = held_out[other["step"]]
        assert one["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=1e-5)
        assert one["masked_tokens"] == other["masked_tokens"]
    first, second = (checkpoint(run, 4) for run in (found, wanted))
    assert first["model"].keys() == second["model"].keys()
    for name, tensor in second["model"].items():
        torch.testing.assert_close(first["model"][name], tensor, rtol=1e-4, atol=1e-6)
    for index, moments in second["optimizer"]["state"].items():
        for name, tensor in moments.items():
            torch.testing.assert_close(first["optimizer"]["state"][index][name], tensor, rtol=1e-3, atol=1e-6)


def test_a_run_in_lazy_mode_has_the_numbers_of_a_cpu_and_marks_each_step(
    flags: dict[str, Any], on_cpu: Path, tmp_path: Path
) -> None:
    with gaudi() as calls:
        outcome = pretrain_here(**flags, output_dir=tmp_path / "hpu", device="hpu")
        assert outcome.code == 0, outcome.err
        made = list(calls)
    same_run(tmp_path / "hpu", on_cpu)
    assert re.fullmatch("((bm)+csm){4}", order(made)), order(made)
    assert "bmbm" in order(made)  # micro-batches of an update each end a graph of their own
    (log,) = [path.read_text() for path in (tmp_path / "hpu").glob("*.txt")]
    assert "device: hpu, lazy mode" in log
    assert "micro-batches: 3 rows of 64 tokens" in log  # what --packing auto takes
    assert "attention: row_sdpa" in log
    assert "Habana's FusedLamb" in log
    assert [row["peak_memory_gib"] for row in metrics(tmp_path / "hpu", "train")] == [3.0] * 4


def test_a_run_in_compile_mode_has_the_numbers_of_a_cpu_and_marks_nothing(
    flags: dict[str, Any], on_cpu: Path, tmp_path: Path
) -> None:
    with gaudi() as calls:
        outcome = pretrain_here(**flags, output_dir=tmp_path / "hpu", device="hpu", compile=True)
        assert outcome.code == 0, outcome.err
        made = list(calls)
    same_run(tmp_path / "hpu", on_cpu)
    assert "mark_step" not in made
    assert re.fullmatch("(b+cs){4}", order(made)), order(made)
    assert made.count("torch.compile(hpu_backend)") > 1  # one to see that it works, then the parts of the model
    assert made.index("compiled") < made.index("backward")


def test_graphs_of_rows_come_again_and_those_of_tokens_do_not(flags: dict[str, Any], tmp_path: Path) -> None:
    kinds = {}
    for packing in ("auto", "tokens"):
        with gaudi(), GatheredGraphs() as gathered:
            outcome = pretrain_here(
                **{**flags, "max_steps": 6}, output_dir=tmp_path / packing, device="hpu", packing=packing
            )
            assert outcome.code == 0, outcome.err
        training = [graph for graph in gathered.graphs if any("backward" in name for name, *_ in graph)]
        kinds[packing] = len(training), len(set(training))
    graphs, compiled = kinds["auto"]
    assert graphs > 12
    assert compiled == 3, kinds  # the very first, an update's first, and one that adds to gradients
    assert kinds["tokens"][1] > 6, kinds


def test_passes_run_under_bf16_by_default(flags: dict[str, Any], tmp_path: Path) -> None:
    seen = set()
    plain = torch.nn.functional.linear

    def linear(*args: Any) -> torch.Tensor:
        seen.add(torch.is_autocast_enabled("hpu") and torch.get_autocast_dtype("hpu"))
        return plain(*args)

    with gaudi(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.functional, "linear", linear)
        outcome = pretrain_here(**{**flags, "precision": None}, output_dir=tmp_path / "run", device="hpu")
    assert outcome.code == 0, outcome.err
    assert seen == {torch.bfloat16}


def test_two_ranks_over_hccl_have_the_numbers_of_one_cpu(flags: dict[str, Any], on_cpu: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    program = [*launcher, str(REPOSITORY / "run_pretraining.py")]
    asked = words({**flags, "output_dir": tmp_path / "ranks", "device": "hpu"})
    outcome = run_program([*program, *asked], PYTHONPATH=f"{SITE}:{REPOSITORY}", **{DEVICES: "2"})
    assert outcome.code == 0, outcome.err
    same_run(tmp_path / "ranks", on_cpu)


def test_answers_on_a_gaudi_are_those_of_a_cpu_from_a_graph_for_each_shape(tmp_path: Path) -> None:
    model = small_task_model(tmp_path / "model", "question_answering", labels=())
    asked = {
        "init_checkpoint": model,
        "predict_file": letters(tmp_path / "asked.json", 9, longest=22),
        "do_predict": True,
        "do_eval": True,
        "max_seq_length": 40,
        "max_query_length": 8,
        "doc_stride": 8,
        "predict_batch_size": 4,
        "max_tokens": 130,
        "benchmark_batches": 2,
        "precision": "fp32",
    }
    assert squad_here(**asked, device="cpu", output_dir=tmp_path / "cpu").code == 0
    with gaudi() as calls:
        outcome = squad_here(**asked, device="hpu", output_dir=tmp_path / "hpu")
        assert outcome.code == 0, outcome.err
        made = list(calls)
    for name in ("predictions.json", "eval_results.json"):
        found, wanted = (json.loads((tmp_path / run / name).read_text()) for run in ("hpu", "cpu"))
        assert found == wanted
    shapes = made.count("wrap_in_hpu_graph")
    assert shapes in (1, 2)  # rows of 32 and of 40 tokens
    assert made.count("capture") == shapes
    assert made.count("replay") > 3
    timed = json.loads((tmp_path / "hpu" / "inference_benchmark.json").read_text())
    assert timed["device"] == "hpu"


def test_held_out_losses_and_vectors_of_given_weights_are_those_of_a_cpu(
    flags: dict[str, Any], on_cpu: Path, tmp_path: Path
) -> None:
    encoder = small_encoder(tmp_path / "encoder")
    texts = ["the capital of france is paris .", "good", "a bad king"]
    asked = {"init_checkpoint": on_cpu, "eval_dir": flags["input_dir"], "max_steps": 0, "precision": "fp32"}
    told, vectors = [], []
    for device, there in (("cpu", contextlib.nullcontext()), ("hpu", gaudi())):
        argv = ["embed", "--checkpoint", str(encoder), "--device", device, "--precision", "fp32", *texts]
        with there:
            told.append(pretrain_here(**asked, device=device).out)
            vectors.append([json.loads(line)["embedding"] for line in run_here(predict.main, argv).out.splitlines()])
    losses = [re.search(r"held-out mlm_loss (\S+) .* over (\d+) masked tokens", each) for each in told]
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[0].groups() == losses[1].groups()
    assert len(vectors[0]) == len(texts)
    assert vectors[1] == [pytest.approx(vector, abs=1e-6) for vector in vectors[0]]


def test_a_task_is_trained_on_a_gaudi_with_shapes_in_buckets(tmp_path: Path) -> None:
    model = small_task_model(tmp_path / "model", "question_answering", labels=())
    asked = {
        "init_checkpoint": model,
        "train_file": letters(tmp_path / "train.json", 8),
        "do_train": True,
        "max_seq_length": 40,
        "max_query_length": 8,
        "doc_stride": 8,
        "train_batch_size": 6,
        "max_steps": 3,
        "precision": "fp32",
        "adam_epsilon": 1e-9,
    }
    assert squad_here(**asked, device="cpu", output_dir=tmp_path / "cpu").code == 0
    with gaudi() as calls:
        outcome = squad_here(**asked, device="hpu", output_dir=tmp_path / "hpu")
        assert outcome.code == 0, outcome.err
        assert calls.count("FusedAdamW.step") == 3
        assert "shapes in buckets" in outcome.out + outcome.err
    for one, other in zip(metrics(tmp_path / "hpu", "train"), metrics(tmp_path / "cpu", "train"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_run_that_began_on_a_gaudi_goes_on_on_a_cpu(flags: dict[str, Any], on_cpu: Path, tmp_path: Path) -> None:
    with gaudi():
        assert pretrain_here(**flags, output_dir=tmp_path / "both", device="hpu", steps=2).code == 0
    outcome = pretrain_here(**flags, output_dir=tmp_path / "both", device="cpu")
    assert outcome.code == 0, outcome.err
    same_run(tmp_path / "both", on_cpu)


def test_a_gaudi_that_is_not_there_and_habanas_flag_get_one_message(flags: dict[str, Any], tmp_path: Path) -> None:
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run", device="hpu")
    assert outcome.code == 2
    assert outcome.err.count("error:") == 1
    assert "habana_frameworks" in outcome.err
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run", use_habana=True)
    assert outcome.code == 2
    assert "--use_habana is not a flag here: use --device hpu." in outcome.err
    with gaudi():
        outcome = pretrain_here(**flags, output_dir=tmp_path / "run", device="hpu", length_group_updates=1)
    assert outcome.code == 2
    assert "--packing rows, which --device hpu takes" in outcome.err
