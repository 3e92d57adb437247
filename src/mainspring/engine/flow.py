"""One forward pass with reads and edits: hooks on the named modules, and what they keep.

A `Flow` belongs to the thread that made it. Its hooks look first whether it is the flow that this thread runs just now, so two
threads (or a run inside an edit's function) on one model do not see each other. Hooks go on for a forward pass and come off after
it, also when the model raises.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.engine.forms import Form, Seen
from mainspring.engine.hooks import Entry, put_after, put_before, take_off
from mainspring.engine.inside import Inside
from mainspring.engine.operations import Operation
from mainspring.engine.places import Place
from mainspring.engine.points import Point, Points
from mainspring.engine.subspaces import Pulled, coordinates, operated, tracked
from mainspring.errors import PositionError, SiteError
from mainspring.rows import Rows
from mainspring.selectors import Slice
from mainspring.sites import Site
from mainspring.windows import Window, compile_window

__all__ = ["Flow", "Stop", "active"]


class _Active(threading.local):
    """The flow that this thread runs just now."""

    flow: "Flow | None" = None


active = _Active()


class Stop(BaseException):
    """Ends a forward pass when nothing more is needed. Not an `Exception`: no model code may swallow it."""


class Flow:
    """The state of one run: what to do where, and what was kept.

    In a generation `fresh` tokens enter at column `start` in each forward pass, and token selectors of reads are left to the end,
    when all positions are known. A single run has `fresh` None.
    """

    def __init__(
        self,
        points: Points | Iterable[Point],
        rows: Mapping[str, Rows],
        *,
        n_edits: int = 0,
        batch: int | None = None,
        original: bool = False,
        gradients: bool = False,
        attached: bool = False,
        graph_from: nn.Module | None = None,
        stop_after: nn.Module | None = None,
        fresh: int | None = None,
        windows: Mapping[Any, Window] | None = None,
    ) -> None:
        self.rows, self.original, self.gradients, self.attached = rows, original, gradients, attached
        self.graph_from, self.stop_after, self.start, self.fresh = graph_from, stop_after, 0, fresh
        self.fired, self.batch, self.windows = [0] * n_edits, batch, windows or {}
        self.kept: dict[Site, list[Tensor]] = {}
        self.snapshots: dict[Site, Tensor] = {}
        self.tracked: dict[Site, tuple[Tensor, Window | Pulled]] = {}
        self.stopped = False
        self.points = points if isinstance(points, Points) else Points.of(points)

    @property
    def attention(self) -> Mapping[nn.Module, Mapping[str, Point]]:
        """The points within attention functions, by module and by what passes there."""
        return self.points.attention

    def attach(self, graph: bool | None = None) -> AbstractContextManager[None]:
        """Put the hooks on for one forward pass of this thread, with or without an autograd graph (None: as it is)."""
        return _Attached(self, graph)

    def passing(self, point: Point, raw: Tensor) -> Tensor:
        """`visit` for a tensor that no module hook sees."""
        return self.visit(point, raw, None)

    def _before(self, points: list[Point]) -> Callable[..., Any]:
        # torch drops a hook's name from the list of those that take keyword arguments when another thread takes the hook off,
        # and may then call it here without them
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            if active.flow is not self or kwargs is None:
                return None
            changed = False
            for point in points:
                key = _argument(point.place, args, kwargs)
                raw = args[key] if isinstance(key, int) else kwargs[key]
                new = self.visit(point, raw, None)
                if new is not raw:
                    changed = True
                    if isinstance(key, int):
                        args = (*args[:key], new, *args[key + 1 :])
                    else:
                        kwargs = {**kwargs, key: new}
            return (args, kwargs) if changed else None

        return hook

    def _after(self, points: list[Point]) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if active.flow is not self:
                return None
            for point in points:
                raw = output if type(output) is Tensor else _picked(point.place, output)
                new = self.visit(point, raw, args[0] if args else None)
                if new is not raw:
                    output = new if type(output) is Tensor else _replaced(point.place, output, new)
            return output

        return hook

    def _begin_graph(self, module: nn.Module, args: Any) -> None:
        if active.flow is self:
            torch.set_grad_enabled(True)  # until the hooks come off

    def _stop(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if active.flow is self:
            self.stopped = True
            raise Stop

    def visit(self, point: Point, raw: Tensor, inputs: Tensor | None) -> Tensor:
        """Read and edit one place as the forward pass goes by; returns the tensor that flows on (`raw` itself if unchanged)."""
        place = point.place
        if not point.operations and not self.attached and not self.original:
            # only read: what flows on is what came
            form = place.form
            self._keep(point, raw if type(form) is Form else form.read(raw, Seen(inputs, self.batch)))
            return raw
        if point.only_edited:
            return self._edited(point, raw)
        seen = Seen(inputs, self.batch)
        # the value will be written over `raw`, and what the operations keep of `raw` for the backward pass must stay
        copied = place.shared and bool(point.operations) and torch.is_grad_enabled()
        old = value = place.form.read(raw.clone() if copied else raw, seen)
        if self.original:
            self._keep(point, value)
        value = self._edited(point, value)
        if self.attached and point.reads and value is raw and not place.shared:
            value = raw.view_as(raw)  # others may use the very tensor, whose gradients are not this site's
        if self.gradients and point.reads:
            if place.shared and value is old and value is not raw:
                value = value.clone()  # a view of what is about to be overwritten would lose its gradient
            if not value.requires_grad:
                value = value if place.shared and value is raw else value.detach()
                value.requires_grad_()
            for site in point.reads:
                view = point.views.get(site) if point.views else None
                window = self._window(place, site.select, value) if view is None else tracked(self, view, site, value)
                self.tracked[site] = (value, window)
        if point.reads and not self.original:
            self._keep(point, value)
        if self.attached and point.reads and not place.shared:
            # what is kept stays as it is, also when the caller writes into what flows on, as Falcon does
            value = value.clone()
        elif value is old and not (self.gradients and point.reads):
            return raw
        if place.shared:
            return raw if value is raw else raw.copy_(place.form.write(raw, old, value, seen))
        return place.form.write(raw, old, value, seen)

    def _edited(self, point: Point, value: Tensor) -> Tensor:
        """What a place's operations make of its value; the value itself where none of them selects anything of it."""
        for index, operation in point.operations:
            if operation.view is not None:
                if (new := operated(self, operation.view, operation, value)) is not None:
                    value = new
                    self.fired[index] += 1
                continue
            last = point.windows.get(index)
            if last is not None and last[0] == value.shape:
                window = last[1]
            else:
                window = self._window_of(point.place, operation, value)
                if self.fresh is None:  # in a generation it depends on the step too
                    point.windows[index] = (value.shape, window)
            if window.empty:
                continue
            instead = operation.instead
            value = window.put(value, operation.act(window.get(value), value, window) if instead is None else instead)
            self.fired[index] += 1
        return value

    def _keep(self, point: Point, seen: Tensor) -> None:
        place, value, views = point.place, seen, point.views
        for site in point.reads:
            if views:
                view = views.get(site)
                place, value = (point.place, seen) if view is None else (view, coordinates(view, seen))
            if not site.select and self.fresh is None:
                picked = value
            elif self.fresh is not None:
                picked = self._narrowed_for_later(place, site, value)
            else:
                window = self._window(place, site.select, value)
                if window.ragged or window.empty:
                    raise PositionError(
                        f"{site} picks a different number of tokens in different rows; read it row by row (row=) or pick one token"
                    )
                picked = window.get(value)
            # the model may go on to write into its tensors, so what is kept is a copy; in a graph it must be the tensor itself,
            # and a copy flows on
            if not self.attached:
                picked = picked.detach().clone() if picked.requires_grad else picked.clone()
            elif place.shared and self.gradients:
                picked = picked.clone()
            self.kept.setdefault(site, []).append(picked)
            if self.gradients:
                self.snapshots[site] = picked.detach().clone()

    def _narrowed_for_later(self, place: Place, site: Site, value: Tensor) -> Tensor:
        """A value of one generation step: its fresh tokens, narrowed on all axes that do not count rows or tokens."""
        if (
            self.fresh is not None
            and place.item in ("k", "v")
            and place.site.stack == ""
            and not place.site.name.startswith("cross.")
        ):
            value = value[:, -self.fresh :]  # keys and values of earlier steps come along from the cache
        return self._window(place, tuple((k, i) for k, i in site.select if k not in LATER), value).get(value)

    def _window_of(self, place: Place, operation: Operation, value: Tensor) -> Window:
        """The selection of an operation; one that covers only the first columns of a sequence is limited to those."""
        columns = operation.columns
        if self.fresh is None or columns is None:
            return self._window(place, operation.select, value)
        axis = place.axes.index("pos")
        first = self._first_column(place, value, axis)
        if first >= columns:
            return Window(tuple(value.shape), empty=True)
        if first > 0:
            raise PositionError(f"{operation.edit}: a sliding cache has dropped columns that it covers; name positions with pos=")
        # the constant is laid out in columns, so here the token axis is addressed as it stands
        layouts = {a: self.rows[stack] for a, stack in place.rows_of.items() if stack in self.rows and a != "pos"}
        select = (*operation.select, ("pos", Slice(0, columns)))
        return compile_window(select, place.axes, tuple(value.shape), layouts, name=place.site)

    def _first_column(self, place: Place, value: Tensor, axis: int) -> int:
        if self.fresh is None or place.site.stack != "":
            return 0
        return self.start + self.fresh - value.shape[axis]

    def _window(self, place: Place, select: tuple[tuple[str, Any], ...], value: Tensor) -> Window:
        if not select:
            return Window(tuple(value.shape), plain=(), whole=True)
        axes = place.axes or module_axes(value.ndim, "dim" if place.under is None else "feature")
        if len(axes) != value.ndim:
            raise SiteError(f"{place.site} gave a tensor of shape {tuple(value.shape)}, but its axes are {', '.join(axes)}")
        known = self.windows.get((select, axes, tuple(value.shape), place.counts)) if self.fresh is None else None
        if known is not None:
            return known
        layouts = {axis: self.rows[stack] for axis, stack in place.rows_of.items() if stack in self.rows}
        token = next((i for i, a in enumerate(axes) if a in ("pos", "query")), None)
        start = 0 if token is None else self._first_column(place, value, token)
        return compile_window(select, axes, tuple(value.shape), layouts, start=start, final=self.fresh is None, name=place.site)


class _Attached:
    """A flow's hooks on its modules for the length of a `with` block; a class, for a generator costs more in a short run."""

    __slots__ = ("entries", "flow", "graph", "handles", "mode", "outer", "usual")

    def __init__(self, flow: Flow, graph: bool | None) -> None:
        self.flow, self.graph = flow, graph
        self.entries: list[Entry] = []
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        flow, entries, points = self.flow, self.entries, self.flow.points
        self.outer, active.flow = active.flow, flow
        self.usual = torch.is_grad_enabled()
        self.mode = Inside(points.inside, flow.passing, lambda: active.flow is flow) if points.inside else None
        try:
            if self.graph is not None and self.graph != self.usual:
                torch.set_grad_enabled(self.graph)
            for module, here in points.inputs.items():
                put_before(module, flow._before(here), entries, named=True)
            for module, here in points.outputs.items():
                # first in line: transformers keeps hooks of its own that record outputs, and they must see the edited value
                put_after(module, flow._after(here), entries, first=True)
            if flow.graph_from is not None:
                put_before(flow.graph_from, flow._begin_graph, entries, first=True)
            if flow.stop_after is not None:
                put_after(flow.stop_after, flow._stop, entries)
            if self.mode is not None:
                self.handles.extend(self.mode.hooks())
                self.mode.__enter__()
        except BaseException:
            self._off()
            raise

    def __exit__(self, *error: Any) -> None:
        try:
            if self.mode is not None:
                self.mode.__exit__(*error)
        finally:
            self._off()

    def _off(self) -> None:
        active.flow = self.outer
        if torch.is_grad_enabled() != self.usual:
            torch.set_grad_enabled(self.usual)
        take_off(self.entries)
        for handle in self.handles:
            handle.remove()


def module_axes(ndim: int, last: str = "dim") -> tuple[str, ...]:
    """The axes of a raw module's tensor: the first counts rows, and the last is its width."""
    return tuple(["batch", *(f"axis{i}" for i in range(1, ndim - 1)), last][:ndim])


LATER = ("row", "pos", "step", "query", "key")
"""Selectors that a generation applies once all positions are known."""


def _argument(place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    """Where the tensor stands among a module's arguments: by position, or by name."""
    item = place.item
    if isinstance(item, str) and item in kwargs:
        return item
    if isinstance(item, int) and item < len(args):
        return item
    for i, value in enumerate(args):
        if isinstance(value, Tensor):
            return i
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            return name
    raise SiteError(f"{place.site}: the module was called without a tensor")


def _picked(place: Place, output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    found = output
    if isinstance(output, Mapping):
        found = output[place.item] if place.item in output else next(iter(output.values()))
    elif isinstance(output, tuple | list):
        found = output[place.item if isinstance(place.item, int) else 0]
    elif place.item is not None and hasattr(output, str(place.item)):
        found = getattr(output, str(place.item))
    if not isinstance(found, Tensor):
        raise SiteError(f"{place.site}: the module returned {type(found).__name__} where a tensor was expected")
    return found


def _replaced(place: Place, output: Any, new: Tensor) -> Any:
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        key = place.item if place.item in output else next(iter(output))
        output[key] = new  # type: ignore[index]
        return output
    if isinstance(output, tuple | list):
        item = place.item if isinstance(place.item, int) else 0
        parts = [*output[:item], new, *output[item + 1 :]]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    setattr(output, str(place.item), new)
    return output
