#!/usr/bin/env bash
# What a machine with a CUDA GPU shall run first: the kernels' tests on the device, then their times.  About 4 minutes.
#
#     ./scripts/first_on_gpu.sh [OUTPUT_DIR]
#
# Uses the active environment (torch for CUDA, triton, pytest, hypothesis, PyYAML) and, where pydantic is missing there,
# a folder made before, for its Python (and named in `carry` where it travels):
#
#     pip install --target .device_deps --python-version 3.12 --only-binary=:all: pydantic==2.14.3
set -uo pipefail
cd "$(dirname "$0")/.."
output="${1:-${OUT:-gpu_results}}"
mkdir -p "$output"
[ -d .device_deps ] && export PYTHONPATH="$PWD/.device_deps${PYTHONPATH:+:$PYTHONPATH}"
python3 -c "import torch, triton; print(torch.__version__, triton.__version__, torch.cuda.get_device_name())" | tee "$output/versions.txt"
python3 -m pytest -q -p no:cacheprovider tests/numerics/test_triton_kernels.py tests/numerics/test_triton_lamb.py \
    tests/numerics/test_models_on_kernels.py tests/unit/models/test_attention_cuda.py 2>&1 | tee "$output/tests.txt"
status=$?
python3 -m benchmarks.kernels --model bert_large_uncased | tee "$output/kernels_bert_large.txt" || status=1
python3 -m benchmarks.kernels --model bert_base_uncased | tee "$output/kernels_bert_base.txt" || status=1
exit "$status"
