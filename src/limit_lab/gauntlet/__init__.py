"""The benchmark suite: tasks, few-shot prompts, the scoring engine and the composite score."""

from limit_lab.gauntlet.evaluation import evaluate

__all__ = ["evaluate"]
