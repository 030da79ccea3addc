#!/usr/bin/env python
"""Fine-tune on GLUE: one task, or many side by side with one table.

    python run_glue.py --task_name mrpc --data_dir glue --init_checkpoint runs/my_bert --do_train --do_eval \
        --output_dir runs/mrpc

    python run_glue.py --task_name all --seeds 1 2 3 --parallel_tasks 8 --mnli_init --data_dir glue \
        --init_checkpoint runs/my_bert --do_train --do_eval --do_predict --output_dir runs/glue

    python run_glue.py --task_name sst-2 --data_dir glue --model_config_file bert_base_uncased --vocab_file vocab.txt \
        --do_train --do_eval --output_dir runs/from_scratch

`--help` lists every option.  Starting again in one --output_dir continues.
"""

import sys

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.allocator import keep_freed_memory
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    keep_freed_memory()
    from bert_pytorch.finetuning.glue import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
