"""Tasks as data: what each learns from, its loss, its metrics and its files; `finetuning` is the engine."""
