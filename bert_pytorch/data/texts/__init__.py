"""Raw text as a source of training: Parquet files and Hugging Face datasets, tokenized once, at the first start."""
