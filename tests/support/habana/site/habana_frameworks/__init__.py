"""Stands for Habana's package of this name, on a CPU; see `tests.support.habana`."""
