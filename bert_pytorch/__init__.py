"""Pretrain and fine-tune BERT-style encoders on your own text."""

__version__ = "0.1.0"
