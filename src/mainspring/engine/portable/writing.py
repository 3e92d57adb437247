"""Turning a traced module into nodes and constants of a graph."""

import operator
from typing import Any

import torch
from torch import Tensor

from mainspring.engine.portable.allowed import ALLOWED, DTYPES, FORBIDDEN, WORDS
from mainspring.engine.portable.graphs import INPUT, Constant, Node, Ref
from mainspring.engine.portable.tracing import HINT, name_of
from mainspring.errors import NotPortable

__all__ = ["Writer"]

_NUMBERS: dict[Any, str] = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.floordiv: "floordiv", operator.mod: "mod",
    operator.truediv: "truediv", operator.pow: "pow", operator.neg: "neg", torch.sym_max: "max", torch.sym_min: "min",
    torch.sym_float: "float",
}  # fmt: skip


class Writer:
    """Turns a traced module into nodes and constants."""

    def __init__(self, module: torch.fx.GraphModule, name: str) -> None:
        self._module, self._name = module, name
        module.graph.eliminate_dead_code()
        self._nodes: list[Node] = []
        self._known: dict[str, int] = {}
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
            raise NotPortable(f"{self._name} cannot travel: it uses {getattr(target, '__name__', target)}{HINT}")
        if node not in self._moving and name_of(target) not in ALLOWED:
            out = self._evaluated(node)
            return tuple(self._constant(t) for t in out) if isinstance(out, tuple | list) else self._constant(out)
        name = name_of(target)
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
        key = repr(node)  # tells 1 from 1.0; the operations are pure, so what is said twice is computed once
        if key not in self._known:
            self._known[key] = len(self._nodes)
            self._nodes.append(node)
        return Ref(self._known[key])

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
    name = name_of(op)
    if torch.Tag.nondeterministic_seeded in op.tags or "rand" in name or "dropout" in name:
        return f"it is random ({name}); draw the numbers beforehand and let the function close over them"
    if "local_scalar" in name or "nonzero" in name:
        return "it takes a number out of a tensor (.item(), float(x), int(x)); keep it a tensor"
    return f"the operation {name} may not travel{HINT}"
