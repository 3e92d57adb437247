"""Every site of a model as a table: its shape, what can be done there, its other names, and why some are refused."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mainspring.models.report import folded
from mainspring.sites import Site
from mainspring.vocabulary import LAYER_SITES, TOP_SITES

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["SiteRow", "SiteTable", "list_sites"]

LETTERS = {"batch": "b", "pos": "p", "query": "query", "key": "key", "image": "image", "patch": "patch"}
"""How an axis whose length only the run can tell is shown; other axes of unknown length by their name."""

VERBS = ("read", "write", "grad")
COLUMNS = ("site", "shape", "verbs", "note")


@dataclass(frozen=True)
class SiteRow:
    """A site, or the same site of several layers that are alike; `name` is its word, `layers` are their indices.

    `verbs` is empty where the site is refused; `note` then is the reason, otherwise an alias or None.
    """

    site: str
    name: str = ""
    shape: tuple[int | str, ...] = ()
    verbs: tuple[str, ...] = ()
    alias: str | None = None
    reason: str = ""
    layers: tuple[int, ...] = ()

    @property
    def offered(self) -> bool:
        return bool(self.verbs)

    @property
    def note(self) -> str:
        if not self.offered:
            return self.reason
        limits = f"not written: {self.reason}" if self.reason else ""
        return "; ".join(x for x in (f"same tensor as {self.alias}" if self.alias else "", limits) if x)

    def cells(self) -> tuple[str, str, str, str]:
        return self.site, " ".join(map(str, self.shape)), " ".join(self.verbs) or "-", self.note


@dataclass(frozen=True)
class SiteTable:
    """Rows of `SiteRow`. Iterable; `where("attn.*")` keeps the rows whose site matches a pattern, `offered` those not refused."""

    model: str
    rows: tuple[SiteRow, ...] = field(default=(), repr=False)

    def where(self, pattern: str) -> "SiteTable":
        """The rows whose site matches a glob; a word such as "attn.*" matches in every stack and layer."""
        kept = tuple(row for row in self.rows if fnmatchcase(row.site, pattern) or fnmatchcase(row.name, pattern))
        return SiteTable(self.model, kept)

    @property
    def offered(self) -> "SiteTable":
        """Without the refused sites."""
        return SiteTable(self.model, tuple(row for row in self.rows if row.offered))

    def __iter__(self) -> Iterator[SiteRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def lines(self) -> list[tuple[str, str, str, str]]:
        """Rows for display: a part that a layer does not have at all takes one line."""
        parts: dict[tuple[str, str, str], list[SiteRow]] = {}
        for row in self.rows:
            parts.setdefault((row.site.removesuffix(row.name), row.name.partition(".")[0], row.reason), []).append(row)
        lines: dict[tuple[str, str, str, str], None] = {}
        for row in self.rows:
            before, part = row.site.removesuffix(row.name), row.name.partition(".")[0]
            size = sum(name.startswith(f"{part}.") for name in LAYER_SITES)
            whole = not row.offered and len(parts[before, part, row.reason]) == size
            lines[(f"{before}{part}.*", "", "-", row.reason) if whole else row.cells()] = None
        return list(lines)

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.model, title_justify="left")
        for name in COLUMNS:
            table.add_column(name, overflow="fold", no_wrap=name == "site")
        for line in self.lines():
            table.add_row(*(Text(cell) for cell in line), style="dim" if line[2] == "-" else None)
        return table

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(width=140, color_system=None, force_terminal=False)
        with console.capture() as text:
            console.print(self)
        return text.get()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in self.lines())
        return f"<table><caption>{escape(self.model)}</caption><tr>{head}</tr>{body}</table>"


def list_sites(model: "Model") -> SiteTable:
    """Every site of the vocabulary on every stack of a model. A model without a map offers its own modules."""
    title = f"{type(model.module).__name__} ({model.family})"
    if model.map is None:
        names = [name for name, _ in model.module.named_modules() if name]
        rows = [
            SiteRow(str(Site(f"{n}.{end}", stack="module")), f"{n}.{end}", (), VERBS)
            for n in names
            for end in ("input", "output")
        ]
        return SiteTable(title, tuple(rows))
    rows = []
    for stack in model.atlas.towers:
        rows.append(_row(model, Site("embed", None, stack)))
        for name in LAYER_SITES:
            rows.extend(_layer_rows(model, stack, name))
        tops = (name for name in TOP_SITES if name != "embed" and (not stack or name == "final_norm"))
        rows.extend(_row(model, Site(name, None, stack)) for name in tops)
    return SiteTable(title, tuple(rows))


def _layer_rows(model: "Model", stack: str, name: str) -> list[SiteRow]:
    """The site in all layers, folded where they are alike."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in range(model.atlas.depth(stack)):
        row = _row(model, Site(name, index, stack))
        groups.setdefault((row.shape, row.verbs, row.alias, row.reason), []).append(index)
    prefix = f"{stack}." if stack else ""
    return [
        SiteRow(f"{prefix}layers.{_folded(indices)}.{name}", name, shape, verbs, alias, reason, tuple(indices))
        for (shape, verbs, alias, reason), indices in groups.items()
    ]


def _folded(indices: list[int]) -> str:
    text = folded(map(str, indices))
    if "," not in text:
        return text
    steps = {b - a for a, b in pairwise(indices)}
    if len(steps) == 1:
        return f"{indices[0]}:{indices[-1] + 1}:{steps.pop()}"
    return f"[{','.join(map(str, indices))}]"


def _row(model: "Model", site: Site) -> SiteRow:
    readable = model.can(site)
    if not readable:
        return SiteRow(str(site), site.name, reason=readable.reason)
    place = model.atlas.place(site)
    shape = tuple(place.sizes.get(axis) or LETTERS.get(axis, axis) for axis in place.axes)
    verbs = tuple(verb for verb in VERBS if model.can(site, verb))
    alias = place.site.name if place.site != site else None
    return SiteRow(str(site), site.name, shape, verbs, alias, model.can(site, "write").reason)
