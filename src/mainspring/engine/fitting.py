"""Whether a constant fits where an edit puts it: the shape of a selection, and the constant moved and cast to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edit
from mainspring.engine.places import Place
from mainspring.errors import DtypeMismatch, ShapeMismatch
from mainspring.rows import Rows
from mainspring.selectors import PerRow, Slice
from mainspring.sites import Site
from mainspring.windows import Window

__all__ = ["Operation", "constant", "covers", "fits", "narrowed_shape"]


@dataclass(frozen=True, eq=False)
class Operation:
    """An edit made ready for one place and one batch.

    `act(value, whole, window)` maps the selected `value` to the new one; `whole` is the unnarrowed tensor. `columns` limits an
    edit without a position selector to the columns that its constant covers. `view` is set where it acts on coordinates.
    `instead` is what takes the value's place, whatever it was, where that is known to fit. `lasting` says that another run on
    inputs of the same layout would get the same operation: nothing was worked out from values that may change meanwhile.
    """

    edit: Edit
    select: tuple[tuple[str, Any], ...]
    act: Callable[[Tensor, Tensor, Window], Tensor]
    columns: int | None = None
    view: Place | None = None
    instead: Tensor | None = None
    lasting: bool = False


def constant(edit: Edit, value: Any, shape: list[int | None] | None, dtype: torch.dtype, device: torch.device) -> Any:
    """The constant on the site's device and dtype, once it is known to fit."""
    if not isinstance(value, Tensor):
        return value
    cast = value.dtype is not dtype
    if cast and torch.promote_types(value.dtype, dtype) != dtype and value.is_floating_point():
        raise DtypeMismatch(
            f"{edit} holds {value.dtype} but the model computes in {dtype}, which would lose precision; cast it with .to({dtype})"
        )
    if shape is not None and not fits(tuple(value.shape), shape):
        shown = ", ".join("any" if n is None else str(n) for n in shape)
        raise ShapeMismatch(
            f"{edit} has shape {tuple(value.shape)}, but {edit.site} is [{shown}]; trailing axes must match or be 1"
        )
    return value.to(device=device, dtype=dtype) if cast or value.device != device else value


def fits(shape: tuple[int, ...], target: list[int | None]) -> bool:
    if len(shape) > len(target):
        return False
    return all(n == 1 or m is None or n == m for n, m in zip(reversed(shape), reversed(target), strict=False))


def narrowed_shape(site: Site, place: Place, rows: Mapping[str, Rows], batch: int | None) -> list[int | None] | None:
    """The shape of the selection, None where only the run can tell."""
    if not place.axes:
        return None
    chosen, shape = dict(site.select), []
    token = {axis: rows.get(stack) for axis, stack in place.rows_of.items()}
    for axis in place.axes:
        keys = {"pos": ("pos", "step"), "query": ("query", "step"), "dim": ("dim",), "head_dim": ("dim",), "batch": ("row",)}
        index = next((chosen[k] for k in keys.get(axis, (axis,)) if k in chosen), None)
        layout = token.get(axis)
        size = place.batch(batch) if axis == "batch" else layout.width if layout is not None else place.sizes.get(axis)
        if index is None:
            shape.append(size)
        elif isinstance(index, int | PerRow) or getattr(index, "part", None) is not None:
            continue
        elif isinstance(index, tuple):
            shape.append(len(index))
        elif isinstance(index, Slice) and size is not None and layout is None:
            shape.append(len(index.indices(size)))
        else:
            shape.append(None)
    return shape


def covers(edit: Edit, place: Place, value: Any, shape: list[int | None] | None) -> int | None:
    """How many columns a constant with a token axis covers, where the edit itself names no position."""
    if not isinstance(value, Tensor) or shape is None or "pos" not in place.axes:
        return None
    if any(key in ("pos", "step") for key, _ in edit.site.select):
        return None
    kept = [a for a in place.axes if not _drops(edit, a)]
    from_end = len(kept) - kept.index("pos")
    if value.ndim < from_end or value.shape[-from_end] == 1:
        return None
    return value.shape[-from_end]


def _drops(edit: Edit, axis: str) -> bool:
    chosen = dict(edit.site.select)
    index = chosen.get({"batch": "row", "head_dim": "dim"}.get(axis, axis))
    return isinstance(index, int | PerRow) or getattr(index, "part", None) is not None
