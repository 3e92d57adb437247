"""The allow-list: the ATen operations that a graph may use, and what each must satisfy before it touches memory.

On the list: pure functions of their arguments whose result is bounded by shapes known beforehand. Not on it: anything random,
in place, with a result whose shape depends on values, that reads files or devices, and kernels that trust their arguments
(group and batch norm, strided views), or that shows uninitialised memory. Two hazards of allowed operations are closed here: an
index out of range (on a GPU it would kill the process), and integer division that truncates (the smallest integer divided by -1
stops the process with SIGFPE).
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from mainspring.errors import UnknownOperation, UnsafeShape, nearest

__all__ = ["ALLOWED", "DTYPES", "FORBIDDEN", "WORDS", "call", "overload", "work"]

_ELEMENTWISE = """
abs acos acosh asin asinh atan atanh bitwise_not ceil clone cos cosh erf erfc exp exp2 expm1 floor isinf isnan isfinite
log log10 log1p log2 logical_not neg reciprocal relu relu6 round rsqrt sgn sigmoid sign sin sinh sqrt square tan tanh
trunc alias detach gelu silu hardsigmoid hardswish hardtanh elu leaky_relu softplus mish log_sigmoid_forward
lift_fresh_copy nan_to_num celu selu add.Tensor add.Scalar sub.Tensor sub.Scalar mul.Tensor mul.Scalar div.Tensor
div.Scalar div.Tensor_mode div.Scalar_mode rsub.Scalar rsub.Tensor remainder.Scalar remainder.Tensor fmod.Scalar
fmod.Tensor pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar atan2 hypot maximum minimum fmax fmin clamp clamp.Tensor
clamp_min clamp_max clamp_min.Tensor clamp_max.Tensor copysign.Tensor lerp.Scalar lerp.Tensor addcmul addcdiv threshold
xlogy.Tensor eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor gt.Scalar gt.Tensor
ge.Scalar ge.Tensor logical_and logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor
bitwise_and.Scalar bitwise_or.Scalar where.self masked_fill.Scalar masked_fill.Tensor _to_copy copy
"""
_REDUCTIONS = """
sum sum.dim_IntList mean mean.dim amax amin max max.dim min min.dim any any.dim any.dims all all.dim all.dims prod
prod.dim_int var.correction var.dim std.correction var_mean.correction argmax argmin logsumexp linalg_vector_norm
norm.ScalarOpt_dim norm.Scalar median.dim median kthvalue topk sort sort.stable argsort cumsum cumprod cummax cummin
logcumsumexp _softmax _log_softmax native_layer_norm _fused_rms_norm
"""
_PRODUCTS = "mm bmm mv dot addmm baddbmm addmv vdot outer"
_SHAPES = """
view _unsafe_view reshape view_copy permute permute_copy transpose.int t squeeze squeeze.dim squeeze.dims unsqueeze
expand expand_copy repeat roll flip cat stack select.int select_copy.int slice.Tensor slice_copy.Tensor select_scatter
slice_scatter diagonal diag_embed narrow split_with_sizes split_with_sizes_copy tril triu squeeze_copy.dim
unsqueeze_copy diagonal_copy squeeze_copy squeeze_copy.dims transpose_copy.int t_copy
"""
_INDEXING = """
index.Tensor index_select gather scatter.src scatter.value scatter_add scatter_reduce.two index_put index_add index_copy
index_fill.int_Scalar embedding bucketize.Tensor
"""
_CREATION = """
arange arange.start arange.start_step full full_like zeros zeros_like ones ones_like scalar_tensor new_zeros new_ones
new_full eye eye.m
"""


def _names() -> list[str]:
    text = " ".join((_ELEMENTWISE, _REDUCTIONS, _PRODUCTS, _SHAPES, _INDEXING, _CREATION))
    return [f"aten.{n}" if "." in n else f"aten.{n}.default" for n in text.split()]


ALLOWED = frozenset(_names())
"""Every operation that may appear in a graph, as `aten.name.overload`."""

FORBIDDEN = ("device", "layout", "pin_memory", "memory_format", "out", "generator", "non_blocking", "implicit")
"""Keyword arguments that never travel: where and how a value is stored is the runner's business."""

WORDS = ("floor", "trunc", "none", "tanh", "sum", "prod", "mean", "amax", "amin", "left", "right")
"""The only strings that may be arguments."""

DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
"""Dtypes by the name they travel under."""


@cache
def overload(name: str) -> Any:
    """The torch operation of an allowed name."""
    if name not in ALLOWED:
        raise UnknownOperation(f"the operation {name[:80]!r} may not travel{nearest(name[:80], ALLOWED)}")
    _, base, kind = name.split(".")
    found = getattr(getattr(torch.ops.aten, base, None), kind, None)
    if found is None:
        raise UnknownOperation(f"this release of torch has no {name}")
    return found


@cache
def _takes(name: str) -> frozenset[str]:
    return frozenset(a.name for a in overload(name)._schema.arguments)


@cache
def _creates(name: str) -> bool:
    return name.split(".")[1] in ("arange", "full", "zeros", "ones", "scalar_tensor", "eye")


def call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: torch.device) -> Any:
    """Run one allowed operation. New tensors are made on `device`; hazards are refused before the kernel is reached."""
    function = overload(name)
    for key in kwargs:
        if key in FORBIDDEN or key not in _takes(name):
            raise UnsafeShape(f"{name} takes no argument {key[:40]!r} here")
    if (guard := _GUARDS.get(name)) is not None:
        guard(name, args, kwargs)
    return function(*args, **kwargs, device=device) if _creates(name) else function(*args, **kwargs)


def work(name: str, args: tuple[Any, ...], out: Any) -> int:
    """About how many elementary steps an operation took, from the shapes alone."""
    made = sum(t.numel() for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor))
    base = name.split(".")[1]
    taken = sum(a.numel() for a in args if isinstance(a, Tensor))
    if base in ("mm", "bmm", "mv", "addmm", "baddbmm", "addmv"):
        left = args[1] if base.startswith(("add", "badd")) else args[0]
        return made * left.shape[-1] + taken
    return (made + taken) * (16 if base in ("sort", "argsort", "topk", "kthvalue", "median") else 1)


# ---- hazards ------------------------------------------------------------------------------------------------------------------


def _in_range(name: str, index: Any, size: int, *, negative: bool = False) -> None:
    if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise UnsafeShape(f"{name} takes integer indices; a boolean choice has no shape known beforehand, so use where()")
    if index.is_meta or index.numel() == 0:
        return
    low, high = (int(x) for x in torch.aminmax(index.detach()))
    if low < (-size if negative else 0) or high >= size:
        raise UnsafeShape(f"{name}: index {low if high < size else high} is out of range for an axis of {size}")


def _along(data: int, dim: int, index: int) -> Callable[..., None]:
    def guard(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if kwargs.keys() & {"self", "dim", "index"} or len(args) <= max(data, dim, index):
            raise UnsafeShape(f"{name}: tensors and dim are given by position")
        value, axis = args[data], args[dim]
        if not isinstance(value, Tensor) or not isinstance(axis, int) or not -max(value.ndim, 1) <= axis < max(value.ndim, 1):
            raise UnsafeShape(f"{name}: dim={axis!r} does not fit")
        _in_range(name, args[index], value.shape[axis] if value.ndim else 1)

    return guard


def _many(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if len(args) < 2 or not isinstance(args[0], Tensor) or not isinstance(args[1], list | tuple) or len(args[1]) > args[0].ndim:
        raise UnsafeShape(f"{name} takes a tensor and one index (or null) per axis")
    if all(index is None for index in args[1]):
        raise UnsafeShape(f"{name} is given no index")
    for axis, index in enumerate(args[1]):
        if index is not None:
            _in_range(name, index, args[0].shape[axis], negative=True)


def _embedding(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if len(args) < 2 or not isinstance(args[0], Tensor) or args[0].ndim != 2:
        raise UnsafeShape(f"{name} takes a matrix and indices")
    _in_range(name, args[1], args[0].shape[0])


def _axis(position: int) -> Callable[..., None]:
    """For operations whose shape rule on meta tensors does not look at `dim`, though their kernel does."""

    def guard(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        axis = args[position] if len(args) > position else kwargs.get("dim", 0)
        rank = max(args[0].ndim, 1) if args and isinstance(args[0], Tensor) else 0
        if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank:
            raise UnsafeShape(f"{name}: dim={axis!r} does not fit")

    return guard


def _scattered(take: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """What is laid over a part of a tensor must have the shape of that part."""
    _axis(2)(name, args, kwargs)
    if kwargs or len(args) < 2 or not isinstance(args[1], Tensor):
        raise UnsafeShape(f"{name} takes its arguments by position")
    part = overload(take)(args[0].detach().to("meta"), *args[2:])
    if part.shape != args[1].shape:
        raise UnsafeShape(f"{name} lays {list(args[1].shape)} over {list(part.shape)}")


def _bits(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if any(isinstance(a, float) or (isinstance(a, Tensor) and a.is_floating_point()) for a in args):
        raise UnsafeShape(f"{name} works on integers and truth values")


def _division(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if kwargs.get("rounding_mode") == "trunc" and not any(isinstance(a, Tensor) and a.is_floating_point() for a in args):
        raise UnsafeShape(f'{name} with rounding_mode="trunc" needs a floating point tensor')


_GUARDS: dict[str, Callable[..., None]] = {
    "aten.gather.default": _along(0, 1, 2),
    "aten.index_select.default": _along(0, 1, 2),
    "aten.scatter.src": _along(0, 1, 2),
    "aten.scatter.value": _along(0, 1, 2),
    "aten.scatter_add.default": _along(0, 1, 2),
    "aten.scatter_reduce.two": _along(0, 1, 2),
    "aten.index_add.default": _along(0, 1, 2),
    "aten.index_copy.default": _along(0, 1, 2),
    "aten.index_fill.int_Scalar": _along(0, 1, 2),
    "aten.index.Tensor": _many,
    "aten.index_put.default": _many,
    "aten.embedding.default": _embedding,
    "aten._softmax.default": _axis(1),
    "aten._log_softmax.default": _axis(1),
    "aten.sort.default": _axis(1),
    "aten.sort.stable": _axis(2),
    "aten.argsort.default": _axis(1),
    "aten.select_scatter.default": partial(_scattered, "aten.select.int"),
    "aten.slice_scatter.default": partial(_scattered, "aten.slice.Tensor"),
    **{name: _bits for name in ALLOWED if name.startswith("aten.bitwise_")},
    "aten.div.Tensor_mode": _division,
    "aten.div.Scalar_mode": _division,
}
