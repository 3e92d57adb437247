"""What a picture shows, as small frozen values that any renderer can draw.

Every spec is a `View`: pure data (tuples, text, numbers), checked when it is made, and written as JSON under its `kind`. A number is
finite, or None where there is none. What a spec looks like is left to the renderers in `mainspring.views`.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from mainspring.errors import ViewError

__all__ = ["BarsView", "CardView", "Cell", "CurveView", "GraphEdge", "GraphNode", "GraphView", "GridView", "HeatView"]
__all__ += ["ImageRegionsView", "Line", "Number", "Point", "Region", "ScatterView", "StripView", "TableView", "TokensView"]
__all__ += ["View", "ViewError", "numbers"]

Number = float | None
"""A finite number, or None where there is none."""

_IMAGE = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")


class View:
    """What every spec can do: be written, be shown by a notebook, be printed by rich."""

    kind: ClassVar[str]
    title: str

    def to_json(self) -> str:
        """The spec as one JSON object with its `kind`; `mainspring.views.from_json` reads it."""
        return json.dumps({"kind": self.kind, **asdict(self)}, allow_nan=False)  # pyright: ignore[reportArgumentType]

    def _repr_html_(self) -> str:
        import mainspring  # what draws is above this file, and is loaded when it is asked for

        return mainspring.views.notebook(self)

    def __rich__(self) -> Any:
        import mainspring

        return mainspring.views.terminal(self)


@dataclass(frozen=True)
class GraphNode:
    """A component: `layer` is -1 before the first layer, and the number of layers behind the last."""

    id: str
    layer: int
    kind: str


@dataclass(frozen=True)
class GraphEdge:
    """`source` feeds `target` through its input `via`; `weight` is a size, `sign` -1, 0 or 1."""

    source: str
    target: str
    weight: float = 1.0
    sign: int = 0
    via: str = ""


@dataclass(frozen=True)
class GraphView(View):
    """Components by layer and what flows between them."""

    kind: ClassVar[str] = "graph"
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    title: str = ""

    def __post_init__(self) -> None:
        known = {node.id for node in self.nodes}
        _need(len(known) == len(self.nodes), "graph: two nodes share an id")
        _finite("graph: weights", [edge.weight for edge in self.edges])
        for edge in self.edges:
            _need(edge.source in known and edge.target in known, f"graph: no node for the edge {edge.source} -> {edge.target}")
            _need(edge.weight >= 0 and edge.sign in (-1, 0, 1), f"graph: {edge} has a size below 0, or a sign not -1, 0 or 1")


@dataclass(frozen=True)
class HeatView(View):
    """A number at every pair of names: `values[row][column]` is at `y[row]`, `x[column]`; row 0 is drawn on top.

    `diverging` colours by sign about 0, else by size. `low` and `high` fix the ends of the colours, so that two pictures compare.
    `marks` are (row, column) of cells with a frame.
    """

    kind: ClassVar[str] = "heat"
    values: tuple[tuple[Number, ...], ...]
    x: tuple[str, ...]
    y: tuple[str, ...]
    x_title: str = ""
    y_title: str = ""
    title: str = ""
    diverging: bool = False
    marks: tuple[tuple[int, int], ...] = ()
    value_title: str = ""
    low: Number = None
    high: Number = None

    def __post_init__(self) -> None:
        _rectangle("heat", self.values, self.x, self.y)
        _finite("heat: values", (v for row in self.values for v in row), missing=True)
        _range("heat", self.low, self.high)
        for row, column in self.marks:
            _need(0 <= row < len(self.y) and 0 <= column < len(self.x), f"heat: no cell at the mark ({row}, {column})")


class Cell(NamedTuple):
    """A text in a grid, and how much it weighs; its colour follows the weight."""

    text: str
    weight: Number = None


@dataclass(frozen=True)
class GridView(View):
    """A text at every pair of names, coloured by its weight: `cells[row][column]` at `y[row]`, `x[column]`; row 0 on top."""

    kind: ClassVar[str] = "grid"
    cells: tuple[tuple[tuple[str, Number], ...], ...]
    x: tuple[str, ...]
    y: tuple[str, ...]
    x_title: str = ""
    y_title: str = ""
    title: str = ""
    diverging: bool = False
    value_title: str = ""

    def __post_init__(self) -> None:
        _rectangle("grid", self.cells, self.x, self.y)
        _finite("grid: weights", (weight for row in self.cells for _, weight in row), missing=True)


@dataclass(frozen=True)
class BarsView(View):
    """A bar for every name; `low` and `high` are the ends of its interval, `bars` are reference lines with `bar_names`."""

    kind: ClassVar[str] = "bars"
    names: tuple[str, ...]
    values: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    title: str = ""
    y_title: str = ""
    bars: tuple[float, ...] = ()
    bar_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _same("bars: values for names", self.names, self.values)
        _intervals("bars", self.values, self.low, self.high)
        _lines("bars", self.bars, self.bar_names)


@dataclass(frozen=True)
class StripView(View):
    """Every single value of each group as a dot, over its mean: `values[i]` belong to `names[i]`; `bars` as in `BarsView`."""

    kind: ClassVar[str] = "strip"
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    title: str = ""
    y_title: str = ""
    bars: tuple[float, ...] = ()
    bar_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _same("strip: values for names", self.names, self.values)
        _finite("strip: values", (v for group in self.values for v in group))
        _lines("strip", self.bars, self.bar_names)


class Point(NamedTuple):
    """A dot with its label; dots of one group share a colour."""

    x: float
    y: float
    label: str = ""
    group: str = ""


@dataclass(frozen=True)
class ScatterView(View):
    """Dots at (x, y, label, group); `diagonal` draws the line x = y."""

    kind: ClassVar[str] = "scatter"
    points: tuple[tuple[float, float, str, str], ...]
    x_title: str = ""
    y_title: str = ""
    title: str = ""
    diagonal: bool = False

    def __post_init__(self) -> None:
        _finite("scatter: points", (v for point in self.points for v in point[:2]))


@dataclass(frozen=True)
class Line:
    """One line of a curve, with x rising; a y of None breaks it; `low` and `high` are the ends of a band around it."""

    name: str
    x: tuple[float, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        name = f"line {self.name!r}"
        _same(f"{name}: y for x", self.x, self.y)
        _finite(f"{name}: x", self.x)
        _need(all(a <= b for a, b in zip(self.x, self.x[1:], strict=False)), f"{name}: x does not rise")
        _intervals(name, self.y, self.low, self.high)


@dataclass(frozen=True)
class CurveView(View):
    """Lines over a common x; `log_x` and `log_y` take positive numbers only; `bars` are level reference lines."""

    kind: ClassVar[str] = "curve"
    lines: tuple[Line, ...]
    x_title: str = ""
    y_title: str = ""
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    bars: tuple[float, ...] = ()
    bar_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _lines("curve", self.bars, self.bar_names)
        xs = [v for line in self.lines for v in line.x]
        ys = [v for line in self.lines for v in (*line.y, *line.low, *line.high) if v is not None]
        _need(not self.log_x or all(v > 0 for v in xs), "curve: log_x, and an x that is not above 0")
        _need(not self.log_y or all(v > 0 for v in (*ys, *self.bars)), "curve: log_y, and a y that is not above 0")


@dataclass(frozen=True)
class TokensView(View):
    """A text, token by token, each with a weight behind it."""

    kind: ClassVar[str] = "tokens"
    tokens: tuple[str, ...]
    weights: tuple[Number, ...]
    title: str = ""
    diverging: bool = False
    value_title: str = ""

    def __post_init__(self) -> None:
        _same("tokens: weights for tokens", self.tokens, self.weights)
        _finite("tokens: weights", self.weights, missing=True)


@dataclass(frozen=True)
class Region:
    """A box of an image in its pixels, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""
    weight: Number = None

    def __post_init__(self) -> None:
        _finite("region", (self.left, self.top, self.right, self.bottom))
        _finite("region: weight", (self.weight,), missing=True)
        _need(self.left < self.right and self.top < self.bottom, f"region {self.label!r} has no area")


@dataclass(frozen=True)
class ImageRegionsView(View):
    """An image (a base64 data URI of a PNG, JPEG or WebP) of `width` by `height` pixels, with boxes on it."""

    kind: ClassVar[str] = "image"
    image: str
    width: int
    height: int
    regions: tuple[Region, ...] = ()
    title: str = ""
    diverging: bool = False
    value_title: str = ""

    def __post_init__(self) -> None:
        _need(bool(_IMAGE.fullmatch(self.image)), "image: not a base64 data URI of a PNG, JPEG or WebP")
        _need(self.width > 0 and self.height > 0, f"image: {self.width} by {self.height} pixels is no size")


@dataclass(frozen=True)
class CardView(View):
    """Facts about one thing: rows of (name, text)."""

    kind: ClassVar[str] = "card"
    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TableView(View):
    """Rows of text and numbers under named columns."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            _same(f"table: cells for columns in row {i}", self.columns, row)
        _finite("table", (v for row in self.rows for v in row if not isinstance(v, str)), missing=True)


def numbers(values: Any) -> Any:
    """A tensor, array or nested sequence as nested tuples of floats; what is not finite becomes None."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, Iterable):
        return tuple(numbers(v) for v in values)
    return float(values) if values is not None and math.isfinite(values) else None


# ---- checks ----


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ViewError(message)


def _finite(what: str, values: Iterable[Number], missing: bool = False) -> None:
    for value in values:
        if value is None and not missing:
            raise ViewError(f"{what}: None where a number must be")
        if value is not None and not math.isfinite(value):
            raise ViewError(f"{what}: {value} cannot be drawn; write None where there is no number, or use views.numbers(...)")


def _same(what: str, first: Sequence[Any], second: Sequence[Any]) -> None:
    _need(len(first) == len(second), f"{what}: {len(second)} for {len(first)}")


def _rectangle(what: str, rows: Sequence[Sequence[Any]], x: Sequence[str], y: Sequence[str]) -> None:
    _same(f"{what}: rows for y", y, rows)
    for i, row in enumerate(rows):
        _same(f"{what}: columns for x in row {i}", x, row)


def _range(what: str, low: Number, high: Number) -> None:
    _finite(f"{what}: low and high", (low, high), missing=True)
    _need(low is None or high is None or low < high, f"{what}: low {low} is not below high {high}")


def _intervals(what: str, values: Sequence[Number], low: Sequence[Number], high: Sequence[Number]) -> None:
    _finite(f"{what}: values", (*values, *low, *high), missing=True)
    _need(bool(low) == bool(high), f"{what}: an interval has both ends, low and high")
    if low:
        _same(f"{what}: low for values", values, low)
        _same(f"{what}: high for values", values, high)
        ends = [(a, b) for a, b in zip(low, high, strict=True) if a is not None and b is not None]
        _need(all(a <= b for a, b in ends), f"{what}: a low above its high")


def _lines(what: str, bars: Sequence[float], names: Sequence[str]) -> None:
    _finite(f"{what}: bars", bars)
    if names:
        _same(f"{what}: bar_names for bars", bars, names)
