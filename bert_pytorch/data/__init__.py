"""Data: what happens between shards on disk and a packed batch in memory."""
