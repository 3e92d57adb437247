"""From a Python function to a graph: traced once with symbolic sizes, then proved equal to the function on other sizes.

The trace runs on fake tensors (shapes without numbers), so whatever depends on values cannot pass unnoticed. In-place operations are made
functional, operations that are not on the allow-list are decomposed into core ATen, tensors that the function closes over are copied as
constants, and what depends on constants only is computed here and now.
"""

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from mainspring.engine.portable.allowed import ALLOWED, DTYPES, FORBIDDEN, WORDS
from mainspring.engine.portable.graphs import INPUT, Constant, Graph, Node, Ref
from mainspring.engine.portable.limits import DEFAULT, Limits
from mainspring.engine.portable.purity import Watched, effect_of
from mainspring.engine.portable.verify import verify_graph
from mainspring.errors import NotPortable, PortableError

__all__ = ["export"]

_HINT = "; keep it in code (run it locally), or write it with torch operations on the whole tensor"
_FAILS = "the function itself fails there"
_VALUES = (
    "it looks at the numbers (an if on values, .item(), nonzero(), a boolean index) to decide what to do next. "
    "Say it with torch.where, masks or topk"
)
_NUMBERS: dict[Any, str] = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.floordiv: "floordiv", operator.mod: "mod",
    operator.truediv: "truediv", operator.pow: "pow", operator.neg: "neg", torch.sym_max: "max", torch.sym_min: "min",
    torch.sym_float: "float",
}  # fmt: skip


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
    name = name or getattr(fn, "__name__", type(fn).__name__)
    name = name if name.isidentifier() else "function"
    if dtype not in DTYPES.values():
        raise NotPortable(f"{name} works on {dtype}, which does not travel")
    if effect := effect_of(fn):
        raise NotPortable(f"{name} cannot travel: {effect}. A function that travels returns a value and does nothing else")
    watched = Watched(fn)
    try:
        module, ties, least = _trace(fn, tuple(shape), dtype, torch.device(device), name)
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
    nodes, output, constants = _Writer(module, name).written()
    graph = Graph(nodes, output, constants, tuple(shape), dtype, tuple(least.items()), gives, name)
    graph = _proved(fn, graph, torch.device(device))
    try:
        verify_graph(graph, limits)
    except PortableError as error:
        raise NotPortable(f"{name} cannot travel: {error}") from None
    return graph


# ---- tracing --------------------------------------------------------------------------------------------------------------------


@cache
def _decompositions() -> dict[Any, Any]:
    from torch._decomp import core_aten_decompositions

    def known(op: Any) -> bool:
        return isinstance(op, torch._ops.OpOverload) and _name(op) in ALLOWED

    return {op: how for op, how in core_aten_decompositions().items() if not known(op)}


def _name(op: Any) -> str:
    return f"{op.namespace}.{op._schema.name.split('::')[1]}.{op._overloadname}"


def _trace(
    fn: Callable[..., Any], shape: tuple[str | int, ...], dtype: torch.dtype, device: torch.device, name: str
) -> tuple[torch.fx.GraphModule, dict[str, str], dict[str, int]]:
    """The functional graph of `fn`, the symbols that it ties together, and the least size of each symbol."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
    from torch.func import functionalize
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, ShapeEnv, StatelessSymbolicContext

    symbols = list(dict.fromkeys(n for n in shape if isinstance(n, str)))
    hints = {n: 7 + 4 * i for i, n in enumerate(symbols)}
    env = ShapeEnv(allow_scalar_outputs=False, duck_shape=True)
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
    dynamic = [DimDynamic.DUCK if isinstance(n, str) else DimDynamic.STATIC for n in shape]
    example = torch.empty([hints[n] if isinstance(n, str) else n for n in shape], dtype=dtype, device=device)
    try:
        with _quiet(), torch.no_grad(), mode:
            value = mode.from_tensor(example, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic), source=_source())
            module = make_fx(
                functionalize(lambda v: fn(v.clone()), remove="mutations"),
                tracing_mode="real",
                decomposition_table=_decompositions(),
                _allow_non_fake_inputs=True,
            )(value)
    except (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException):
        raise NotPortable(f"{name} cannot travel: {_VALUES}") from None
    except NotPortable:
        raise
    except Exception as error:  # a trace may fail in any way that the function can
        first = (str(error).splitlines() or [""])[0]
        raise NotPortable(f"{name} cannot travel: tracing it failed with {type(error).__name__}: {first[:300]}{_HINT}") from None
    sizes = {n: value.shape[shape.index(n)] for n in symbols}
    return module, *_conditions(env, sizes, name)


def _source() -> Any:
    from torch._dynamo.source import ConstantSource

    return ConstantSource("value")


def _conditions(env: Any, sizes: dict[str, Any], name: str) -> tuple[dict[str, str], dict[str, int]]:
    """What the trace assumed of the sizes: symbols tied to each other, and the least size of each."""
    ties: dict[str, str] = {}
    least: dict[str, int] = {}
    roots: dict[Any, str] = {}
    for symbol, size in sizes.items():
        now = env.replace(size.node.expr) if isinstance(size, torch.SymInt) else size
        if isinstance(now, int) or now.is_number:
            raise NotPortable(f"{name} cannot travel: it works for {symbol} = {now} only; write it so that any number will do")
        if now in roots:
            ties[symbol] = roots[now]
            continue
        roots[now] = symbol
        low, high = env.var_to_range[now].lower, env.var_to_range[now].upper
        if high.is_number and high < 2**31:
            raise NotPortable(
                f"{name} cannot travel: it does one thing up to {high} {symbol} and another beyond; a graph has one path"
            )
        least[symbol] = int(low)
    if any(str(symbol).startswith(("u", "zuf")) for symbol in env.var_to_range):
        raise NotPortable(f"{name} cannot travel: {_VALUES}")
    for guard in env.guards:
        if env._maybe_evaluate_static(guard.expr) is None:
            raise NotPortable(
                f"{name} cannot travel: it takes another path where {guard.expr} does not hold (a size decides what is done)"
            )
    return ties, least


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing tells of failures in the log as well; the error says it better."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


# ---- writing --------------------------------------------------------------------------------------------------------------------


class _Writer:
    """Turns a traced module into nodes and constants."""

    def __init__(self, module: torch.fx.GraphModule, name: str) -> None:
        self._module, self._name = module, name
        module.graph.eliminate_dead_code()
        self._nodes: list[Node] = []
        self._constants: list[Tensor] = []
        self._moving: set[torch.fx.Node] = set()  # what depends on the input
        self._made: dict[Any, Any] = {}  # fx node -> Ref, Constant, number, or tuple of constants

    def written(self) -> tuple[tuple[Node, ...], Ref, tuple[Tensor, ...]]:
        output: Any = None
        for node in self._module.graph.nodes:
            if node.op == "placeholder" or any(n in self._moving for n in node.all_input_nodes):
                self._moving.add(node)
            if node.op == "placeholder":
                self._made[node] = INPUT
            elif node.op == "get_attr":
                self._made[node] = self._constant(getattr(self._module, node.target))
            elif node.op == "output":
                output = node.args[0]
            else:
                self._made[node] = self._call(node)
        if not isinstance(output, torch.fx.Node):
            raise NotPortable(f"{self._name} returns {type(output).__name__}; a function that travels returns one tensor")
        out = self._made[output]
        if isinstance(out, Constant):  # a function that ignores its input
            self._nodes.append(Node("aten.clone.default", (out,)))
            out = Ref(len(self._nodes) - 1)
        return self._pruned(out)

    def _constant(self, tensor: Tensor) -> Constant:
        for i, held in enumerate(self._constants):
            if held.dtype == tensor.dtype and held.shape == tensor.shape and torch.equal(held, tensor.detach().cpu()):
                return Constant(i)
        if tensor.dtype not in DTYPES.values():
            raise NotPortable(f"{self._name} holds a tensor of {tensor.dtype}, which does not travel")
        # compact: a row of a large matrix must not bring the matrix along
        self._constants.append(tensor.detach().cpu().clone(memory_format=torch.contiguous_format))
        return Constant(len(self._constants) - 1)

    def _call(self, node: torch.fx.Node) -> Any:
        target: Any = node.target
        if target is operator.getitem:
            held = self._made[node.args[0]]
            return Ref(held.node, int(node.args[1])) if isinstance(held, Ref) else held[node.args[1]]  # type: ignore[arg-type]
        if target in _NUMBERS or getattr(target, "__name__", "") == "_sym_sqrt":
            return self._add(Node(f"number.{_NUMBERS.get(target, 'sqrt')}", tuple(self._value(a) for a in node.args)))
        if target is torch.ops.aten.sym_size.int:
            return self._add(Node("size", tuple(self._value(a) for a in node.args)))
        if not isinstance(target, torch._ops.OpOverload):
            raise NotPortable(f"{self._name} cannot travel: it uses {getattr(target, '__name__', target)}{_HINT}")
        if node not in self._moving and _name(target) not in ALLOWED:
            out = self._evaluated(node)
            return tuple(self._constant(t) for t in out) if isinstance(out, tuple | list) else self._constant(out)
        name = _name(target)
        if name not in ALLOWED:
            raise NotPortable(f"{self._name} cannot travel: {_why(target)}")
        if name in ("aten.clone.default", "aten.lift_fresh_copy.default", "aten.alias.default", "aten.detach.default"):
            return self._value(node.args[0])  # nothing is written in place any more, so a copy says nothing
        kwargs = tuple((k, self._value(v)) for k, v in node.kwargs.items() if k not in FORBIDDEN)
        return self._add(Node(name, tuple(self._value(a) for a in node.args), kwargs))

    def _evaluated(self, node: torch.fx.Node) -> Any:
        """The value of a node that does not depend on the input, computed now."""
        if node.op == "get_attr":
            return getattr(self._module, node.target).detach()  # type: ignore[arg-type]
        target: Any = node.target
        if isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags:
            raise NotPortable(f"{self._name} cannot travel: {_why(target)}")
        args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), self._evaluated)
        with torch.no_grad():
            return target(*args, **kwargs)

    def _add(self, node: Node) -> Ref:
        self._nodes.append(node)
        return Ref(len(self._nodes) - 1)

    def _value(self, given: Any) -> Any:
        if isinstance(given, torch.fx.Node):
            return self._made[given]
        if isinstance(given, list | tuple):
            return tuple(self._value(x) for x in given)
        if (
            given is None
            or isinstance(given, bool | int | float)
            or (isinstance(given, torch.dtype) and given in DTYPES.values())
        ):
            return given
        if isinstance(given, str) and given in WORDS:
            return given
        raise NotPortable(f"{self._name} cannot travel: an operation has the argument {given!r}")

    def _pruned(self, output: Ref) -> tuple[tuple[Node, ...], Ref, tuple[Tensor, ...]]:
        """Only the nodes and constants that the output needs, numbered anew."""
        needed, stack = set(), [output.node]
        while stack:
            i = stack.pop()
            if i >= 0 and i not in needed:
                needed.add(i)
                stack += [r.node for r in self._nodes[i].refs]
        place = {-1: -1} | {old: new for new, old in enumerate(sorted(needed))}
        kept: list[Tensor] = []
        where: dict[int, int] = {}

        def moved(x: Any) -> Any:
            if isinstance(x, Ref):
                return Ref(place[x.node], x.item)
            if isinstance(x, Constant):
                if x.index not in where:
                    where[x.index] = len(kept)
                    kept.append(self._constants[x.index])
                return Constant(where[x.index])
            return tuple(moved(y) for y in x) if isinstance(x, tuple) else x

        nodes = tuple(
            Node(n.op, tuple(moved(a) for a in n.args), tuple((k, moved(v)) for k, v in n.kwargs))
            for n in (self._nodes[i] for i in sorted(needed))
        )
        return nodes, moved(output), tuple(kept)


def _why(op: Any) -> str:
    name = _name(op)
    if torch.Tag.nondeterministic_seeded in op.tags or "rand" in name or "dropout" in name:
        return f"it is random ({name}); draw the numbers beforehand and let the function close over them"
    if "local_scalar" in name or "nonzero" in name:
        return "it takes a number out of a tensor (.item(), float(x), int(x)); keep it a tensor"
    return f"the operation {name} may not travel{_HINT}"


# ---- proving --------------------------------------------------------------------------------------------------------------------


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
        if not isinstance(wanted, Tensor) or (problem := graph.problem(value, wanted)):
            raise NotPortable(f"{graph.name} " + (problem if isinstance(wanted, Tensor) else f"returns {type(wanted).__name__}"))
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
