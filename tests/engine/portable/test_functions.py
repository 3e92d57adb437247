"""Functions that travel: exported, written, read, and equal to the original at sizes other than those they were traced with."""

import pytest
import torch

from engine.portable.functions import NAMES, RESID, table
from engine.tiny import noise
from mainspring.engine.portable.allowed import ALLOWED, FORBIDDEN, call, overload
from mainspring.engine.portable.export import export
from mainspring.engine.portable.graphs import Graph
from mainspring.engine.portable.schema import GraphDoc
from mainspring.engine.portable.wire import read_graph, write_graph
from mainspring.errors import NotPortable, ShapeMismatch, UnsafeShape

SIZES = [(1, 1), (1, 9), (2, 2), (3, 13), (6, 31)]
TABLES = {dtype: table(dtype) for dtype in (torch.float32, torch.bfloat16)}


def there_and_back(graph):
    tensors = {}
    written = write_graph(graph, tensors)
    return read_graph(GraphDoc.model_validate(written), tensors)


def close(found, wanted, dtype):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    finite = torch.isfinite(wanted)
    assert torch.equal(finite, torch.isfinite(found))
    scale = max(1.0, float(wanted[finite].abs().max()))
    torch.testing.assert_close(found[finite].float(), wanted[finite].float(), rtol=bound, atol=bound * scale)


@pytest.mark.parametrize("dtype", TABLES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_function_travels(name, dtype):
    fn, shape = TABLES[dtype][name]
    graph = export(fn, shape, dtype)
    back = there_and_back(graph)
    assert back == graph
    assert {n.op for n in back.nodes} <= ALLOWED | {"size"} | {n.op for n in back.nodes if n.op.startswith("number.")}
    for i, (batch, length) in enumerate(SIZES):
        sizes = {"batch": batch, "pos": length, "query": length, "key": length}
        value = noise(*(sizes.get(n, n) for n in shape), seed=i).to(dtype)
        before = value.clone()
        with torch.no_grad():
            wanted = fn(value.clone())
            close(back(value), wanted, dtype)
        assert torch.equal(value, before), "the graph wrote into its input"


def test_there_are_forty():
    assert len(NAMES) >= 40


def test_gradients_pass_through_a_graph():
    for name in ("keep_norm", "sae_top_k", "layer_norm", "rotary", "self_attention"):
        fn, shape = TABLES[torch.float32][name]
        graph = there_and_back(export(fn, shape))
        value = noise(2, 5, 24).requires_grad_()
        (wanted,) = torch.autograd.grad(fn(value * 1).square().sum(), value)
        (found,) = torch.autograd.grad(graph(value).square().sum(), value)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


# ---- what cannot travel -------------------------------------------------------------------------------------------------------

LIST, COUNT = [], 0


def branches(v):
    return v if v.sum() > 0 else -v


def takes_a_number(v):
    return v * v.max().item()


def picks_by_value(v):
    return v * v[v > 0].sum()


def prints(v):
    print("here")
    return v


def prints_deep(v):
    return prints(v) + 1


def counts(v):
    global COUNT
    COUNT += 1
    return v * COUNT


def collects(v):
    LIST.append(v.shape)
    return v + 1


def opens(v):
    open("somewhere")  # noqa: SIM115
    return v


def random(v):
    return v + torch.randn_like(v)


def drops_out(v):
    return torch.nn.functional.dropout(v, 0.5)


def by_length(v):
    return v * 2 if v.shape[1] > 6 else v


def up_to(v):
    return v * 2 if v.shape[1] < 600 else v


def one_length(v):
    return v + torch.ones(7, 24)


def to_numpy(v):
    return torch.from_numpy(v.numpy() * 2)


def changes_shape(v):
    return v[:, :1]


def changes_dtype(v):
    return v.double()


def returns_two(v):
    return v, v


def raises(v):
    raise KeyError("no")


def decomposes(v):
    return v @ torch.linalg.inv(torch.eye(24) + v[0].T @ v[0])


def returns_nothing(v):
    v.mul_(2)


REFUSED = [
    (branches, "torch.where"), (takes_a_number, "torch.where"), (picks_by_value, "torch.where"), (prints, "print"),
    (prints_deep, "print"), (counts, "COUNT"), (collects, "LIST"), (opens, "open"), (random, "random"), (drops_out, "random"),
    (by_length, "one path"), (up_to, "one path"), (one_length, "any number|differ|tracing"), (to_numpy, "tracing"),
    (changes_shape, "same"), (changes_dtype, "same"), (returns_two, "one tensor"), (raises, "KeyError"),
    (decomposes, "may not travel|tracing it failed"), (returns_nothing, "one tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "told"), REFUSED, ids=[fn.__name__ for fn, _ in REFUSED])
def test_what_cannot_travel_says_what_to_do(fn, told, capfd):
    with pytest.raises(NotPortable, match=told) as caught:
        export(fn, RESID)
    assert fn.__name__ in str(caught.value)
    assert len(str(caught.value)) < 700
    assert capfd.readouterr().out.replace("here\n", "") == ""


def test_a_method_that_keeps_state_is_refused():
    class Stateful:
        def __call__(self, v):
            self.seen = v
            return v

    with pytest.raises(NotPortable, match="seen"):
        export(Stateful(), RESID)


def test_a_function_that_needs_a_length_says_so_in_its_graph():
    graph = export(lambda v: v * v[:, 3:4], RESID)
    assert dict(graph.least)["pos"] == 4
    assert graph(noise(2, 4, 24)).shape == (2, 4, 24)
    with pytest.raises(ShapeMismatch, match="at least 4"):
        graph(noise(2, 3, 24))


def test_constants_are_copied_small():
    big = noise(1000, 24)
    graph = export(lambda v: v + big[3], RESID)
    assert sum(c.numel() for c in graph.constants) <= big.numel()
    before = graph(noise(1, 2, 24)).clone()
    big.zero_()
    assert torch.equal(graph(noise(1, 2, 24)), before), "the graph kept an alias of the author's tensor"


def test_what_depends_on_constants_only_is_computed_beforehand():
    w = noise(24, 4)
    graph = export(lambda v: v @ torch.linalg.qr(w)[0] @ torch.linalg.qr(w)[0].T, RESID)
    assert all("qr" not in n.op for n in graph.nodes)


# ---- the allow-list -----------------------------------------------------------------------------------------------------------


def test_the_allow_list_is_pure():
    for name in ALLOWED:
        schema = overload(name)._schema
        assert not schema.is_mutable, f"{name} writes in place"
        assert torch.Tag.nondeterministic_seeded not in overload(name).tags, f"{name} is random"
        # index.Tensor has a shape that depends on values for boolean indices only, and those are refused
        dynamic = torch.Tag.dynamic_output_shape in overload(name).tags
        assert not dynamic or name == "aten.index.Tensor", f"{name} has a shape that depends on values"
        assert torch.Tag.data_dependent_output not in overload(name).tags, f"{name} gives numbers to Python"
        assert not any(a.is_out for a in schema.arguments)


def test_integer_division_that_would_stop_the_process_is_refused():
    smallest, minus = torch.tensor([-(2**63)]), torch.tensor([-1])
    for name, args in (("aten.div.Tensor_mode", (smallest, minus)), ("aten.div.Scalar_mode", (smallest, -1))):
        with pytest.raises(UnsafeShape, match="floating"):
            call(name, args, {"rounding_mode": "trunc"}, torch.device("cpu"))


def test_indices_are_checked_before_the_kernel():
    value, far = noise(3, 4), torch.tensor([0, 9])
    for name, args in {
        "aten.index_select.default": (value, 0, far),
        "aten.gather.default": (value, 0, far[None]),
        "aten.embedding.default": (value, far),
        "aten.index.Tensor": (value, [None, far]),
        "aten.scatter.value": (value, 0, far[None], 1.0),
        "aten.index_put.default": (value, [far], torch.tensor(1.0)),
    }.items():
        with pytest.raises(UnsafeShape, match="out of range"):
            call(name, args, {}, torch.device("cpu"))
    with pytest.raises(UnsafeShape, match="integer indices"):
        call("aten.index.Tensor", (value, [value > 0]), {}, torch.device("cpu"))


@pytest.mark.parametrize("key", FORBIDDEN)
def test_forbidden_keywords(key):
    with pytest.raises(UnsafeShape, match=key):
        call("aten.zeros_like.default", (noise(2),), {key: None}, torch.device("cpu"))


def test_a_graph_prints_and_compares():
    fn, shape = TABLES[torch.float32]["add"]
    graph = export(fn, shape, name="steer")
    assert "steer" in repr(graph)
    assert isinstance(graph, Graph)
    assert hash(graph) == hash(there_and_back(graph))
    assert graph != export(lambda v: v, shape)


def test_shapes_on_meta_refuse_every_axis_that_the_kernel_refuses():
    """Verification runs on meta tensors, so what it lets pass must not fail later: a sweep over every operation with an axis."""

    def arguments(name, tensor, axis):
        found = []
        for a in overload(name)._schema.arguments:
            kind = str(a.type)
            if a.name.startswith("dim"):
                found.append([axis] if "List" in kind else axis)
            elif a.has_default_value() or a.kwarg_only:
                break
            else:
                made = (
                    [tensor, tensor] if "List[Tensor]" in kind else tensor if "Tensor" in kind else [1] if "List" in kind else 1
                )
                found.append(made)
        return tuple(found)

    def fails(name, tensor, axis):
        try:
            call(name, arguments(name, tensor, axis), {}, tensor.device)
        except (RuntimeError, IndexError, TypeError, UnsafeShape, ValueError):
            return True
        return False

    real, meta = noise(2, 3, 4), noise(2, 3, 4).to("meta")
    tried = [n for n in ALLOWED if any(a.name.startswith("dim") for a in overload(n)._schema.arguments)]
    assert len(tried) > 50
    lax = [n for n in tried for axis in (9, -9) if fails(n, real, axis) and not fails(n, meta, axis)]
    assert not lax
