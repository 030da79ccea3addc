# shellcheck shell=bash
# ==== Environment of your cluster: edit this block; every script of this folder reads it ====
# modules:     module load cuda/12.6 gcc/12
# conda:       source /path/to/miniconda3/bin/activate bert_pytorch
# venv:        source /path/to/.venv/bin/activate
# container:   PYTHON=/path/to/a/script/that/says: exec apptainer exec --nv image.sif python "$@"
# network:     export NCCL_SOCKET_IFNAME=hsn0 GLOO_SOCKET_IFNAME=hsn0   (otherwise found by route; --interface)
# ==== End of the block ====
