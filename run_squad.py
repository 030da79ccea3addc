#!/usr/bin/env python
"""Fine-tune on SQuAD 1.1 or 2.0, answer questions, and score the answers by the official definition.

    python run_squad.py --init_checkpoint runs/my_bert --do_train --do_predict --do_eval \
        --train_file train-v1.1.json --predict_file dev-v1.1.json --output_dir runs/squad

    python run_squad.py --init_checkpoint runs/squad --do_predict --predict_file questions.json --output_dir answered

    torchrun --standalone --nproc_per_node=auto run_squad.py --version_2_with_negative --do_train …

`--help` lists every option.  Starting again in one --output_dir continues.
"""

import sys

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.allocator import keep_freed_memory
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    keep_freed_memory()
    from bert_pytorch.finetuning.squad import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
