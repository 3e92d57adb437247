"""Narrowing a tensor to a selection, and laying new values back over it.

A `Window` is compiled for one tensor shape: `get` reads the selection, `put` returns a copy of the tensor with the selection
replaced. A single index drops its axis; slices, lists and spans keep it. Where rows of a batch are padded differently, token axes
are indexed row by row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring.errors import PositionError, SelectorError
from mainspring.rows import Rows
from mainspring.selectors import Index, PerRow, Slice, Span, format_index
from mainspring.vocabulary import TOKEN_AXES

__all__ = ["Window", "compile_window"]

Select = tuple[tuple[str, Index], ...]


@dataclass(frozen=True)
class Window:
    """A selection on tensors of one shape.

    `plain` holds ints and slices only (a view suffices). Otherwise `mesh` holds one broadcastable index tensor per axis and
    `squeeze` the axes that single indices drop; `hit` is false at entries that fall outside this tensor or pad a ragged row.
    """

    shape: tuple[int, ...]
    plain: tuple[int | slice, ...] | None = None
    mesh: tuple[Tensor, ...] | None = None
    squeeze: tuple[int, ...] = ()
    hit: Tensor | None = None
    ragged: bool = False
    empty: bool = False
    whole: bool = False

    def get(self, value: Tensor) -> Tensor:
        """The selection; a view where the selection is plain."""
        if self.whole:
            return value
        if self.plain is not None:
            return value[self.plain]
        assert self.mesh is not None
        picked = value[tuple(i.to(value.device) for i in self.mesh)]
        return picked.reshape(self.shape) if self.squeeze else picked

    def put(self, value: Tensor, new: Tensor) -> Tensor:
        """A copy of `value` in which the selection is `new`, which broadcasts over it."""
        if self.whole:
            # what flows on is the run's own, for the model may write into it; it lies in memory as the value did, for kernels
            # choose by that
            return torch.empty_like(value).copy_(new)
        out = value.clone()
        if self.plain is not None:
            out[self.plain] = new
            return out
        assert self.mesh is not None
        mesh = torch.broadcast_tensors(*(i.to(value.device) for i in self.mesh))
        new = new.expand(self.shape).reshape(mesh[0].shape)
        if self.hit is not None:
            hit = self.hit.to(value.device).expand(mesh[0].shape)
            mesh, new = tuple(i[hit] for i in mesh), new[hit]
        out[tuple(mesh)] = new
        return out


def compile_window(
    select: Select,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    rows: Mapping[str, Rows],
    *,
    start: int = 0,
    final: bool = True,
    name: Any = "site",
) -> Window:
    """The window of `select` on a tensor of `shape` with named `axes`.

    `rows` gives, for each token axis, the layout of its tokens; a token axis without one is addressed as it stands. Query axes
    begin at column `start` of the sequence and key axes at their last `shape` columns; `final` says that no later tensor
    continues this one.
    """
    if not select:
        return Window(tuple(shape), plain=(), whole=True)
    picks: list[int | slice | list[int] | tuple[Tensor, Tensor | None, bool]] = [slice(None)] * len(axes)
    chosen = dict(select)
    row_index = chosen.pop("row", None)
    batch_rows = list(range(shape[0]))
    if row_index is not None:
        picks[0] = _pick(row_index, shape[0], "row", name)
        batch_rows = _listed(picks[0], shape[0])
    ragged = empty = False
    for key, index in chosen.items():
        axis = _axis(key, axes, name)
        counts_tokens = axes[axis] in TOKEN_AXES
        layout = rows.get(axes[axis])
        if not counts_tokens or layout is None:
            if isinstance(index, Span) or key == "step":
                raise PositionError(f"{name}: {key}={format_index(index)} needs tokens, and this axis has none")
            if isinstance(index, PerRow):
                picks[axis] = _rowwise(index.indices, batch_rows, shape[axis], key, name)
            else:
                picks[axis] = _pick(index, shape[axis], key, name)
            continue
        if layout.batch != shape[0]:
            raise PositionError(f"{name}: the batch has {layout.batch} rows of text but the tensor has {shape[0]}")
        length = shape[axis]
        first = start
        if axes[axis] == "key":
            # a cross-attention sees all of the other sequence; a self-attention's keys end with its queries
            crossed = rows.get("query", layout) is not layout
            first = 0 if crossed else max(0, start + (shape[axes.index("query")] if "query" in axes else 0) - length)
        is_step = key == "step" and axes[axis] != "key"
        # keys of earlier forward passes are all present, so a key beyond them lies in the future of a generation
        columns = [
            [c - first for c in layout.positions(r, index, first, first + length, step=is_step, final=final)] for r in batch_rows
        ]
        single = isinstance(index, int | PerRow) or (isinstance(index, Span) and index.part is not None)
        counts = {len(c) for c in columns}
        ragged |= not single and len(counts) > 1
        empty |= counts == {0}
        if len({tuple(c) for c in columns}) == 1 and counts != {0}:
            same = columns[0]
            picks[axis] = same[0] if single else _compact(same)
        else:
            wide = max(counts)
            padded = torch.tensor([c + [0] * (wide - len(c)) for c in columns], dtype=torch.long).reshape(len(columns), wide)
            hit = torch.tensor([[True] * len(c) + [False] * (wide - len(c)) for c in columns]).reshape(len(columns), wide)
            picks[axis] = (padded, None if bool(hit.all()) else hit, single)
    return _assemble(picks, shape, ragged, empty)


def _assemble(picks: list, shape: tuple[int, ...], ragged: bool, empty: bool) -> Window:
    result = tuple(
        len(range(*p.indices(shape[i]))) if isinstance(p, slice) else len(p) if isinstance(p, list) else p[0].shape[1]
        for i, p in enumerate(picks)
        if not (isinstance(p, int) or (isinstance(p, tuple) and p[2]))
    )
    if all(isinstance(p, int) or (isinstance(p, slice) and (p.step is None or p.step > 0)) for p in picks):
        return Window(result, plain=tuple(picks), ragged=ragged, empty=empty or 0 in result)
    n, mesh, squeeze, hit = len(picks), [], [], None
    for axis, pick in enumerate(picks):
        view = [1] * n
        if isinstance(pick, tuple):
            index, mask, single = pick
            view[0], view[axis] = index.shape
            mesh.append(index.reshape(view))
            if mask is not None:
                hit = mask.reshape(view) if hit is None else hit & mask.reshape(view)
            if single:
                squeeze.append(axis)
            continue
        if isinstance(pick, int):
            index = torch.tensor([pick])
            squeeze.append(axis)
        else:
            index = torch.tensor(_listed(pick, shape[axis]))
        view[axis] = len(index)
        mesh.append(index.reshape(view))
    return Window(result, mesh=tuple(mesh), squeeze=tuple(squeeze), hit=hit, ragged=ragged, empty=empty)


def _axis(key: str, axes: tuple[str, ...], name: Any) -> int:
    wanted = {"dim": ("dim", "head_dim"), "step": ("pos", "query"), "row": ("batch",)}.get(key, (key,))
    for axis in wanted:
        if axis in axes:
            return axes.index(axis)
    hint = ""
    if key == "head" and "kv_head" in axes:
        hint = "; keys and values are shared by groups of heads: ask for kv_head="
    elif key == "pos" and "query" in axes:
        hint = "; attention weights have query= and key="
    raise SelectorError(f"{name} has no {key} axis (its axes are {', '.join(axes)}){hint}")


def _pick(index: Index, size: int, key: str, name: Any) -> int | slice | list[int]:
    if isinstance(index, Span | PerRow):
        raise SelectorError(f"{name}: {key}={index} is only for token positions")
    if isinstance(index, Slice):
        found = index.indices(size)
        if not len(found):
            raise SelectorError(f"{name}: {key}={index} selects nothing on an axis of {size}")
        return slice(index.start, index.stop, index.step) if (index.step or 1) > 0 else list(found)
    many = (index,) if isinstance(index, int) else index
    for i in many:
        if not -size <= i < size:
            raise SelectorError(f"{name}: {key}={i} is out of range; there are {size} (0 to {size - 1})")
    resolved = [i % size for i in many]
    return resolved[0] if isinstance(index, int) else _compact(resolved)


def _rowwise(indices: tuple[int, ...], batch_rows: list[int], size: int, key: str, name: Any) -> tuple[Tensor, None, bool]:
    if len(indices) <= max(batch_rows):
        raise SelectorError(f"{name}: {key}= has {len(indices)} entries, one is needed for each row of the batch")
    chosen = [indices[r] for r in batch_rows]
    if any(not -size <= i < size for i in chosen):
        raise SelectorError(f"{name}: {key}={chosen} is out of range; there are {size} (0 to {size - 1})")
    return torch.tensor([[i % size] for i in chosen]), None, True


def _listed(pick: int | slice | list[int], size: int) -> list[int]:
    if isinstance(pick, int):
        return [pick]
    return list(range(*pick.indices(size))) if isinstance(pick, slice) else pick


def _compact(indices: list[int]) -> slice | list[int]:
    """A run of neighbours as a slice, which needs no copy to read."""
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[-1] + 1)
    return indices
