# shellcheck shell=bash
# Sourced by the scripts of this repository: `use_environment` makes the right Python the one that is called.
# Afterwards $PYTHON is its path, its programs come first in PATH, and `bert_pytorch` is importable from any folder.

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"

# use_environment running|testing: set up what running (or also testing) needs; a second when it is there already.
use_environment() {
    local bare
    bare="$(find_python)" || return 1
    PYTHON="$("$bare" "$REPOSITORY/scripts/lib/environment.py" "$@")" || return 1
    PATH="$(dirname "$PYTHON"):$PATH"
    PYTHONPATH="$REPOSITORY${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHON PATH PYTHONPATH
}

# find_python: print the first Python 3.11 or 3.12 among: $BERT_PYTORCH_PYTHON, the active environment, PATH.
find_python() {
    local candidate found
    if [[ -n "${BERT_PYTORCH_PYTHON:-}" ]]; then
        if is_right_python "$BERT_PYTORCH_PYTHON"; then
            command -v "$BERT_PYTORCH_PYTHON"
            return 0
        fi
        echo "error: BERT_PYTORCH_PYTHON is $BERT_PYTORCH_PYTHON, wanted the path of a Python 3.11 or 3.12. Correct or unset it." >&2
        return 1
    fi
    for candidate in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} ${CONDA_PREFIX:+"$CONDA_PREFIX/bin/python"}; do
        if is_right_python "$candidate"; then
            echo "$candidate"
            return 0
        fi
        echo "set-up: $candidate is not a Python 3.11 or 3.12: looking for another" >&2
    done
    for candidate in python3.11 python3.12 python3 python; do
        if found="$(command -v "$candidate")" && is_right_python "$found"; then
            echo "$found"
            return 0
        fi
    done
    echo "error: no Python 3.11 or 3.12 found (looked for python3.11, python3.12, python3 and python in PATH)." >&2
    echo "Install one, for example: apt-get install python3.11 python3.11-venv   or: conda env create -f environment.yml" >&2
    echo "or name it:  BERT_PYTORCH_PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

is_right_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}
