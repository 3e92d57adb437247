"""From a Python function to a graph: traced once with symbolic sizes, then proved equal to the function on other sizes.

The trace runs on fake tensors, so whatever depends on values cannot pass unnoticed. In-place operations are made functional,
operations that are not on the allow-list are decomposed into core ATen, tensors that the function closes over are copied as
constants, and what depends on constants only is computed here and now where it could not travel.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mainspring.engine.portable.allowed import DTYPES
from mainspring.engine.portable.graphs import Graph
from mainspring.engine.portable.limits import DEFAULT, Limits
from mainspring.engine.portable.purity import Watched, effect_of
from mainspring.engine.portable.tracing import trace
from mainspring.engine.portable.verify import verify_graph
from mainspring.engine.portable.writing import Writer
from mainspring.errors import NotPortable, PortableError

__all__ = ["export"]

_FAILS = "the function itself fails there"


def export(
    fn: Callable[[Tensor], Tensor],
    shape: Sequence[str | int],
    dtype: torch.dtype = torch.float32,
    *,
    device: torch.device | str = "cpu",
    gives: Literal["value", "numbers"] = "value",
    name: str | None = None,
    limits: Limits = DEFAULT,
) -> Graph:
    """The graph of `fn` for tensors of `shape`; a string is the symbol of an axis of any size, as in ("batch", "pos", 64).

    Raises `NotPortable` with what to do when the function cannot be written as data: it looks at values to decide what to do, has
    effects, is random, or uses an operation that may not travel.
    """
    if isinstance(fn, Graph):
        return fn
    name = str(name or getattr(fn, "__name__", type(fn).__name__))
    name = name if name.isidentifier() else "function"
    if dtype not in DTYPES.values():
        raise NotPortable(f"{name} works on {dtype}, which does not travel")
    if effect := effect_of(fn):
        raise NotPortable(f"{name} cannot travel: {effect}. A function that travels returns a value and does nothing else")
    watched = Watched(fn)
    try:
        module, ties, least = trace(fn, tuple(shape), dtype, torch.device(device), name)
    except NotPortable:
        if not {"query", "key"} <= set(shape):
            raise
        # a causal mask, say, needs as many keys as queries: then that is what the graph asks for
        tied = ["query" if n == "key" else n for n in shape]
        return export(fn, tied, dtype, device=device, gives=gives, name=name, limits=limits)
    if changed := watched.changed():
        raise NotPortable(
            f"{name} cannot travel: it changes {changed!r}. A function that travels returns a value and does nothing else"
        )
    if ties:
        return export(fn, [ties.get(n, n) for n in shape], dtype, device=device, gives=gives, name=name, limits=limits)  # type: ignore[arg-type]
    nodes, output, constants = Writer(module, name).written()
    graph = Graph(nodes, output, constants, tuple(shape), dtype, tuple(least.items()), gives, name)
    graph = _proved(fn, graph, torch.device(device))
    try:
        verify_graph(graph, limits)
    except PortableError as error:
        raise NotPortable(f"{name} cannot travel: {error}") from None
    return graph


def _proved(fn: Callable[..., Any], graph: Graph, device: torch.device) -> Graph:
    """The graph, once it gives what the function gives, at sizes it was not traced with; with the least sizes found to hold."""
    symbols = list(dict.fromkeys(n for n in graph.shape if isinstance(n, str)))
    generator = torch.Generator().manual_seed(0)

    def same(sizes: dict[str, int], graph: Graph) -> str | None:
        shape = [sizes[n] if isinstance(n, str) else n for n in graph.shape]
        value = torch.randn(shape, generator=generator).to(device=device, dtype=graph.dtype)
        with torch.no_grad():
            try:
                wanted = fn(value.clone())
            except Exception:  # the function itself has no answer at this size
                return _FAILS
            try:
                found = graph.run(value.clone())
            except PortableError as error:
                return str(error)
        if not isinstance(wanted, Tensor):
            raise NotPortable(f"{graph.name} returns {type(wanted).__name__}; a function that travels returns one tensor")
        if problem := graph.problem(value, wanted):
            raise NotPortable(f"{graph.name} {problem}")
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return f"shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
        bound = {torch.bfloat16: 5e-2, torch.float16: 1e-2, torch.float64: 1e-9}.get(graph.dtype, 1e-4)
        scale = float(wanted[torch.isfinite(wanted)].abs().max()) if torch.isfinite(wanted).any() else 1.0
        close = torch.allclose(found.float(), wanted.float(), rtol=bound, atol=bound * max(scale, 1e-6), equal_nan=True)
        return None if close else "other numbers"

    least = {n: max(2, k) for n, k in graph.least}
    for grow in (0, 1, 3):
        sizes = {n: least[n] + grow * (i + 1) for i, n in enumerate(symbols)}
        if problem := same(sizes, graph):
            raise NotPortable(
                f"{graph.name} cannot travel: traced and direct differ at {sizes or 'its shape'} ({problem}). "
                "Is it random, does it keep state between calls, or does a size decide what it does?"
            )
        if not symbols:
            break
    for n in symbols:  # a trace finds the least size of its own path; there must be no other path below
        if least[n] > 2 and same(least | {n: least[n] - 1}, graph) != _FAILS:
            raise NotPortable(f"{graph.name} cannot travel: it does something else below {least[n]} {n}; a graph has one path")
    for n in symbols:  # a trace starts at 2; most graphs hold for 1 as well
        if least[n] == 2 and same(least | {n: 1}, graph) is None:
            least[n] = 1
    if symbols and all(k == 1 for k in least.values()) and same(least, graph) is not None:
        least = dict.fromkeys(symbols, 2)
    return Graph(
        graph.nodes, graph.output, graph.constants, graph.shape, graph.dtype, tuple(least.items()), graph.gives, graph.name
    )
