"""Optimizers and learning-rate schedules: LAMB, AdamW, their parameter groups and their state."""
