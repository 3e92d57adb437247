"""What the operations of edits do to a value, and the checks that can be made before a run.

`prepare` turns an edit at one place into an `Operation` for inputs of known layout: constants are resolved, moved and cast, and
shapes that cannot fit are refused. `Operation.act` then maps the narrowed value to the new one, in ordinary differentiable PyTorch.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edit
from mainspring.engine.ablation import ablate, token_stack
from mainspring.engine.fitting import Operation, constant, covers, fits, narrowed_shape
from mainspring.engine.places import Place
from mainspring.errors import DtypeMismatch, EditError, PositionError, ShapeMismatch
from mainspring.rows import Rows
from mainspring.selectors import Slice
from mainspring.trace import Trace
from mainspring.windows import Window, compile_window

__all__ = ["Operation", "narrowed_shape", "prepare", "require_steps"]


def prepare(
    edit: Edit,
    place: Place,
    rows: Mapping[str, Rows],
    shape: list[int | None] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Operation:
    """The operation of `edit` at `place`, whose selection has `shape`; raises a typed error for a constant that cannot fit."""
    operation = _MAKERS[edit.op](edit, place, rows, edit.site.select, shape, dtype, device)
    return operation if place.under is None else replace(operation, view=place)


def _simple(combine: Callable[[Tensor, Any], Tensor]) -> Callable[..., Operation]:
    def make(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: torch.dtype, device: torch.device) -> Operation:
        value = constant(edit, edit["value"], shape, dtype, device)

        def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
            return _checked(edit, combine, v, value)

        instead = value if combine is _set and isinstance(value, Tensor) and shape is not None and None not in shape else None
        columns = covers(edit, place, edit["value"], shape)
        return Operation(edit, select, act, columns, instead=instead, lasting=value is edit["value"])

    return make


def _checked(edit: Edit, combine: Callable[[Tensor, Any], Tensor], v: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor) and not fits(tuple(value.shape), list(v.shape)):
        raise ShapeMismatch(f"{edit} has shape {tuple(value.shape)}, but here the site is {list(v.shape)}")
    return combine(v, value)


def _set(v: Tensor, value: Any) -> Tensor:
    return value.expand(v.shape) if isinstance(value, Tensor) else torch.full_like(v, value)


def _patch(
    edit: Edit, place: Place, rows: Mapping[str, Rows], select: Any, shape: Any, dtype: torch.dtype, device: torch.device
) -> Operation:
    moved = {k: edit[k] for k in ("row", "pos") if edit[k] is not None}
    source: Trace | None = edit["source"]
    if source is None:
        if "pos" in moved and "query" in place.axes:
            moved["query"] = moved.pop("pos")
        origin = edit.site(**moved)
        layouts = {axis: rows[stack] for axis, stack in place.rows_of.items() if stack in rows}

        def from_here(v: Tensor, whole: Tensor, window: Window) -> Tensor:
            return compile_window(origin.select, place.axes, tuple(whole.shape), layouts, name=str(origin)).get(whole).clone()

        return Operation(edit, select, _guard(edit, from_here))
    asked = edit["site"]
    if asked is None:
        asked = edit.site
    elif asked.layers is not None and not asked.is_single:
        raise EditError(f"{edit} patches from several layers at once; name one layer in site=")
    tokens = "pos" in moved or any(k in ("pos", "step", "query", "key") for k, _ in asked.select)
    layout = source.read.rows.get(asked.stack)
    if isinstance(moved.get("row"), int) and not tokens and layout is not None and "" in source.read.rows:
        source = source.row(moved.pop("row"))  # one text, without its padding
    if edit.site.basis is not None and asked.basis is None:  # another place, in the same coordinates
        asked = asked.through(edit.site.basis)(feature=dict(edit.site.select).get("feature"))
    asked = asked(**moved) if moved else asked
    # rows select what is overwritten here; the source is indexed by its own row= only
    if "row" in dict(asked.select) and "row" not in moved and edit["site"] is None:
        asked = asked(row=None)
    value = source[asked]
    rows_chosen = dict(edit.site.select).get("row")
    if not tokens:
        value = _relaid(edit, value, source, rows, place, rows_chosen)
    if rows_chosen is not None and "row" not in moved and value.shape[0] != 1:
        value = _own_rows(value, rows_chosen)
    elif isinstance(rows_chosen, int) and "row" not in moved:
        value = value[0]
    value = constant(edit, value, shape, dtype, device)
    columns = covers(edit, place, value, shape)

    def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        return _checked(edit, _set, v, value)

    return Operation(edit, select, act, columns)


def _own_rows(value: Tensor, index: Any) -> Tensor:
    if isinstance(index, Slice):
        return value[slice(index.start, index.stop, index.step)]
    return value[list(index)] if isinstance(index, tuple) else value[index]


def _relaid(edit: Edit, value: Tensor, source: Trace, rows: Mapping[str, Rows], place: Place, chosen: Any) -> Tensor:
    """The source's tokens moved to the columns where this run's rows have them. `chosen` rows only need to fit."""
    theirs, mine = source.read.rows.get(token_stack(place)), rows.get(token_stack(place))
    if theirs is None or mine is None or (theirs.lengths, theirs.offsets) == (mine.lengths, mine.offsets):
        return value
    if theirs.batch == 1 and not theirs.padded and not mine.padded and theirs.width == mine.width:
        return value
    if "query" in place.axes:
        raise ShapeMismatch(f"{edit}: the texts of the trace and of this run differ in length or padding; name query= and key=")
    if "pos" not in place.axes:
        return value
    if theirs.batch not in (1, mine.batch) or value.shape[0] != theirs.batch:
        raise ShapeMismatch(f"{edit}: the trace has {theirs.batch} rows and this run {mine.batch}; choose one with row=")
    out = value.new_zeros((mine.batch, mine.width, *value.shape[2:]))
    wanted = range(mine.batch) if chosen is None else _own_rows(torch.arange(mine.batch), chosen).reshape(-1).tolist()
    for row in wanted:
        other = row if theirs.batch == mine.batch else 0
        if theirs.lengths[other] != mine.lengths[row]:
            raise ShapeMismatch(
                f"{edit}: row {row} has {mine.lengths[row]} tokens here and {theirs.lengths[other]} in the trace; "
                "name the positions to patch with pos="
            )
        a, b, n = mine.offsets[row], theirs.offsets[other], mine.lengths[row]
        out[row, a : a + n] = value[other, b : b + n]
    return out


def _guard(edit: Edit, act: Callable[[Tensor, Tensor, Window], Tensor]) -> Callable[[Tensor, Tensor, Window], Tensor]:
    def checked(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        new = act(v, whole, window)
        if not fits(tuple(new.shape), list(v.shape)):
            raise ShapeMismatch(f"{edit} gives shape {tuple(new.shape)}, but the selection is {tuple(v.shape)}")
        return new.expand(v.shape)

    return checked


def _project_out(
    edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: torch.dtype, device: torch.device
) -> Operation:
    directions = edit["value"].to(torch.float32).reshape(-1, edit["value"].shape[-1])
    if shape is not None and shape and shape[-1] is not None and shape[-1] != directions.shape[-1]:
        raise ShapeMismatch(
            f"{edit} has directions of {directions.shape[-1]} entries, but the last axis of {edit.site} has {shape[-1]}"
        )
    left, weight, _ = torch.linalg.svd(directions.T, full_matrices=False)
    # [dim, k], orthonormal; directions that repeat each other span less than their number
    basis = left[:, weight > weight.max() * 1e-6].to(device=device, dtype=dtype)

    def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        return v - (v @ basis) @ basis.T

    return Operation(edit, select, act)


def _clamp(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: Any, device: Any) -> Operation:
    return Operation(edit, select, lambda v, whole, window: v.clamp(edit["low"], edit["high"]), lasting=True)


def _mask(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: Any, device: torch.device) -> Operation:
    fill = float("-inf") if edit.site.name.endswith("scores") else 0.0
    where = edit["where"]
    if where is not None:
        if shape is not None and not fits(tuple(where.shape), shape):
            raise ShapeMismatch(f"{edit} has shape {tuple(where.shape)}, which does not broadcast over {edit.site}")
        where = where.to(device)

    def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        return torch.full_like(v, fill) if where is None else v.masked_fill(where, fill)

    return Operation(edit, select, act)


def _apply(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: Any, device: Any) -> Operation:
    fn = edit["fn"]

    def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        new = fn(v.clone())
        if not isinstance(new, Tensor):
            raise EditError(f"{edit} returned {type(new).__name__}; it must return a tensor of shape {tuple(v.shape)}")
        if new.shape != v.shape:
            raise ShapeMismatch(f"{edit} returned shape {tuple(new.shape)}; the selection is {tuple(v.shape)}")
        if new.dtype != v.dtype:
            raise DtypeMismatch(f"{edit} returned {new.dtype}; the site holds {v.dtype}")
        return new

    return Operation(edit, select, act, lasting=True)


_MAKERS: dict[str, Callable[..., Operation]] = {
    "set": _simple(_set),
    "add": _simple(lambda v, x: v + x),
    "scale": _simple(lambda v, x: v * x),
    "ablate": ablate,
    "patch": _patch,
    "project_out": _project_out,
    "clamp": _clamp,
    "mask": _mask,
    "apply": _apply,
}


def require_steps(edit: Edit) -> None:
    """`step=` picks generated tokens, so a single run has none."""
    if any(key == "step" for key, _ in edit.site.select):
        raise PositionError(f"{edit.site}: step= picks generated tokens; use it with model.generate, or pos= here")
