#!/usr/bin/env bash
# Lint, types and tests, on a bare clone: makes .venv and installs what is needed first.
set -euo pipefail

usage() {
    cat <<'TEXT'
./scripts/test.sh [pytest arguments]

Sets up the environment with the test dependencies, then runs, one after the other, whatever the ones before found:
  ruff check, ruff format --check, mypy     always: they take seconds
  pytest [pytest arguments]                 the whole suite without arguments; paths are relative to the repository;
                                            one process a core (add -n 0 for one process, as a debugger wants it)

  ./scripts/test.sh                         everything
  ./scripts/test.sh tests/unit/data         one folder
  ./scripts/test.sh -m "not slow"           without the tests that take minutes

Exit code: 0 if all passed; pytest's own if tests failed; else 1.  System packages are never installed (.ci/run does).
TEXT
}

if [[ "${1:-}" == --help || "${1:-}" == -h ]]; then
    usage
    exit 0
fi

# shellcheck source-path=SCRIPTDIR source=lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
use_environment testing
cd "$REPOSITORY"

failed=()
check() {
    local name="$1" code=0
    shift
    echo "== $name"
    "$@" || code=$?
    ((code == 0)) || failed+=("$name")
    return "$code"
}

code=0
check "ruff check" "$PYTHON" -m ruff check . || code=1
check "ruff format --check" "$PYTHON" -m ruff format --check . || code=1
check "mypy" "$PYTHON" -m mypy || code=1
# No reordering: tests/conftest.py puts the longest files first.
check "pytest" "$PYTHON" -m pytest --numprocesses "$(nproc)" --dist loadfile --no-loadscope-reorder "$@" || code=$?

if ((${#failed[@]})); then
    (IFS=','; echo "== failed: ${failed[*]}") >&2
else
    echo "== all passed: lint, types, tests"
fi
exit "$code"
