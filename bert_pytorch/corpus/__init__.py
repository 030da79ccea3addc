"""Corpus: text of many kinds to formatted text, a vocabulary, and shards of encoded sequences."""
