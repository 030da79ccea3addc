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

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
launch "$@"
