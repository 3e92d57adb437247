"""What a function does besides returning a value: printing, files, attributes, globals, lists it appends to. None of it can
travel.

A trace records tensor operations only, so such effects would be lost without a word. The check reads the function's bytecode
(and that of the plain functions it calls by name) and compares what it closes over before and after a call. It is a courtesy to
the author, not a wall: what travels is the graph, which has no effects at all.
"""

import dis
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["Watched", "effect_of"]

_CALLS = {"print", "open", "input", "breakpoint", "exec", "eval", "__import__", "setattr", "delattr"}
_STORES = {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"}


def effect_of(fn: Callable[..., Any]) -> str | None:
    """What a function does that a graph cannot, in words, or None."""
    for function in _functions(fn):
        for code in _codes(function.__code__):
            for step in dis.get_instructions(code):
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in _CALLS:
                    return f"it calls {step.argval}()"
                if step.opname in _STORES:
                    return f"it assigns to {step.argval!r}, which outlives the call"
                if step.opname == "STORE_DEREF" and step.argval in function.__code__.co_freevars:
                    return f"it assigns to {step.argval!r} of the function around it"
    return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _functions(fn: Any) -> Iterator[types.FunctionType]:
    """The plain functions behind a callable, and those they name, a few levels deep. Library code is taken on trust."""
    pending, seen = [(fn, 0)], set()
    while pending:
        found, depth = pending.pop()
        found = getattr(found, "func", found)  # functools.partial
        if isinstance(found, torch.nn.Module):
            found = type(found).forward
        found = getattr(found, "__func__", found)
        if not isinstance(found, types.FunctionType) and not isinstance(found, type) and callable(found):
            found = getattr(type(found).__call__, "__func__", type(found).__call__)
        if not isinstance(found, types.FunctionType) or found in seen or depth > 3:
            continue
        if found.__module__ is not None and found.__module__.split(".")[0] in ("torch", "einops", "numpy", "math"):
            continue
        seen.add(found)
        yield found
        named = [found.__globals__.get(n) for code in _codes(found.__code__) for n in code.co_names]
        closed = [_held(cell) for cell in found.__closure__ or ()]
        pending += [(x, depth + 1) for x in (*named, *closed) if callable(x) and not isinstance(x, type)]


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


class Watched:
    """What a function closes over, before and after: containers by their length, tensors by their version."""

    def __init__(self, fn: Any) -> None:
        self._held = [(name, value) for f in _functions(fn) for name, value in _captured(f)]
        self._before = [_state(v) for _, v in self._held]

    def changed(self) -> str | None:
        """The name of something that has changed since, or None."""
        for (name, value), before in zip(self._held, self._before, strict=True):
            if _state(value) != before:
                return name
        return None


def _captured(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        yield name, _held(cell)
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            yield name, fn.__globals__[name]


def _state(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value._version
    if isinstance(value, list | dict | set | bytearray):
        return len(value), [id(x) for x in value][:1000]
    return None
