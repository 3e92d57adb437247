"""The model's own forward pass against itself: its ratio shows how much of any ratio is noise."""

from __future__ import annotations

from typing import ClassVar

from cases import TASKS, Case
from contenders.base import Contender, Run


class Adapter(Contender):
    """A second untouched copy of the same model."""

    reasons: ClassVar = {task: "an untouched model reads nothing" for task in TASKS if task != "nothing"}

    def nothing(self, case: Case) -> Run:
        module = self.module
        return lambda: [module(case.ids).logits]
