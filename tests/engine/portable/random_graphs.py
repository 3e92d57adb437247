"""Random graphs of allowed operations: most are nonsense, some verify, and those must then run as they promised."""

import torch

from mainspring.engine.portable.allowed import ALLOWED, DTYPES, WORDS, overload
from mainspring.engine.portable.documents import checked_document, fields_of
from mainspring.engine.portable.limits import Limits
from mainspring.errors import MainspringError, UnsafeShape

OPS = sorted(ALLOWED)
INTS = [0, 1, 2, 3, 4, -1, -2, 5, 6, 7, 9, -9, 2**31 - 1, -(2**31), 2**63 - 1, 2**20]
FLOATS = [0.0, 1.0, -1.0, 0.5, 1e-8, 1e30, -3.25]
SHAPES = [[], [1], [4], [6], [4, 6], [6, 4], [1, 4], [2, 3, 4], [6, 6], [0], [3, 0]]
LIMITS = Limits(node_elements=2**20, work=10**8, nodes=64)


def _plausible(argument, rng, i, kinds):
    """A value for an argument of an operation, by its declared type."""
    kind = str(argument.type)
    if "List" in kind and "Tensor" in kind:
        return [_tensor(rng, i, kinds) if rng.randrange(5) else None for _ in range(rng.randrange(1, 4))]
    if "Tensor" in kind:
        return _tensor(rng, i, kinds) if "Optional" not in kind or rng.randrange(3) else None
    if "List" in kind:
        return [INTS[rng.randrange(len(INTS) if rng.randrange(6) == 0 else 8)] for _ in range(rng.randrange(4))]
    if "bool" in kind:
        return bool(rng.randrange(2))
    if "float" in kind or ("number" in kind and rng.randrange(2)):
        return FLOATS[rng.randrange(len(FLOATS))]
    if argument.name == "dtype":
        return {"dtype": list(DTYPES)[rng.randrange(len(DTYPES))]}
    if "str" in kind:
        return WORDS[rng.randrange(len(WORDS))]
    return INTS[rng.randrange(len(INTS) if rng.randrange(6) == 0 else 6)]


def _tensor(rng, i, kinds):
    pick = rng.randrange(6)
    if pick == 0:
        return {"tensor": f"t{rng.randrange(len(kinds))}"}
    if pick == 1 or i == 0:
        return {"node": -1}
    return {"node": i - 1 if rng.randrange(3) else rng.randrange(i)}


def document(rng):
    """A request with one random graph of a few nodes, and the tensors it declares."""
    kinds = [
        (("float32", "int64", "bool", "float32", "bfloat16")[rng.randrange(5)], SHAPES[rng.randrange(len(SHAPES))])
        for _ in range(2)
    ]
    nodes = []
    for i in range(rng.randrange(1, 6)):
        name = OPS[rng.randrange(len(OPS))]
        args, kwargs = [], {}
        for a in overload(name)._schema.arguments:
            if a.kwarg_only:
                if a.name in (
                    "dtype",
                    "rounding_mode",
                    "alpha",
                    "value",
                    "stable",
                    "approximate",
                    "correction",
                ) and rng.randrange(2):
                    kwargs[a.name] = _plausible(a, rng, i, kinds)
            elif not a.has_default_value() or rng.randrange(2):
                args.append(_plausible(a, rng, i, kinds))
        nodes.append({"op": name, "args": args, "kwargs": kwargs})
    # end with something of the right shape, so that the graph before it is not refused for its result alone
    nodes += [
        {"op": "aten.sum.default", "args": [{"node": len(nodes) - 1}], "kwargs": {}},
        {"op": "aten._to_copy.default", "args": [{"node": len(nodes)}], "kwargs": {"dtype": {"dtype": "float32"}}},
        {"op": "aten.mul.Tensor", "args": [{"node": -1}, {"node": len(nodes) + 1}], "kwargs": {}},
    ]
    used = sorted({name for n in nodes for a in _flat(n["args"]) if isinstance(a, dict) and (name := a.get("tensor"))})
    made = {
        "name": "fn",
        "shape": [["batch", "pos", 4], ["batch", 6], ["batch", "pos", 4, 6]][rng.randrange(3)],
        "dtype": "float32",
        "least": {},
        "gives": "value",
        "nodes": nodes,
        "output": {"node": len(nodes) - 1},
        "constants": used,
    }
    declared = {name: {"dtype": kinds[int(name[1:])][0], "shape": kinds[int(name[1:])][1]} for name in used}
    return {
        "mainspring": "request",
        "version": 1,
        "kind": "run",
        "inputs": {"tokens": [1]},
        "read": [],
        "traces": [],
        "graphs": [made],
        "edits": [{"site": "embed", "op": "apply", "params": {"fn": {"graph": 0}}}],
        "grad_of": None,
        "until": "auto",
        "original": False,
        "spans": {},
        "generation": None,
        "tensors": declared,
    }


def _flat(values):
    for v in values:
        yield from v if isinstance(v, list) else (v,)


def contents(declared, rng):
    """Tensors as declared, filled with values that are likely to hurt."""
    made = {}
    for name, about in declared.items():
        dtype = DTYPES[about["dtype"]]
        value = torch.zeros(about["shape"], dtype=dtype)
        if value.numel():
            fill = (
                [0, 1, -1, 3, 10**9, -(2**63)][rng.randrange(6)]
                if not dtype.is_floating_point
                else [0.0, 1.0, -2.5, 1e30][rng.randrange(4)]
            )
            value.fill_(bool(fill) if dtype == torch.bool else fill)
        made[name] = value
    return made


def trial(rng):
    """Read, verify and run one random graph: 'refused', 'stopped' (a value was out of range, told at run time) or 'ran'."""
    written = document(rng)
    table = {k: (t["dtype"], tuple(t["shape"])) for k, t in written["tensors"].items()}
    try:
        checked = checked_document(written, table, LIMITS)
        graph = fields_of(checked, contents(written["tensors"], rng))[3][0]["fn"]
    except MainspringError:
        return "refused", written
    for batch, length in ((1, 1), (2, 5), (3, 3)):
        sizes = {"batch": batch, "pos": length}
        value = torch.linspace(-2, 2, batch * length * 24 if len(graph.shape) > 2 else batch * 6)
        value = value.resize_([sizes.get(n, n) for n in graph.shape])
        try:
            out = graph(value.clone())
        except UnsafeShape as error:
            return ("stopped" if any(w in str(error) for w in VALUES) else "differs"), (written, str(error))
        assert out.shape == value.shape
        assert out.dtype == value.dtype
    return "ran", written


VALUES = ("out of range", "ZeroDivision", "division by zero", "negative", "overflow", "must be")
"""What an error may be about that depends on values and not on shapes."""
