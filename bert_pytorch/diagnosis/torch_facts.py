"""Prints what torch says about this machine as JSON, for `inspect environment`, which survives it if torch does not."""

import json
import sys

import torch

from bert_pytorch.models.attention_choice import Machine, Needs, candidates
from bert_pytorch.models.patterns import Pattern
from bert_pytorch.runtime.device import DeviceConfig, choose_device
from bert_pytorch.runtime.gpus import gpus_here, library_versions
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision


def torch_facts() -> dict[str, object]:
    """Return versions, GPUs and what `auto` means here; attention as BERT-base with dropout 0 asks for it."""
    chosen = choose_device(DeviceConfig(), local_rank=0)
    precision = choose_precision(PrecisionConfig(), chosen.device)
    needs = Needs(precision.dtype, heads=12, head_size=64, dropout_p=0.0, patterns={Pattern(): 12})
    # Looking for libraries loads torch's compiler, two seconds that say nothing where there is no GPU.
    on_gpu = chosen.device.type == "cuda"
    machine = Machine.here(chosen.device, windows=False) if on_gpu else Machine(chosen.device.type)
    return {
        "versions": library_versions(),
        "device": chosen.reason,
        "threads": torch.get_num_threads(),
        "gpus": [gpu._asdict() for gpu in gpus_here()],
        "precision": f"{precision.name} ({precision.reason})",
        "attention": {each.name: each.problem or "can be used" for each in candidates(needs, machine)},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(torch_facts()) + "\n")
