"""A fine-tuning or an evaluation in several processes, each with devices of its own."""
