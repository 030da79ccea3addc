# shellcheck shell=bash
# Sourced by the scripts of this folder: `launch "$@"` sets the environment up and becomes the launcher, so that
# a scheduler's signals reach it and its exit code is the job's.  All that is to be decided is in bert_pytorch/launch.

# shellcheck source-path=SCRIPTDIR source=../lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/environment.sh"
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

launch() {
    if [[ -z "${PYTHON:-}" ]]; then
        use_environment running
    fi
    export PYTHONPATH="$REPOSITORY${PYTHONPATH:+:$PYTHONPATH}"
    exec "$PYTHON" -m bert_pytorch.launch "$@"
}
