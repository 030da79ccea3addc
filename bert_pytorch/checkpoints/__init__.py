"""Checkpoint files: their entries, atomic writing, rotation, and finding the newest good one."""
