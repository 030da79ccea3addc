#!/usr/bin/env bash
# Raw text in, pretrained BERT out, on a bare clone: makes .venv, installs, then runs the whole path on a small corpus.
set -euo pipefail

usage() {
    cat <<'TEXT'
./scripts/quickstart.sh [--output_dir DIR]

Makes .venv and installs what is needed (once), then, on text that every Python carries: trains a vocabulary, writes shards
for two sequence lengths, pretrains a small BERT through both phases, and prints the held-out losses and some
fill-mask examples.  CPU or GPU; under 5 minutes on 2 cores after the installation.

  --output_dir DIR    where everything is written (default: runs/quickstart in the repository)
TEXT
}

# shellcheck source-path=SCRIPTDIR source=lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"

output_dir="$REPOSITORY/runs/quickstart"
if [[ "$(pwd -P)" == "$REPOSITORY" ]]; then
    output_dir="runs/quickstart"
fi
while (($#)); do
    case "$1" in
        --help | -h)
            usage
            exit 0
            ;;
        --output_dir=?* | --output-dir=?*)
            output_dir="${1#*=}"
            ;;
        --output_dir | --output-dir)
            if [[ -z "${2:-}" || "$2" == --* ]]; then
                echo "error: $0: no folder follows $1. Write: $0 --output_dir DIR" >&2
                exit 2
            fi
            output_dir="$2"
            shift
            ;;
        *)
            echo "error: $0: unknown argument $1; the only option is --output_dir DIR ($0 --help)." >&2
            exit 2
            ;;
    esac
    shift
done

use_environment running
exec "$PYTHON" -m bert_pytorch.quickstart --output_dir "$output_dir"
