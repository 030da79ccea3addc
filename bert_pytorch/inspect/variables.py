"""Which environment variables a bug report may show, and how."""

import re
from collections.abc import Mapping

from bert_pytorch.inspect.terminal import printable

SHOWN = (
    # ranks and where they meet
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *(
        "TORCHELASTIC_",
        "OMPI_COMM_WORLD_",
        "PMI_",
        "PALS_",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
        "KUBERNETES_SERVICE_HOST",
    ),
    # schedulers
    *("SLURM_", "PBS_", "COBALT_", "PE_HOSTFILE", "NSLOTS", "NHOSTS", "JOB_ID", "AZ_BATCH_HOST_LIST"),
    # devices, threads, networks
    *("CUDA_", "NVIDIA_VISIBLE_DEVICES", "HABANA_", "PT_HPU_", "HLS_MODULE_ID", "OMP_", "MKL_", "KMP_", "GOMP_"),
    *("OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "MALLOC_", "LD_PRELOAD"),
    *("NCCL_", "GLOO_", "UCX_", "FI_", "HCCL_"),
    # libraries
    *("PYTORCH_", "TORCH_", "TORCHINDUCTOR_", "TRITON_", "BERT_PYTORCH_", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
)
"""Names and beginnings of names (those that end in _); all others stay out."""

_SECRET = re.compile(r"TOKEN|SECRET|PASS|CRED|COOKIE|AUTH|JWT|(^|_)KEY|KEY(S)?$", re.IGNORECASE)
_USER_IN_ADDRESS = re.compile(r"://[^/\s@]*@")
_LONGEST = 200
HIDDEN = "(hidden)"


def shown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter to a run, sorted by name; secrets are named but not shown.

    Args:
        environment: of the process.
    """
    return {name: _value(name, environment[name]) for name in sorted(environment) if _is_shown(name)}


def _is_shown(name: str) -> bool:
    return any(name.startswith(known) if known.endswith("_") else name == known for known in SHOWN)


def _value(name: str, value: str) -> str:
    if _SECRET.search(name):
        return HIDDEN
    value = printable(_USER_IN_ADDRESS.sub(f"://{HIDDEN}@", value))
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value)} characters)"
