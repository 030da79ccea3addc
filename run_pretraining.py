#!/usr/bin/env python
"""Pretrain a BERT on shards of your own text.

    python run_pretraining.py --config_file config/pretraining/bert_base_uncased_phase1.json \
        --input_dir data/encoded/sequences_lowercase_max_seq_len_128_next_seq_task_true --output_dir runs/my_bert

    torchrun --standalone --nproc_per_node=auto run_pretraining.py --config_file … --input_dir … --output_dir …

    python run_pretraining.py --init_checkpoint runs/my_bert --eval_dir data/held_out --max_steps 0

`--help` lists every option, `--dry_run` shows what a run would do.  Starting again in one --output_dir continues.
"""

import sys

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.allocator import keep_freed_memory
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    keep_freed_memory()
    from bert_pytorch.pretraining.main import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
