"""A fine-tuning in several processes, one a device."""
