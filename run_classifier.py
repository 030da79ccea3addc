#!/usr/bin/env python
"""Fine-tune a classifier on your own texts: CSV, TSV or JSON lines; one class, several, or a number.

    python run_classifier.py --init_checkpoint runs/my_bert --do_train --do_eval \
        --train_file train.csv --val_file val.csv --text_column text --label_column label --output_dir runs/classifier

    python run_classifier.py --init_checkpoint runs/classifier --do_predict --test_file test.csv --output_dir predicted

    torchrun --standalone --nproc_per_node=auto run_classifier.py --do_train …

`--help` lists every option.  Starting again in one --output_dir continues.
"""

import sys

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.allocator import keep_freed_memory
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    keep_freed_memory()
    from bert_pytorch.finetuning.classification import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
