"""Arithmetic on the sizes of an input: the few operations on plain numbers that a graph may use.

Sizes are bounded after every step, so a chain of multiplications cannot grow numbers without end.
"""

import math
from collections.abc import Callable
from typing import Any

from mainspring.errors import UnsafeShape

__all__ = ["NUMBERS", "number"]

_BOUND = 2**62

NUMBERS: dict[str, Callable[..., Any]] = {
    "number.add": lambda a, b: a + b,
    "number.sub": lambda a, b: a - b,
    "number.mul": lambda a, b: a * b,
    "number.floordiv": lambda a, b: a // b,
    "number.mod": lambda a, b: a % b,
    "number.truediv": lambda a, b: a / b,
    "number.pow": lambda a, b: float(a) ** float(b),  # never an integer power: 9**9**9 would not end
    "number.neg": lambda a: -a,
    "number.max": max,
    "number.min": min,
    "number.float": float,
    "number.sqrt": lambda a: math.sqrt(a),
}
"""By name, the operations on numbers."""


def number(name: str, args: tuple[Any, ...]) -> int | float:
    """Apply one of `NUMBERS`; the arguments must be numbers and the result must stay bounded and finite."""
    if any(isinstance(a, bool) or not isinstance(a, int | float) for a in args):
        raise UnsafeShape(f"{name} takes numbers, not {', '.join(type(a).__name__ for a in args)}")
    try:
        found = NUMBERS[name](*args)
    except (TypeError, ZeroDivisionError, OverflowError, ValueError) as error:
        raise UnsafeShape(f"{name}{args}: {error}") from None
    if isinstance(found, complex) or not -_BOUND < found < _BOUND:
        raise UnsafeShape(f"{name}{args} leaves the range of sizes")
    return found
