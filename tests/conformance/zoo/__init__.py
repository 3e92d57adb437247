"""Tiny random configurations of the real transformers classes, one case or more per architecture family.

`CASES[name]` builds a model in milliseconds, gives it an example input and, for text, a padded batch with the same rows alone.
Imports nothing of mainspring.
"""

from . import decoders, encoders, state_space, vision_language
from .case import Case

CASES: dict[str, Case] = {**decoders.CASES, **encoders.CASES, **state_space.CASES, **vision_language.CASES}

__all__ = ["CASES", "Case"]
