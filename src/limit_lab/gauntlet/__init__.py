"""The benchmark suite: tasks, few-shot prompts, the scoring engine and the composite score.

Its numbers are those of llm-foundry's Eval Gauntlet, whose quirks decide them. Kept, because a score would change: the order
of the shots, k - 1 of them where a row drew itself and no other row is left, borders between pieces that no token crosses,
blanks that only the asked question loses, a schema's delimiters, truncation from the left of each choice's own context,
the first of equal choices, scores below chance, answers that need only begin with a label (and so always do where
normalising leaves nothing of it), stop strings joined into an unescaped regular expression, division in single precision.

Plain bugs are errors, and under ``gauntlet.compat=strict`` what the original makes of them: a task without a result, or
without its file, silently removes its categories (here with a printed warning that names it); a category that no task is in
is no part of an average that names it; an average of nothing is 0. Errors in either, as the original fails later: a choice
that leaves no room for any context, and an empty context.

No difference can be seen: rows are counted for weights by the beginning of a label, and here no label is the beginning of
another's. Not reproduced: the average over all categories, sub-scores included, of the releases before 2023-10-27; the masking
of an end-of-text token inside a text, which no row holds; a question count per batch taken from the first row, so that here
rows may have different numbers of choices; code evaluation, which samples at random and runs what a model wrote.
"""

from limit_lab.gauntlet.evaluation import evaluate

__all__ = ["evaluate"]
