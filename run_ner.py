#!/usr/bin/env python
"""Fine-tune a model that finds entities in text: CoNLL files of two columns or more, IOB1, IOB2 or BIOES.

    python run_ner.py --config_file config/finetuning/ner_conll2003.json --init_checkpoint runs/my_bert \
        --do_train --do_eval --train_file eng.train --val_file eng.testa --output_dir runs/ner

    python run_ner.py --init_checkpoint runs/ner --do_predict --test_file eng.testb --output_dir predicted

    torchrun --standalone --nproc_per_node=auto run_ner.py --do_train …

`--help` lists every option.  Starting again in one --output_dir continues.
"""

import sys

from bert_pytorch.errors import front_door
from bert_pytorch.runtime.allocator import keep_freed_memory
from bert_pytorch.runtime.openmp import let_idle_threads_sleep

if __name__ == "__main__":
    let_idle_threads_sleep()
    keep_freed_memory()
    from bert_pytorch.finetuning.ner import main  # imports torch, which starts OpenMP

    sys.exit(front_door(main))
