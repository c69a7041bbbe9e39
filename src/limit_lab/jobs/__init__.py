"""Cells made by a scheduler: each training's cells are a job with a command line of its own, which Slurm or Ray starts."""
