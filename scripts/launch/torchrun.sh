#!/bin/bash
# Start any program of this repository with torchrun, on this machine or on several.
#
#   scripts/launch/torchrun.sh [the launcher's options] run_glue.py [the program's options]
#   scripts/launch/torchrun.sh --nproc_per_node 4 run_pretraining.py --config_file C --input_dir D --output_dir O
#   scripts/launch/torchrun.sh --nodes n1,n2 run_squad.py …      (ssh without a password to the others)
#
# Inside a job of SLURM, Cobalt, PBS or SGE it uses the job's machines.  --help lists the launcher's options, --dry-run
# prints the commands.  Modules, conda, venv: environment.sh beside this.
set -euo pipefail

# A scheduler may run a copy of this file: the repository is where the job was submitted, or $BERT_PYTORCH_HOME.
submitted="${SLURM_SUBMIT_DIR:-${PBS_O_WORKDIR:-${SGE_O_WORKDIR:-}}}"
for home in "${BERT_PYTORCH_HOME:-}" "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." "$submitted"; do
    [[ -f "$home/scripts/launch/common.sh" ]] && break
done
if [[ ! -f "$home/scripts/launch/common.sh" ]]; then
    echo "error: the repository was not found. Submit from its folder, or set BERT_PYTORCH_HOME." >&2
    exit 2
fi
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$home/scripts/launch/common.sh"
launch "$@"
