"""The configuration of a pretraining run: its own keys and those of its components, all flat."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from bert_pytorch.checkpoints.config import CheckpointConfig
from bert_pytorch.data.config import DataConfig
from bert_pytorch.interop.nvidia import Hints
from bert_pytorch.models.distillation import DistillationConfig
from bert_pytorch.optim.config import OptimizerConfig
from bert_pytorch.optim.kfac.config import KfacConfig
from bert_pytorch.optim.schedules import ScheduleConfig
from bert_pytorch.runtime.compilation import CompileConfig
from bert_pytorch.runtime.placement import PlacementConfig
from bert_pytorch.runtime.precision import PrecisionConfig
from bert_pytorch.runtime.rendezvous import RendezvousConfig
from bert_pytorch.tracking.config import TrackingConfig

_RESUMING = "nothing: a second start in the same --output_dir continues by itself"


class PretrainingConfig(
    TrackingConfig,
    CheckpointConfig,
    PrecisionConfig,
    CompileConfig,
    PlacementConfig,
    RendezvousConfig,
    DataConfig,
    ScheduleConfig,
    OptimizerConfig,
    KfacConfig,
    DistillationConfig,
):
    """All keys of a pretraining run."""

    output_dir: Path | None = None
    """Folder of the run: checkpoints, logs, curves, the exported model.  Required.  `{run_name}` in it is replaced."""
    run_name: str | None = None
    """Replaces `{run_name}` in --output_dir; by default the name of the --config_file without its ending."""
    model_config_file: str | None = None
    """Shape of the model: a JSON file, or the name of a shipped one (bert_base_uncased).  Required for a new model."""
    config_file: Path | None = None
    """JSON or YAML file of these keys, beneath the command line."""
    init_checkpoint: Path | None = None
    """Start from these weights: a ckpt_N.pt, a run's output folder, a Hugging Face folder, the hub's name of a model
    (owner/name), or NVIDIA's or the fork's ckpt_N.pt (with --model_config_file and --vocab_file where none lie beside
    it).  The corpus's vocabulary may extend theirs.  Ignored when the output folder already holds a checkpoint, which
    is continued."""
    eval_dir: str | None = None
    """Held-out shards or text; by default the eval_*.hdf5 beside the training shards, or text's
    validation split."""
    eval_interval: int = Field(0, ge=0)
    """Updates between evaluations on the held-out set; 0 evaluates at the beginning and at the end of a phase."""
    max_steps: int = Field(1000, ge=0)
    """Updates of this phase; 0 only evaluates --init_checkpoint."""
    steps: int | None = Field(None, ge=1)
    """Updates of this session; by default no limit but --max_steps."""
    time_limit_minutes: float | None = Field(None, gt=0)
    """Wall-clock limit of this session: it ends in time with its state saved and exit code 75."""
    previous_phase_end_step: int = Field(0, ge=0)
    """Updates done before this phase (BERT-large phase 2: 7038).  The checkpoint of that number is carried on: weights
    and optimizer moments, with a schedule and data of this phase's own."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, about a third more time."""
    cuda_graphs: bool = False
    """Record a micro-batch's kernels once and replay them: for small models or micro-batches on a fast GPU, which waits
    for Python otherwise. Needs --packing rows."""
    attention: Literal["auto", "sdpa", "reference", "varlen", "flash_attn", "triton", "flex"] = "auto"
    """Attention: auto measures at the start what a GPU does fastest and tells; sdpa is torch's fused kernels, reference
    the plain computation that all are checked against; the others run on CUDA GPUs, on sequences without padding."""
    overwrite: bool = False
    """Remove the run that is in --output_dir and start anew."""
    dry_run: bool = False
    """Print every value with its origin and the numbers that follow from them, then stop."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "max_update": "--max_steps",
        "num_train_epochs": "--max_steps",
        "steps_this_run": "--steps",
        "log_freq": "--log_interval",
        "bert_model": "--model_config_file",
        "phase2": "--previous_phase_end_step",
        "phase1_end_step": "--previous_phase_end_step",
        "resume_from_checkpoint": _RESUMING,
        "resume_step": _RESUMING,
        "resume_phase2": _RESUMING,
        "do_train": "nothing: training is what this program does",
        "json_summary": "nothing: metrics.jsonl in --output_dir holds every number",
        "max_seq_length": "nothing: the shards say how long their sequences are (text: --max_seq_len)",
        "local_rank": "nothing: torchrun tells each process its rank",
        "use_env": "nothing: torchrun tells each process its rank",
        "no_cuda": "--device cpu",
    }

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or contradictory."""
        yield from super().combination_problems()
        if self.max_steps == 0:
            for name, value in (("--init_checkpoint", self.init_checkpoint), ("--eval_dir", self.eval_dir)):
                if value is None:
                    yield f"{name} is missing: --max_steps 0 only evaluates, for which it is needed."
            return
        if not self.input_dir and not self.dry_run:
            yield "--input_dir is missing: name the folder of shards that `python -m bert_pytorch.corpus encode` wrote."
        if self.output_dir is None and not self.dry_run:
            yield "--output_dir is missing: name the folder for checkpoints, logs and the model."
        if self.model_config_file is None and self.init_checkpoint is None and self.previous_phase_end_step == 0:
            yield "--model_config_file is missing: name a shipped model (bert_base_uncased) or a JSON file of your own."
        if self.init_checkpoint is not None and self.init_from_teacher_layers:
            yield "--init_checkpoint and --init_from_teacher_layers both say what to begin from; keep one of them."
        if self.cuda_graphs and self.packing != "rows":
            yield f"--cuda_graphs wants micro-batches of one shape: add --packing rows (found {self.packing})."
        if self.cuda_graphs and self.checkpoint_activations:
            yield "--checkpoint_activations draws random numbers twice, which --cuda_graphs cannot; keep one of them."
        for name, used in (("compile", self.compile), ("cuda_graphs", self.cuda_graphs)):
            if self.kfac and used:
                yield f"--kfac watches layers in some updates, which --{name} would make it miss; keep one of them."
        if self.dry_run and self.overwrite:
            yield "--dry_run changes nothing and --overwrite removes a run; keep one of them."
        if self.overwrite and self.previous_phase_end_step > 0:
            yield (
                "--overwrite would remove the checkpoint that this phase carries on (--previous_phase_end_step "
                f"{self.previous_phase_end_step}). Give another --output_dir and the checkpoint as --init_checkpoint."
            )
        if self.run_name is not None and (self.run_name in ("", ".", "..") or "/" in self.run_name):
            yield f"--run_name: found {self.run_name!r}, wanted a name without slashes."

    def with_run_name(self) -> Self:
        """Return the configuration with `{run_name}` replaced in the names of what the run writes."""
        name = self.run_name or (self.config_file.stem if self.config_file is not None else "pretraining")
        output_dir = None if self.output_dir is None else Path(str(self.output_dir).replace("{run_name}", name))
        log_prefix = self.log_prefix.replace("{run_name}", name)
        return self.model_copy(update={"run_name": name, "output_dir": output_dir, "log_prefix": log_prefix})

    def time_limit_seconds(self) -> float | None:
        """Return `--time_limit_minutes` in seconds."""
        return None if self.time_limit_minutes is None else self.time_limit_minutes * 60

    def hints(self) -> Hints:
        """Return what the options say about a source that does not hold its own shape and vocabulary."""
        return Hints(self.model_config_file, self.vocab_file)

    def folder(self) -> Path:
        """Return `--output_dir`, which every configuration that trains has."""
        assert self.output_dir is not None
        return self.output_dir
