"""A pretraining run: its configuration, how it starts, what it is made of, how it ends."""
