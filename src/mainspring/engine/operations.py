"""What the operations of edits do to a value, and the checks that can be made before a run.

`prepare` turns an edit at one place into an `Operation` for inputs of known layout: constants are resolved, moved and cast, and
shapes that cannot fit are refused. `Operation.act` then maps the narrowed value to the new one, in ordinary differentiable PyTorch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edit
from mainspring.engine.places import Place
from mainspring.errors import DtypeMismatch, EditError, PositionError, ShapeMismatch
from mainspring.rows import Rows
from mainspring.selectors import PerRow, Slice
from mainspring.sites import Site
from mainspring.trace import Trace
from mainspring.windows import Window, compile_window

__all__ = ["Operation", "narrowed_shape", "prepare", "require_steps"]


@dataclass(frozen=True, eq=False)
class Operation:
    """An edit made ready for one place and one batch.

    `act(value, whole, window)` maps the selected `value` to the new one; `whole` is the unnarrowed tensor. `columns` limits an
    edit without a position selector to the columns that its constant covers.
    """

    edit: Edit
    select: tuple[tuple[str, Any], ...]
    act: Callable[[Tensor, Tensor, Window], Tensor]
    columns: int | None = None


def prepare(
    edit: Edit,
    place: Place,
    rows: Mapping[str, Rows],
    shape: list[int | None] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Operation:
    """The operation of `edit` at `place`, whose selection has `shape`; raises a typed error for a constant that cannot fit."""
    return _MAKERS[edit.op](edit, place, rows, edit.site.select, shape, dtype, device)


def _constant(edit: Edit, value: Any, shape: list[int | None] | None, dtype: torch.dtype, device: torch.device) -> Any:
    """The constant on the site's device and dtype, once it is known to fit."""
    if not isinstance(value, Tensor):
        return value
    if torch.promote_types(value.dtype, dtype) != dtype and value.is_floating_point():
        raise DtypeMismatch(
            f"{edit} holds {value.dtype} but the model computes in {dtype}, which would lose precision; cast it with .to({dtype})"
        )
    if shape is not None and not _fits(tuple(value.shape), shape):
        shown = ", ".join("any" if n is None else str(n) for n in shape)
        raise ShapeMismatch(
            f"{edit} has shape {tuple(value.shape)}, but {edit.site} is [{shown}]; trailing axes must match or be 1"
        )
    return value.to(device=device, dtype=dtype)


def _fits(shape: tuple[int, ...], target: list[int | None]) -> bool:
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


def _covers(edit: Edit, place: Place, value: Any, shape: list[int | None] | None) -> int | None:
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


def _simple(combine: Callable[[Tensor, Any], Tensor]) -> Callable[..., Operation]:
    def make(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: torch.dtype, device: torch.device) -> Operation:
        value = _constant(edit, edit["value"], shape, dtype, device)

        def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
            return _checked(edit, combine, v, value)

        return Operation(edit, select, act, _covers(edit, place, edit["value"], shape))

    return make


def _checked(edit: Edit, combine: Callable[[Tensor, Any], Tensor], v: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor) and not _fits(tuple(value.shape), list(v.shape)):
        raise ShapeMismatch(f"{edit} has shape {tuple(value.shape)}, but here the site is {list(v.shape)}")
    return combine(v, value)


def _set(v: Tensor, value: Any) -> Tensor:
    return value.expand(v.shape) if isinstance(value, Tensor) else torch.full_like(v, value)


def _ablate(
    edit: Edit, place: Place, rows: Mapping[str, Rows], select: Any, shape: Any, dtype: torch.dtype, device: torch.device
) -> Operation:
    kind, source = edit["kind"], edit["of"]
    if kind == "zero":
        return Operation(edit, select, lambda v, whole, window: torch.zeros_like(v))
    mine = rows.get(_stack(place))
    theirs = mine if source is None else source.read.rows.get(_stack(place))
    if "query" in place.axes and any(r is not None and not r.uniform for r in (mine, theirs)):
        raise EditError(
            f"{edit} mixes attention weights of texts of different length; give texts of one length, or use patch or scale"
        )
    given = None if source is None else source[edit.site.bare].to(device=device, dtype=dtype)
    # values of a trace cover the tokens of the prompt; in a generation later tokens stay as they are
    prompt = mine.width if mine is not None and given is not None and "pos" in place.axes else None

    covers = None if any(key in ("pos", "step") for key, _ in select) else prompt

    def laid(window: Window, whole: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        if prompt is None or whole.shape[1] <= prompt:
            return window.get(make(whole))
        return window.get(torch.cat([make(whole[:, :prompt]), whole[:, prompt:]], dim=1))

    if kind == "mean":
        known = None if given is None else _mean(given, place.axes, theirs, edit["over"])

        def from_mean(v: Tensor, whole: Tensor, window: Window) -> Tensor:
            layout = mine if mine is not None and "pos" in place.axes and whole.shape[1] == mine.width else None
            mean = _mean(whole, place.axes, layout, edit["over"]) if known is None else known
            if prompt is None or mean.shape[1] == 1:
                return window.get(_stretch(mean, whole, layout, edit))
            return laid(window, whole, lambda part: _stretch(mean, part, mine, edit))

        return Operation(edit, select, from_mean, covers if known is not None and known.shape[1] > 1 else None)

    def from_draw(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        # drawn anew from the same seed at every place and step, so that all of them see the same exchange of rows
        generator, n = torch.Generator().manual_seed(edit["seed"]), whole.shape[0]
        if given is not None:
            picks = torch.randint(len(given), (n,), generator=generator)
        elif n < 2:
            raise EditError(f"{edit} draws from other rows, but the batch has one; pass of=trace with more")
        else:
            shift = int(torch.randint(1, n, (1,), generator=generator))
            order = torch.randperm(n, generator=generator)
            picks = torch.empty(n, dtype=torch.long)
            picks[order] = order.roll(shift)  # a shift along a random cycle: no row draws itself
        return laid(window, whole, lambda part: _drawn(edit, place, part, part if given is None else given, picks, mine, theirs))

    return Operation(edit, select, from_draw, covers)


def _stack(place: Place) -> str:
    """The stack whose tokens stand along the place's `pos` axis."""
    return place.rows_of.get("pos", place.site.stack)


def _mean(value: Tensor, axes: tuple[str, ...], layout: Rows | None, over: tuple[str, ...]) -> Tensor:
    """The mean over batch and/or tokens, kept as axes of length 1; padding does not count.

    A mean over the batch alone is one for each position, counted from the first real token.
    """
    if "image" in axes:  # images stand for rows, and their patches for tokens
        over = tuple({"batch": "image", "pos": "patch"}.get(a, a) for a in over)
    dims = [axes.index(a) for a in over if a in axes]
    if not dims:
        raise EditError(f'ablate("mean") averages over {", ".join(over)}, but the axes of this site are {", ".join(axes)}')
    if layout is None or "pos" not in axes or not layout.padded or layout.batch != value.shape[0]:
        return value.mean(dim=dims, keepdim=True)
    value = torch.stack([row.roll(-offset, dims=0) for row, offset in zip(value, layout.offsets, strict=True)])
    real = torch.arange(layout.width)[None] < torch.tensor(layout.lengths)[:, None]
    weight = real.to(value).reshape([layout.batch, layout.width] + [1] * (value.ndim - 2))
    return (value * weight).sum(dim=dims, keepdim=True) / weight.sum(dim=dims, keepdim=True).clamp(min=1)


def _stretch(mean: Tensor, whole: Tensor, layout: Rows | None, edit: Edit) -> Tensor:
    """A mean laid over the tensor it replaces; one that differs by position begins at each row's first real token."""
    if not _fits(tuple(mean.shape), list(whole.shape)):
        raise ShapeMismatch(
            f"{edit}: the reference has shape {tuple(mean.shape)} and this run {tuple(whole.shape)}; "
            'average over "pos" too, or use references of the same length'
        )
    mean = mean.expand(whole.shape)
    if layout is None or not any(layout.offsets):
        return mean
    return torch.stack([row.roll(offset, dims=0) for row, offset in zip(mean, layout.offsets, strict=True)])


def _drawn(
    edit: Edit, place: Place, whole: Tensor, given: Tensor, picks: Tensor, mine: Rows | None, theirs: Rows | None
) -> Tensor:
    """`given[picks]`, with the tokens of every row moved to where the receiving row has them."""
    tokens = "pos" in place.axes and mine is not None and whole.shape[1] == mine.width
    if not tokens or mine is None or theirs is None or (mine.uniform and theirs.uniform and not mine.padded and not theirs.padded):
        taken = given[picks.to(given.device)]
        if taken.shape != whole.shape:
            raise ShapeMismatch(
                f"{edit}: the reference has rows of shape {tuple(taken.shape[1:])} and this run {tuple(whole.shape[1:])}"
            )
        return taken
    out = whole.clone()
    for row, other in enumerate(picks.tolist()):
        n = min(mine.lengths[row], theirs.lengths[other])
        a, b = mine.offsets[row], theirs.offsets[other]
        out[row, a : a + n] = given[other, b : b + n]
    return out


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
    value = _constant(edit, value, shape, dtype, device)
    covers = _covers(edit, place, value, shape)

    def act(v: Tensor, whole: Tensor, window: Window) -> Tensor:
        return _checked(edit, _set, v, value)

    return Operation(edit, select, act, covers)


def _own_rows(value: Tensor, index: Any) -> Tensor:
    if isinstance(index, Slice):
        return value[slice(index.start, index.stop, index.step)]
    return value[list(index)] if isinstance(index, tuple) else value[index]


def _relaid(edit: Edit, value: Tensor, source: Trace, rows: Mapping[str, Rows], place: Place, chosen: Any) -> Tensor:
    """The source's tokens moved to the columns where this run's rows have them. `chosen` rows only need to fit."""
    theirs, mine = source.read.rows.get(_stack(place)), rows.get(_stack(place))
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
        if not _fits(tuple(new.shape), list(v.shape)):
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
    return Operation(edit, select, lambda v, whole, window: v.clamp(edit["low"], edit["high"]))


def _mask(edit: Edit, place: Place, rows: Any, select: Any, shape: Any, dtype: Any, device: torch.device) -> Operation:
    fill = float("-inf") if edit.site.name.endswith("scores") else 0.0
    where = edit["where"]
    if where is not None:
        if shape is not None and not _fits(tuple(where.shape), shape):
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

    return Operation(edit, select, act)


_MAKERS: dict[str, Callable[..., Operation]] = {
    "set": _simple(_set),
    "add": _simple(lambda v, x: v + x),
    "scale": _simple(lambda v, x: v * x),
    "ablate": _ablate,
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
