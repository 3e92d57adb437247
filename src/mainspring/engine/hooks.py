"""Forward hooks put on and taken off again in the time of a dictionary entry.

torch's own registration makes a handle that holds weak references to three dictionaries, and cold it costs a small model as much as
a layer norm. A run puts its hooks on and takes them off itself, so it needs no handle: the entries go into the module's own
dictionaries under keys that torch never gives out, one counter for all threads.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

from torch import nn

__all__ = ["Entry", "put_after", "put_before", "take_off"]

Entry = tuple[dict[Any, Any], int]
"""A hook that is on: the dictionary that holds it, and its key there."""

_keys = count(-1, -1)  # torch counts up from 0


def put_after(module: nn.Module, hook: Callable[..., Any], entries: list[Entry], *, first: bool = False) -> None:
    """Call `hook(module, args, output)` after the module's forward, `first` of all hooks there; what it returns is the output."""
    hooks, key = module._forward_hooks, next(_keys)
    entries.append((hooks, key))
    hooks[key] = hook
    if first and len(hooks) > 1:
        hooks.move_to_end(key, last=False)  # type: ignore[attr-defined]


def put_before(
    module: nn.Module, hook: Callable[..., Any], entries: list[Entry], *, first: bool = False, named: bool = False
) -> None:
    """Call `hook(module, args)` before the module's forward, or `hook(module, args, kwargs)` where it takes `named` arguments too."""
    hooks, key = module._forward_pre_hooks, next(_keys)
    if named:
        module._forward_pre_hooks_with_kwargs[key] = True
        entries.append((module._forward_pre_hooks_with_kwargs, key))
    entries.append((hooks, key))
    hooks[key] = hook
    if first and len(hooks) > 1:
        hooks.move_to_end(key, last=False)  # type: ignore[attr-defined]


def take_off(entries: list[Entry]) -> None:
    """Take hooks off in the opposite order, so that a hook loses its place before the mark that it takes named arguments."""
    while entries:
        hooks, key = entries.pop()
        hooks.pop(key, None)
