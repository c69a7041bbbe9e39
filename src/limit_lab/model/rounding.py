"""Computing in float32 from weights as a file holds them, one weight at a time: no second copy of a model is made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Whole = Callable[[Tensor], Tensor]


class Rounded(nn.Module):
    """A weight, or what ``whole`` makes of it, in float32, rounded to ``dtype``."""

    def __init__(self, dtype: torch.dtype, whole: Whole | None) -> None:
        super().__init__()
        self.dtype, self.whole = dtype, whole

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight, a new tensor unless there is nothing to round."""
        return (self.whole(weight) if self.whole else weight).to(self.dtype).float()


@contextmanager
def rounded(model: nn.Module, dtype: torch.dtype, whole: Whole | None = None) -> Iterator[None]:
    """Within, every weight of ``model`` reads as rounded to ``dtype``, in float32; the weights themselves stay as they are.

    ``whole`` makes of a weight what is rounded: the float32 values of which it is a part.
    """
    own = [(module, name) for module in model.modules() for name, _ in module.named_parameters(recurse=False)]
    if whole is None and all(getattr(module, name).dtype == dtype == torch.float32 for module, name in own):
        yield
        return
    for module, name in own:
        parametrize.register_parametrization(module, name, Rounded(dtype, whole), unsafe=True)  # unsafe: it may change the type
    try:
        yield
    finally:
        for module, name in own:
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
