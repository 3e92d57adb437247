"""One forward pass watched from outside: which module was given which tensor, by identity and not by value."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Watched", "norm_before", "watching"]


@dataclass(eq=False)
class Watched:
    """The calls of one pass: for each module the first tensor that it was given and that it returned, and its turn."""

    given: dict[nn.Module, Tensor] = field(default_factory=dict)
    returned: dict[nn.Module, Tensor] = field(default_factory=dict)
    turn: dict[nn.Module, int] = field(default_factory=dict)


@contextmanager
def watching(root: nn.Module) -> Iterator[Watched]:
    """Watch what this thread runs below `root`, in eval mode; every module's own mode comes back afterwards."""
    watched, handles, turn, mine = Watched(), [], 0, threading.get_ident()

    def before(module: nn.Module, args: Any, kwargs: Any = None) -> None:
        nonlocal turn
        if threading.get_ident() != mine:
            return
        given = next((x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)), None)
        if given is not None:
            watched.given[module], watched.turn[module] = given, turn
        turn += 1

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != mine:
            return
        returned = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(returned, Tensor):
            watched.returned[module] = returned

    modes = {m: m.training for m in root.modules()}
    try:
        root.eval()
        for module in root.modules():
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield watched
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def norm_before(module: nn.Module, watched: Watched) -> tuple[nn.Module | None, Tensor]:
    """The module that made the tensor that `module` is given, and what that one was given; None if no module did, or a layer."""
    given = watched.given[module]
    for maker, made in watched.returned.items():
        before = maker in watched.given and watched.turn[maker] < watched.turn[module]
        # dropout that does nothing returns the very tensor that it is given
        if made is given and before and watched.given[maker] is not made and _may_be_norm(maker):
            return maker, watched.given[maker]
    return None, given


def _may_be_norm(module: nn.Module) -> bool:
    """Norms hold no matrices: embeddings and whole layers, which may stand before a sublayer without a norm, do."""
    return not any(p.ndim > 1 for p in module.parameters())
