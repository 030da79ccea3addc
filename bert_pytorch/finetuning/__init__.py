"""Fine-tuning: one engine for all tasks, over the training engine that pretraining uses."""
