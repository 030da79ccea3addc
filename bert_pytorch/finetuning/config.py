"""The configuration that all fine-tuning runs share; each program adds its task's keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from bert_pytorch.checkpoints.config import CheckpointConfig
from bert_pytorch.interop.nvidia import Hints
from bert_pytorch.optim.config import OptimizerConfig
from bert_pytorch.optim.schedules import ScheduleConfig
from bert_pytorch.runtime.compilation import CompileConfig
from bert_pytorch.runtime.placement import PlacementConfig
from bert_pytorch.runtime.precision import PrecisionConfig
from bert_pytorch.runtime.rendezvous import RendezvousConfig
from bert_pytorch.tracking.config import TrackingConfig

_RESUMING = "nothing: a second start in the same --output_dir continues by itself"


class FinetuningConfig(
    TrackingConfig,
    CheckpointConfig,
    PrecisionConfig,
    CompileConfig,
    PlacementConfig,
    RendezvousConfig,
    ScheduleConfig,
    OptimizerConfig,
):
    """Keys of every fine-tuning run."""

    init_checkpoint: Path | None = None
    """The model to start from, or to evaluate: a ckpt_N.pt, a run's output folder, a Hugging Face folder, with a task's
    head or without, the hub's name of a model (owner/name), NVIDIA's or the fork's ckpt_N.pt.  Its shape, vocabulary
    and casing are used."""
    model_config_file: str | None = None
    """Shape of a model that is trained from scratch: a JSON file, or the name of a shipped one; with --vocab_file.
    With --init_checkpoint only for checkpoints that do not hold their own (NVIDIA's)."""
    vocab_file: Path | None = None
    """Vocabulary of a model that is trained from scratch, or of a checkpoint that does not hold its own."""
    do_lower_case: bool | None = None
    """Casing, where it is to be said; one that contradicts the checkpoint is refused."""
    output_dir: Path | None = None
    """Folder of the run: results, predictions, metrics, checkpoints, model/.  Required."""
    config_file: Path | None = None
    """JSON or YAML file of these keys, beneath the command line."""
    do_train: bool = False
    """Train.  A second start in the same --output_dir continues."""
    do_eval: bool = False
    """Evaluate: while training, which keeps the best checkpoint, and at the end."""
    do_predict: bool = False
    """Predict and write the predictions."""
    train_batch_size: int = Field(32, gt=0)
    """Sequences of an update over all ranks; met exactly."""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """Micro-batches of an update at least, on each rank; the update is the same however it is cut."""
    predict_batch_size: int = Field(64, gt=0)
    """Sequences of a batch at most when evaluating and predicting."""
    benchmark_batches: int = Field(0, ge=0)
    """With --do_predict: time the model on so many batches of --predict_batch_size sequences, one batch at a time;
    sequences/s and percentiles of the latency go to inference_benchmark.json."""
    max_tokens: int = Field(16384, gt=0)
    """Tokens of a micro-batch at most, over which an update is cut further."""
    max_seq_length: int = Field(128, ge=8)
    """Tokens of a sequence at most, special ones included."""
    num_train_epochs: float = Field(3.0, gt=0)
    """Passes over the training sequences; the last update is filled up from the next pass."""
    max_steps: int | None = Field(None, ge=1)
    """Updates, instead of --num_train_epochs."""
    steps: int | None = Field(None, ge=1)
    """Updates of this session; by default no limit but the end."""
    time_limit_minutes: float | None = Field(None, gt=0)
    """Wall-clock limit of this session: it ends in time with its state saved and exit code 75."""
    eval_interval: int = Field(0, ge=0)
    """Updates between evaluations while training; 0: once an epoch."""
    keep_best: bool = True
    """With --do_eval: at the end, go back to the checkpoint that was evaluated best."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Evaluations in a row without an improvement after which training ends."""
    length_group_updates: int = Field(0, ge=0)
    """Sort the sequences of this many updates by length, so that those of an update are of similar lengths; 0 or 1
    leaves them in random order.  Nothing is padded in either case."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Learning rate of each layer as a part of that of the layer above it; the head has the full one (Clark et al.
    2020, table 7: 0.8 to 0.9)."""
    hidden_dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout of hidden states, and before the head; by default the checkpoint's."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention probabilities, which the fast kernels do not have; BERT's authors take 0.1."""
    attention: Literal["auto", "sdpa", "reference", "varlen", "flash_attn", "triton", "flex"] = "auto"
    """Attention, as in run_pretraining.py."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, about a third more time."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seed of the head's initial weights, the order of sequences and dropout."""
    cache_dir: Path | None = None
    """Folder that keeps tokenized files between runs; by default bert_pytorch/features in ~/.cache."""
    plots: bool = False
    """Draw the loss and the metrics over the updates: curves.png."""
    skip_cache: bool = False
    """Keep no tokenized files."""
    overwrite: bool = False
    """Remove the run that is in --output_dir and start anew."""

    # Defaults that are fine-tuning's (Devlin et al. 2019, A.3).
    optimizer: Literal["lamb", "adamw"] = "adamw"
    """adamw, or lamb for very large batches."""
    lr_decay: Literal["poly", "linear", "cosine", "constant"] = "linear"
    """Shape of the decay after warm-up."""
    warmup_proportion: float = Field(0.1, ge=0, le=1)
    """Part of the updates over which the rate rises linearly to its peak."""
    num_steps_per_checkpoint: int = Field(1000, gt=0)
    """Updates between two checkpoints; one is also written at improvements, at the end and when a run is stopped."""
    keep_checkpoints: int = Field(1, gt=0)
    """How many of the newest checkpoints are kept; the best one is kept besides."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "bert_model": "--init_checkpoint, which holds its vocabulary and shape",
        "model_name_or_path": "--init_checkpoint",
        "tokenizer": "nothing: the checkpoint says which",
        "no_cuda": "--device cpu",
        "local_rank": "nothing: torchrun tells each process its rank",
        "use_env": "nothing: torchrun tells each process its rank",
        "per_device_train_batch_size": "--train_batch_size, which counts all ranks",
        "per_gpu_train_batch_size": "--train_batch_size, which counts all ranks",
        "per_device_eval_batch_size": "--predict_batch_size",
        "eval_batch_size": "--predict_batch_size",
        "eval_steps": "--eval_interval",
        "use_fused_adam": "nothing: AdamW on Gaudi is Habana's FusedAdamW where there is one",
        "per_param_grad_clipping": "nothing: gradients are clipped to one norm over all parameters, --max_grad_norm",
        "throughput_warmup_steps": "nothing: the first update is left out of the rates of the end row",
        "resume_from_checkpoint": _RESUMING,
        "overwrite_output_dir": "--overwrite",
        "overwrite_cache": "--skip_cache",
        "lr_layer_decay": "--layer_decay",
        "json_summary": "nothing: eval_results.json and metrics.jsonl in --output_dir hold every number",
        "eval_script": "nothing: exact match and F1 are computed here",
    }

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or contradictory."""
        yield from super().combination_problems()
        if self.output_dir is None:
            yield "--output_dir is missing: name the folder for results and the model."
        if not (self.do_train or self.do_eval or self.do_predict):
            yield "nothing to do: give --do_train, --do_eval or --do_predict, or several of them."
        if self.do_train and self.init_checkpoint is None:
            wanted = {"--model_config_file": self.model_config_file, "--vocab_file": self.vocab_file}
            missing = [name for name, value in wanted.items() if value is None]
            if missing:
                yield (
                    f"--init_checkpoint is missing: name the model to start from; to train from scratch, give "
                    f"{' and '.join(missing)} instead."
                )
        if self.overwrite and not self.do_train:
            yield "--overwrite removes the run that is to be evaluated; leave it out, or give --do_train."
        if self.max_tokens < self.max_seq_length:
            yield (
                f"--max_tokens {self.max_tokens} is less than --max_seq_length {self.max_seq_length}: the longest "
                "sequence would fit into no micro-batch. Raise the one or lower the other."
            )
        if self.benchmark_batches and not self.do_predict:
            yield "--benchmark_batches times predictions: give --do_predict."
        if self.early_stopping_patience is not None and not self.do_eval:
            yield "--early_stopping_patience wants evaluations to judge by: give --do_eval."

    def missing_files(self, train: Path | None, val: Path | None, test: Path | None) -> Iterator[str]:
        """Say which of a task's files is missing for what shall be done."""
        for does, flag, file, name in (
            (self.do_train, "--do_train", train, "--train_file"),
            (self.do_eval, "--do_eval", val, "--val_file"),
            (self.do_predict, "--do_predict", test, "--test_file"),
        ):
            if does and file is None:
                yield f"{name} is missing: {flag} needs it."

    def hints(self) -> Hints:
        """Return what the options say about a source that does not hold its own shape and vocabulary."""
        return Hints(self.model_config_file, self.vocab_file)

    def time_limit_seconds(self) -> float | None:
        """Return `--time_limit_minutes` in seconds."""
        return None if self.time_limit_minutes is None else self.time_limit_minutes * 60

    def folder(self) -> Path:
        """Return `--output_dir`, which every checked configuration has."""
        assert self.output_dir is not None
        return self.output_dir
