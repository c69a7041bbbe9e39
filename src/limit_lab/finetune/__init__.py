"""Fine-tuning through Lightning: batches, loss, schedule, checkpoints and resume."""
