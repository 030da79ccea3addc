#!/usr/bin/env python
"""Measure what the ranks of an allocation and the network between them can do.

    python -m bert_pytorch.launch check --nodes n1,n2          # in a job: its machines
    mpirun -np 4 python scripts/launch/check.py                # or whatever else starts ranks

`--help` lists every option.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started from anywhere, on any machine

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    from bert_pytorch.diagnosis.check import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
