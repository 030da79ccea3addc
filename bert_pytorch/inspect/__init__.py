"""Looking inside what the other tools make: `python -m bert_pytorch.inspect shard`."""
