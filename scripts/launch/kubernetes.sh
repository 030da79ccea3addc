#!/bin/bash
# Print a job for Kubernetes: a Pod, a Job, or an MPIJob or PyTorchJob of several machines.
#
#   scripts/launch/kubernetes.sh --image IMAGE:TAG [its options] [the launcher's options] SCRIPT.py [the script's options] | kubectl create -f -
#   scripts/launch/kubernetes.sh --image IMAGE:TAG --kind pytorchjob --machines 4 --cards 8 --phase both run_pretraining.py … | kubectl create -f -
#   scripts/launch/kubernetes.sh --image IMAGE:TAG --device cpu scripts/create_datasets.sh --output /data/corpus … | kubectl create -f -
#
# --help lists its options.  Paths are those in the Pod: /data and /runs are volumes, all else is the image's.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
launch kubernetes "$@"
