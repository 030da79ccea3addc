"""How idle OpenMP threads wait; torch-free, because OpenMP reads it once, when torch is imported."""

import os


def let_idle_threads_sleep() -> None:
    """Make OpenMP threads sleep while they wait for work, unless OMP_WAIT_POLICY says otherwise.

    By default they spin, which on a core shared with anything else delays the very thread that is waited for:
    `python -m benchmarks.wait_policy` measures both.  Call before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
