"""Many cells on one input in one forward pass whose batch grows as it climbs.

A cell joins the batch at the first layer it changes, forked from the cached residual of the base run; the layers below are not run
for it. Positions before the group's first change come from the base run's key-value cache, and the head runs only where the metric
looks. The model's own forward supplies masks, rotary tables and caches, computed for one row and broadcast over the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.engine.attention import routed
from mainspring.engine.flow import Flow, active
from mainspring.engine.operations import Operation, narrowed_shape, prepare
from mainspring.engine.places import Place
from mainspring.engine.plan import Atlas, attention_configs, concrete
from mainspring.engine.points import Point
from mainspring.engine.subspaces import operated
from mainspring.engine.sweeps.cells import Cell
from mainspring.engine.sweeps.looks import Looks, last_mlp_only, tokens_only
from mainspring.errors import EditNeverFired
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace, Values

__all__ = ["Base", "base_run", "run_group"]


@dataclass(frozen=True, eq=False)
class Base:
    """The unedited run of one input: residuals entering each layer (and leaving the last), caches, and what the metric reads."""

    kwargs: Mapping[str, Any]
    rows: Mapping[str, Rows]
    residuals: Sequence[Tensor]
    keys: Sequence[tuple[Tensor, Tensor]]
    reads: Mapping[Site, Tensor]
    logits: Tensor | None

    @property
    def length(self) -> int:
        return self.rows[""].width

    def trace(self, looks: Looks, depth: int) -> Trace:
        """The unedited run as the metric sees it."""
        values = dict(self.reads)
        if looks.logits:
            assert self.logits is not None
            values |= looks.picked(self.logits, self.rows[""])
        return Trace(Values(values, self.rows, {"": depth}))


def base_run(atlas: Atlas, kwargs: Mapping[str, Any], rows: Mapping[str, Rows], looks: Looks) -> Base:
    """Run one unpadded input without edits and keep what cells fork from."""
    from transformers import DynamicCache

    depth, kept = atlas.depth(""), []
    layers = [atlas.layer("", i) for i in range(depth)]
    points = _reading(atlas, looks.sites)
    flow = Flow(points, rows, batch=1)
    cache = DynamicCache()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if flow.attention:
            stack.enter_context(routed(attention_configs(points)))
        stack.enter_context(flow.attach())
        entered = stack.enter_context(_recorded(layers, kept))
        given = {**kwargs, "past_key_values": cache, "use_cache": True}
        if looks.columns is not None:
            given["logits_to_keep"] = looks.columns
        output = atlas.module(**given)
    keys: list[tuple[Tensor, Tensor]] = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]
    found = {site: values[-1] for site, values in flow.kept.items()}
    logits = getattr(output, "logits", None)
    if logits is not None and looks.tokens is not None:
        logits = logits[..., looks.tokens.to(logits.device)]
    return Base(kwargs, rows, list(entered), keys, found, logits)


@contextmanager
def _recorded(layers: Sequence[nn.Module], kept: list[Tensor]) -> Any:
    """Keep what enters every layer and what leaves the last."""

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append((args[0] if args else kwargs["hidden_states"]).clone())

    def leaving(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output).clone())

    handles = [layer.register_forward_pre_hook(entering, with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(leaving))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _reading(atlas: Atlas, reads: tuple[Site, ...]) -> list[Point]:
    points: dict[int, Point] = {}
    for site in reads:
        for single, place in concrete(atlas, site.bare):
            points.setdefault(id(place), Point(place)).reads.append(single)
    return list(points.values())


class _Forked(Flow):
    """A flow whose batch grows: `joins[l]` says how many rows enter at layer l, and `acts` what each row does at each place."""

    def __init__(
        self,
        atlas: Atlas,
        base: Base,
        joins: Mapping[int, int],
        acts: Mapping[Place, list[tuple[int, int, Operation]]],
        reads: list[Point],
        start: int,
        n_cells: int,
    ) -> None:
        points = {id(p.place): p for p in reads}
        for place in acts:
            points.setdefault(id(place), Point(place))
        super().__init__(list(points.values()), base.rows, batch=None, fresh=base.length - start)
        self.start, self.acts, self.base, self.joins, self.atlas = start, acts, base, joins, atlas
        self.count = [0] * n_cells

    @contextmanager
    def attach(self, graph: bool | None = None) -> Any:
        depth, handles = self.atlas.depth(""), []
        lowest = min(self.joins)
        try:
            for layer, count in self.joins.items():
                if layer < depth:
                    module = self.atlas.layer("", layer)
                    handles.append(module.register_forward_pre_hook(self._entry(layer, count, layer == lowest), with_kwargs=True))
            with super().attach(graph):
                if depth in self.joins:
                    hook = self._exit(self.joins[depth], depth == lowest)
                    handles.append(self.atlas.layer("", depth - 1).register_forward_hook(hook, prepend=True))
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _grown(self, hidden: Tensor, layer: int, count: int, first: bool) -> Tensor:
        fork = self.base.residuals[layer][:, self.start :].expand(count, -1, -1)
        return fork if first else torch.cat([hidden, fork])

    def _entry(self, layer: int, count: int, first: bool) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            if active.flow is not self or kwargs is None:
                return None
            if args:
                return (self._grown(args[0], layer, count, first), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": self._grown(kwargs["hidden_states"], layer, count, first)}

        return hook

    def _exit(self, count: int, first: bool) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if active.flow is not self:
                return None
            depth = self.atlas.depth("")
            if isinstance(output, tuple):
                return (self._grown(output[0], depth, count, first), *output[1:])
            return self._grown(output, depth, count, first)

        return hook

    def visit(self, point: Point, raw: Tensor, inputs: Tensor | None) -> Tensor:
        from mainspring.engine.forms import Seen

        place, seen = point.place, Seen(inputs, self._rows_now(raw))
        old = value = place.form.read(raw, seen)
        for cell, row, operation in self.acts.get(place, ()):
            if row >= value.shape[0]:
                continue  # not yet forked: the change lies in a later layer of the same place's stack
            part = value[row : row + 1]
            if operation.view is not None:
                new = operated(self, operation.view, operation, part)
            else:
                window = self._window(place, operation.select, part)
                new = None if window.empty else window.put(part, operation.act(window.get(part), part, window))
            if new is None:
                continue
            if value is old:
                value = value.clone()  # one copy for all rows, written into from here on
            value[row : row + 1] = new
            self.count[cell] += 1
        for site in point.reads:
            self.kept.setdefault(site, []).append(value.clone())
        if value is old:
            return raw
        if place.shared:
            return raw.copy_(value)
        return place.form.write(raw, old, value, seen)

    def _rows_now(self, raw: Tensor) -> int:
        return raw.shape[0] // (self.fresh or 1) if raw.ndim == 2 else raw.shape[0]


def run_group(atlas: Atlas, base: Base, cells: Sequence[Cell], start: int, looks: Looks) -> Trace:
    """Run cells that all leave the tokens before `start` alone; returns a trace with one row per cell, in their order."""
    order = sorted(range(len(cells)), key=lambda i: cells[i].fork)
    joins: dict[int, int] = {}
    acts: dict[Place, list[tuple[int, int, Operation]]] = {}
    for row, i in enumerate(order):
        joins[cells[i].fork] = joins.get(cells[i].fork, 0) + 1
        for edit in cells[i].edits:
            for site, place in concrete(atlas, edit.site):
                shape = narrowed_shape(site, place, base.rows, 1)
                operation = prepare(edit.at(site), place, base.rows, shape, atlas.dtype, atlas.device)
                acts.setdefault(place.under or place, []).append((i, row, operation))
    points = _reading(atlas, looks.sites)
    flow = _Forked(atlas, base, joins, acts, points, start, len(cells))
    kwargs = {**_suffix(base, joins, start)}
    keep = None if looks.columns is None else looks.columns >= start
    if keep is not None:
        assert looks.columns is not None
        kwargs["logits_to_keep"] = looks.columns[keep] - start
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if flow.attention:
            stack.enter_context(routed(attention_configs([*points, *(Point(p) for p in acts)])))
        if keep is not None and not looks.sites:
            stack.enter_context(last_mlp_only(atlas, flow, kwargs["logits_to_keep"], acts))
        if looks.tokens is not None:
            stack.enter_context(tokens_only(atlas, flow, looks.tokens))
        stack.enter_context(flow.attach())
        output = atlas.module(**kwargs)
    for cell, count in zip(cells, flow.count, strict=True):
        if count == 0:
            raise EditNeverFired(f"the edits of cell {cell.index} never fired: {'; '.join(map(str, cell.edits))}")
    back = torch.tensor(order).argsort()
    values = {site: _whole(atlas, base, site, kept[-1], start, len(cells))[back] for site, kept in flow.kept.items()}
    if looks.logits:
        assert base.logits is not None
        logits = base.logits.expand(len(cells), -1, -1).clone()
        if keep is None:
            logits[:, start:] = output.logits[back]
        else:
            logits[:, keep] = output.logits[back]
        values |= looks.picked(logits, base.rows[""])
    return Trace(Values(values, {"": _repeated(base.rows[""], len(cells))}, {"": atlas.depth("")}))


def _suffix(base: Base, joins: Mapping[int, int], start: int) -> dict[str, Any]:
    """The model's arguments for the tokens from `start` on, with the base run's cache for those before."""
    from transformers import DynamicCache

    kwargs = {k: v for k, v in base.kwargs.items() if k not in ("use_cache", "attention_mask", "position_ids")}
    kwargs["input_ids"] = base.kwargs["input_ids"][:, start:]
    kwargs["use_cache"] = bool(start)
    if start:
        cache, rows = DynamicCache(), 0
        for layer, (keys, values) in enumerate(base.keys):
            rows += joins.get(layer, 0)
            n = max(rows, 1)
            cache.update(keys[:, :, :start].expand(n, -1, -1, -1), values[:, :, :start].expand(n, -1, -1, -1), layer)
        kwargs["past_key_values"] = cache
    return kwargs


def _whole(atlas: Atlas, base: Base, site: Site, value: Tensor, start: int, n_cells: int) -> Tensor:
    """A read of every cell over all positions: cells not yet forked there, and tokens before the suffix, are as in the base."""
    place, original = atlas.place(site), base.reads[site]
    axis = next((i for i, a in enumerate(place.axes) if a in ("pos", "query")), None)
    out = original.expand(n_cells, *original.shape[1:]).clone()
    rows = out[: value.shape[0]] if value.shape[0] <= n_cells else out
    if axis is None:
        rows.copy_(value)
    else:
        length = value.shape[axis]
        rows.narrow(axis, original.shape[axis] - length, length).copy_(value)
    return out


def _repeated(layout: Rows, count: int) -> Rows:
    spans = {name: places * count for name, places in layout.spans.items()}
    return Rows(layout.lengths * count, layout.offsets * count, layout.width, spans)
