"""What an adapter offers the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch

from cases import Case, ModelMaker

Run = Callable[[], list[torch.Tensor]]


class Cannot(Exception):
    """The contender has no way to do a task. The text is the reason, and goes into the report."""


class Contender:
    """One library at work on one model.

    A subclass has a method for each task that its library can do, named as in ``cases.TASKS``. The method
    sets up what a user would keep between runs and returns a function; calling that function is what is
    timed. It returns the values read, in layer order, and then the logits [batch, pos, vocab]:

    - ``nothing``, ``patch``: the logits alone;  ``read_one_stop``: the residual alone;
    - ``read_one``, ``read_all``: residuals [batch, pos, width];
    - ``gradients``: the gradients [batch, pos, width], and no logits;
    - ``z_one``: [batch, pos, head width];  ``z_all``: [batch, pos, head, head width] per layer;
    - ``pattern``: [batch, head, query, key].

    Gradient mode is set by the caller: on for ``gradients``, off for everything else.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions the report names, besides torch and transformers."""
    reasons: ClassVar[dict[str, str]] = {}
    """For each task that the library cannot do: why."""
    remarks: ClassVar[dict[str, str]] = {}
    """For tasks that are not done in the plainest way: how. The report repeats it."""

    def __init__(self, make_model: ModelMaker) -> None:
        self.make_model = make_model

    @cached_property
    def module(self) -> torch.nn.Module:
        """This contender's own copy of the model."""
        return self.make_model()

    @cached_property
    def eager_module(self) -> torch.nn.Module:
        """A second copy that computes attention patterns explicitly."""
        return self.make_model(attention="eager")

    @cached_property
    def frozen_module(self) -> torch.nn.Module:
        """A copy whose parameters want no gradients."""
        return self.make_model().requires_grad_(False)

    def task(self, name: str, case: Case) -> Run:
        """The function to time; raises :class:`Cannot` with the reason."""
        method = getattr(self, name, None)
        if method is None:
            raise Cannot(self.reasons.get(name, "this adapter has no such task"))
        return method(case)


def split_heads(merged: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, pos, width] as [batch, pos, head, head width]."""
    return merged.unflatten(-1, (heads, -1))
