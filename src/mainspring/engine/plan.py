"""From what a user asks for to the points that a run touches. Everything impossible is refused here, before any forward pass."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from mainspring.edits import Edits
from mainspring.engine.flow import Point
from mainspring.engine.operations import prepare, require_steps
from mainspring.engine.places import Place
from mainspring.errors import NotRecorded, PositionError, SelectorError, SiteError, SiteRefused
from mainspring.rows import Rows
from mainspring.sites import Site, parse_site
from mainspring.windows import Window, compile_window

__all__ = ["Atlas", "Plan", "as_sites", "make_plan"]


@runtime_checkable
class Atlas(Protocol):
    """What the engine needs to know of a model."""

    module: nn.Module
    plans: dict[Any, Any]

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    def place(self, site: Site) -> Place: ...
    def depth(self, stack: str) -> int: ...
    def layer(self, stack: str, index: int) -> nn.Module: ...


@dataclass(frozen=True, eq=False)
class Plan:
    """The points of a run, its edits and reads, and the module after which it may stop (None: run to the end).

    `windows` are the selections that were compiled to check them, by selectors, axes and shape.
    """

    points: Sequence[Point]
    edits: Edits
    reads: tuple[Site, ...]
    stop: nn.Module | None = None
    stopped_after: str | None = None
    windows: dict[Any, Window] = field(default_factory=dict)


def as_sites(read: Any) -> tuple[Site, ...]:
    """One site, several, or their text forms, as a flat tuple without repeats."""
    if read is None:
        return ()
    if isinstance(read, Site):
        return (read,)
    if isinstance(read, str):
        return (parse_site(read),)
    if not isinstance(read, Iterable):
        raise SiteError(f"read= takes sites such as at.layers[:].resid_post, not {read!r}")
    return tuple(dict.fromkeys(site for item in read for site in as_sites(item)))


def concrete(atlas: Atlas, site: Site) -> list[tuple[Site, Place]]:
    """The single sites that `site` names with their places. A wildcard leaves out layers that refuse, unless all do."""
    singles = site.expand(atlas.depth(site.stack)) if site.layers is not None else (site,)
    if len(singles) == 1 and site.is_single:
        return [(singles[0], atlas.place(singles[0].bare))]
    found, refusal = [], None
    for single in singles:
        try:
            found.append((single, atlas.place(single.bare)))
        except SiteRefused as error:
            refusal = refusal or error
    if not found and refusal is not None:
        raise refusal
    return found


def make_plan(
    atlas: Atlas,
    reads: tuple[Site, ...],
    edits: Edits,
    rows: Mapping[str, Rows],
    *,
    batch: int | None,
    until: Any = "auto",
    generating: bool = False,
) -> Plan:
    """Resolve reads and edits on a model for inputs of known layout."""
    if not edits and not generating and not any(site.select for site in reads):
        # without edits and selectors a plan does not depend on the inputs
        key = (reads, until)
        if key not in atlas.plans:
            if len(atlas.plans) >= 256:
                atlas.plans.clear()
            atlas.plans[key] = _planned(atlas, reads, edits, rows, batch, until, generating)
        return atlas.plans[key]
    return _planned(atlas, reads, edits, rows, batch, until, generating)


def _planned(
    atlas: Atlas,
    reads: tuple[Site, ...],
    edits: Edits,
    rows: Mapping[str, Rows],
    batch: int | None,
    until: Any,
    generating: bool,
) -> Plan:
    points: dict[int, Point] = {}
    windows: dict[Any, Window] = {}
    wanted: list[Site] = []
    last: list[tuple[str, int | None]] = []

    def point(place: Place) -> Point:
        return points.setdefault(id(place), Point(place))

    for site in reads:
        for single, place in concrete(atlas, site):
            check_selectors(single, place, rows, batch, generating, windows)
            at_place = point(place)
            if single not in at_place.reads:
                at_place.reads.append(single)
                wanted.append(single)
            last.append((single.stack or "main", _depth_of(single)))
    deepest_read = _deepest(last)
    edited: list[tuple[str, int | None]] = []
    for index, edit in enumerate(edits):
        if not generating:
            require_steps(edit)
        for single, place in concrete(atlas, edit.site):
            if place.read_only:
                raise SiteRefused(f"{single} can be read but not edited: {place.read_only}", place.read_only)
            check_selectors(single, place, rows, batch, generating, windows)
            operation = prepare(edit.at(single), place, rows, batch, atlas.dtype, atlas.device)
            point(place).operations.append((index, operation))
            edited.append((single.stack or "main", _depth_of(single)))
    stop, name = _stop(atlas, until, deepest_read, _deepest(edited) if edited else -1, bool(reads), reads)
    return Plan(tuple(points.values()), edits, tuple(wanted), stop, name, windows)


def _depth_of(site: Site) -> int | None:
    if site.stack == "" and isinstance(site.layers, int):
        return site.layers
    return 0 if site.stack == "" and site.name == "embed" else None


def _deepest(found: list[tuple[str, int | None]]) -> int | None:
    """The deepest layer of the main stack among them; None when something outside it is needed."""
    depths = [d for _, d in found]
    return None if not depths or None in depths else max(d for d in depths if d is not None)


def _stop(
    atlas: Atlas, until: Any, reads: int | None, edits: int | None, has_reads: bool, asked: tuple[Site, ...]
) -> tuple[nn.Module | None, str | None]:
    if until is None or until == "end":
        return None, None
    if until != "auto":
        site = until if isinstance(until, Site) else parse_site(until)
        if not site.is_single or (depth := _depth_of(site.expand(atlas.depth(site.stack))[0])) is None:
            raise SiteError(f'until={site}: a run stops after a layer of the main stack, at the "end", or by itself ("auto")')
        if has_reads and (reads is None or reads > depth):
            raise NotRecorded(f"until={site} stops the run before everything in read= was reached: {', '.join(map(str, asked))}")
        return atlas.layer("", depth), f"layers.{depth}"
    if not has_reads or reads is None or edits is None or edits > reads or reads >= atlas.depth("") - 1:
        return None, None
    return atlas.layer("", reads), f"layers.{reads}"


def check_selectors(
    site: Site,
    place: Place,
    rows: Mapping[str, Rows],
    batch: int | None,
    generating: bool,
    windows: dict[Any, Window],
) -> None:
    """Refuse selectors that the place cannot satisfy, as far as it is known before the run."""
    if not site.select:
        return
    chosen = dict(site.select)
    if "step" in chosen:
        if not generating:
            raise PositionError(f"{site}: step= picks generated tokens; use it with model.generate, or pos= here")
        if "pos" in chosen or "query" in chosen:
            raise SelectorError(f"{site} gives both step= and pos=; a step is a position, so give one of them")
    if not place.axes:
        return
    # a stand-in of the right sizes: axes of unknown length pass every index
    layouts = {axis: rows[stack] for axis, stack in place.rows_of.items() if stack in rows}
    shape, select = [], dict(chosen)
    for axis in place.axes:
        layout = layouts.get(axis)
        size = place.batch(batch) if axis == "batch" else layout.width if layout is not None else place.sizes.get(axis)
        if size is None:
            for key in ("row",) if axis == "batch" else ("dim",) if axis == "head_dim" else (axis,):
                select.pop(key, None)
            size = 1
        shape.append(size)
    key = (tuple(select.items()), place.axes, tuple(shape), place.counts)
    if key not in windows:
        windows[key] = compile_window(key[0], place.axes, key[2], layouts, final=not generating, name=str(site))


def attention_configs(points: Sequence[Point]) -> list[Any]:
    """The configurations through which the touched attention modules choose their kernel."""
    return [p.place.module.config for p in points if p.place.end == "attention"]
