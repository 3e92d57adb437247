"""From what a user asks for to the points that a run touches. Everything impossible is refused here, before any forward pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import is_
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from mainspring.edits import Edits
from mainspring.engine.operations import narrowed_shape, prepare, require_steps
from mainspring.engine.places import Place
from mainspring.engine.points import Point, Points
from mainspring.engine.subspaces import view_of
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

    @cached_property
    def dealt(self) -> Points:
        """The points by module."""
        return Points.of(self.points)


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
        return [(singles[0], view_of(atlas.place(singles[0].bare), singles[0]))]
    found, refusal = [], None
    for single in singles:
        try:
            found.append((single, view_of(atlas.place(single.bare), single)))
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
    last: Last | None = atlas.plans.get("edited") if edits and not generating else None
    if last is not None and last.serves(atlas, reads, edits, rows, batch, until):
        return last.plan
    layout = _layout(rows)

    def plan() -> Plan:
        return _planned(atlas, reads, edits, rows, layout, batch, until, generating)

    if generating or layout is None:
        return plan()
    if not edits:  # then a plan depends on the layout of the inputs alone
        return _remembered(atlas, (reads, until, batch, layout), plan)
    found = plan()
    plain = all(site.basis is None for site in (*found.reads, *(edit.site for edit in edits)))
    if plain and all(operation.lasting for point in found.points for _, operation in point.operations):
        held = [edit["value"] for edit in edits if isinstance(edit["value"], torch.Tensor)]
        forms = [(value, (value.shape, value.dtype, value.device)) for value in held]
        atlas.plans["edited"] = Last(found, reads, dict(rows), batch, until, atlas.dtype, atlas.device, forms)
    return found


@dataclass(frozen=True, eq=False)
class Last:
    """The last plan with edits and what it was made for: steering in a loop over texts asks for it again.

    A plan holds what its edits put in, so no more than one is kept with the model. The contents of the edits' `tensors` may change
    meanwhile, for an operation holds the tensor itself; their form may not.
    """

    plan: Plan
    reads: tuple[Site, ...]
    rows: Mapping[str, Rows]
    batch: int | None
    until: Any
    dtype: torch.dtype
    device: torch.device
    tensors: Sequence[tuple[torch.Tensor, tuple[Any, ...]]]

    def serves(
        self, atlas: Atlas, reads: tuple[Site, ...], edits: Edits, rows: Mapping[str, Rows], batch: int | None, until: Any
    ) -> bool:
        """Whether the very same edits are asked for on inputs of the same layout."""
        return (
            len(edits) == len(self.plan.edits)
            and all(map(is_, edits, self.plan.edits))
            and reads == self.reads
            and batch == self.batch
            and until == self.until
            and rows == self.rows
            and atlas.dtype is self.dtype
            and atlas.device == self.device
            and all((value.shape, value.dtype, value.device) == form for value, form in self.tensors)
        )


def _layout(rows: Mapping[str, Rows]) -> tuple[Any, ...] | None:
    """What plans depend on, as a key; None where spans make it not worth remembering."""
    key = []
    for stack, layout in rows.items():
        if layout.form is None:
            return None
        key.append((stack, layout.form))
    return tuple(key)


def _remembered(atlas: Atlas, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """`make()`, kept with the model for the next request of the same form."""
    found = atlas.plans.get(key)
    if found is None:
        if len(atlas.plans) >= 512:
            for old in [k for k in atlas.plans if isinstance(k, tuple)]:
                del atlas.plans[old]
        found = make()
        asked = key[0] if isinstance(key[0], tuple) else (key[0],)
        if all(site.basis is None for site in asked):  # a basis may be large and may be trained, so none is kept alive here
            atlas.plans[key] = found
    return found


@dataclass(frozen=True, eq=False)
class Aim:
    """One place that a site names, and the shape of its selection there (None: only the run can tell)."""

    site: Site
    place: Place
    shape: list[int | None] | None


def _aims(
    atlas: Atlas,
    site: Site,
    rows: Mapping[str, Rows],
    layout: tuple[Any, ...] | None,
    batch: int | None,
    generating: bool,
    windows: dict[Any, Window],
) -> list[Aim]:
    """The places that a site names, its selectors checked at each; `windows` receives the compiled selections."""

    def find() -> tuple[list[Aim], dict[Any, Window]]:
        found, compiled = [], {}
        for single, place in concrete(atlas, site):
            check_selectors(single, place, rows, batch, generating, compiled)
            found.append(Aim(single, place, narrowed_shape(single, place, rows, batch)))
        return found, compiled

    aims, compiled = find() if layout is None else _remembered(atlas, (site, batch, layout, generating), find)
    windows.update(compiled)
    return aims


def _planned(
    atlas: Atlas,
    reads: tuple[Site, ...],
    edits: Edits,
    rows: Mapping[str, Rows],
    layout: tuple[Any, ...] | None,
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
        for aim in _aims(atlas, site, rows, layout, batch, generating, windows):
            at_place = point(aim.place.under or aim.place)
            if aim.site not in at_place.reads:
                at_place.reads.append(aim.site)
                wanted.append(aim.site)
            if aim.place.under is not None:
                at_place.views = {**(at_place.views or {}), aim.site: aim.place}
            last.append((aim.site.stack or "main", _depth_of(aim.site)))
    deepest_read = _deepest(last)
    edited: list[tuple[str, int | None]] = []
    for index, edit in enumerate(edits):
        if not generating:
            require_steps(edit)
        for aim in _aims(atlas, edit.site, rows, layout, batch, generating, windows):
            place, here = aim.place, edit if edit.site is aim.site else edit.at(aim.site)
            if place.read_only:
                raise SiteRefused(f"{aim.site} can be read but not edited: {place.read_only}", place.read_only)
            operation = prepare(here, place, rows, aim.shape, atlas.dtype, atlas.device)
            point(place.under or place).operations.append((index, operation))
            edited.append((aim.site.stack or "main", _depth_of(aim.site)))
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
        windows[key] = compile_window(key[0], place.axes, key[2], layouts, final=not generating, name=site)


def attention_configs(points: Sequence[Point]) -> list[Any]:
    """The configurations through which the touched attention modules choose their kernel."""
    return [p.place.module.config for p in points if p.place.end == "attention"]
