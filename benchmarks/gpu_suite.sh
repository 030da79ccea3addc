#!/usr/bin/env bash
# All that a machine with one CUDA GPU shall tell, in under 8 minutes: tests on the device, training (H1 to H4, H11), kernels (H8).
#
#     ./benchmarks/gpu_suite.sh --prepare             # here: .device_deps and .device_data, both ignored by git
#     ./benchmarks/gpu_suite.sh [--seconds 460]       # there, with both folders; results in $OUT or benchmarks/results/gpu
#     ./benchmarks/gpu_suite.sh --rows H2 H3          # there, once more: only runs for which no time was left
#     ./benchmarks/gpu_suite.sh --rehearse            # every step on a CPU with a tiny model
#
# The device needs torch for CUDA, triton, transformers, accelerate, pytest, pytest-xdist and hypothesis, and no network; the Python
# that .device_deps is made for is DEVICE_PYTHON (3.12).  The lines of results are in *.jsonl, the rest is logs.
set -uo pipefail
cd "$(dirname "$0")/.."
mode=run seconds=460 rows=()
while [ $# -gt 0 ]; do
    case "$1" in
        --prepare) mode=prepare ;;
        --rehearse) mode=rehearse ;;
        --rows)
            while [[ "${2:-}" =~ ^H[0-9]+$ ]]; do rows+=("$2"); shift; done
            [ ${#rows[@]} -gt 0 ] || { echo "error: --rows wants H1, H2, H3 or H4." >&2; exit 2; }
            ;;
        --seconds) seconds="${2:?--seconds wants a number}"; shift ;;
        *) echo "error: unknown option $1; wanted --prepare, --rehearse, --rows ROWS or --seconds N." >&2; exit 2 ;;
    esac
    shift
done

if [ "$mode" = prepare ]; then
    set -e
    rm -rf .device_deps .device_data
    # What configuration needs; the rest of requirements.txt that training imports, such a machine has.
    grep -E '^(pydantic|tyro)==' requirements.txt | sed 's/#.*//' >.device_requirements.txt
    python3 -m pip install --quiet --target .device_deps --only-binary=:all: --no-compile \
        --python-version "${DEVICE_PYTHON:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --requirement .device_requirements.txt
    rm .device_requirements.txt
    python3 -m benchmarks.training_gpu --prepare .device_data
    du -sh .device_deps .device_data
    exit
fi

end=$((SECONDS + seconds))
output="${OUT:-benchmarks/results/gpu}"
mkdir -p "$output"
left() { echo $((end - SECONDS > 1 ? end - SECONDS : 1)); }
least() { echo $(($1 < $2 ? $1 : $2)); }
status=0
step() { # NAME SECONDS COMMAND...: its output goes to the console and NAME.txt, what fails is told and the next goes on
    local name="$1" limit="$2"
    shift 2
    echo "== $name (at most $limit s)"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$output/$name.txt"
    local code=$?
    [ "$code" = 0 ] || { echo "== $name: exit code $code" | tee -a "$output/$name.txt"; status=1; }
}

export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ "$mode" = rehearse ]; then
    tests=120 small=(--rehearse) kernels=(--model bert_tiny_uncased --tokens 256 --device cpu)
else
    export PYTHONPATH="$PWD/.device_deps${PYTHONPATH:+:$PYTHONPATH}"
    tests=75 small=() kernels=(--model bert_large_uncased)
fi
step versions 60 python3 -c "
import platform, torch
print(platform.python_version(), torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu')
import pydantic, transformers, tyro
print('pydantic', pydantic.__version__, 'transformers', transformers.__version__)"
if [ ${#rows[@]} = 0 ]; then
    step tests "$(least "$tests" "$(left)")" python3 -m pytest -q -n "$(least 8 "$(nproc)")" -p no:cacheprovider \
        tests/numerics/test_triton_kernels.py tests/numerics/test_triton_lamb.py \
        tests/numerics/test_models_on_kernels.py tests/unit/models/test_attention_cuda.py \
        tests/unit/pretraining/test_recorded.py
fi
# Its own clock ends it in good time; the 15 s more are for the run that it is in, the others for kernels.
training=$(($(left) - (${#rows[@]} > 0 ? 15 : 85)))
step training $((training + 15)) python3 -m benchmarks.training_gpu --output "$output" --seconds "$training" \
    ${rows[@]+--rows "${rows[@]}"} ${small[@]+"${small[@]}"}
if [ ${#rows[@]} = 0 ]; then
    step kernels "$(left)" python3 -m benchmarks.kernels "${kernels[@]}"
    grep '^{' "$output/kernels.txt" >"$output/kernels.jsonl"
fi
rm -rf "$output"/*/caches
exit "$status"
