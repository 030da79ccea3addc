"""Using what was trained: from a checkpoint and text to predictions."""
